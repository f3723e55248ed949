# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The scores of the downstream comparison: over seeds, frames, conditions and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from magicfuse_training.arrays import F64, I64
from magicfuse_training.metrics.bootstrap import Figure, figure_of
from magicfuse_training.metrics.segmentation import iou, mean_iou, mean_of_known
from magicfuse_training.metrics.table import ScoreTable, markdown

START, END = "<!-- downstream: written by magicfuse-train downstream -->", "<!-- /downstream -->"
BASE = "degraded"  # what the others are compared with


def set_scores(
    matrices: Mapping[str, I64], samples: Sequence[tuple[str, str]], classes: Sequence[str]
) -> dict[str, Any]:
    """Return the scores of a set, by input.

    miou_percent         mean over seeds, and the interval that other held-out frames would give.
                         The conditions of a frame are drawn together
    by_seed              mIoU of each seed
    by_condition         mIoU of each seed, by condition
    iou_percent          mean over seeds, by class
    against_degraded     difference of the mean to that of `degraded`, for the seeds and the frames
                         that both have, and its interval

    Args:
        matrices: confusion matrices by input: (samples, seeds, R, C), see `Confusion`.
        samples: frame and condition of each sample.
        classes: names of the C classes.
    """
    conditions = list(dict.fromkeys(condition for _, condition in samples))
    frames = {name: i for i, name in enumerate(dict.fromkeys(name for name, _ in samples))}
    places = np.array([frames[name] for name, _ in samples])
    ids = range(len(classes))
    inputs: dict[str, Any] = {}
    by_frame: dict[str, F64] = {}
    for kind, some in matrices.items():
        by_frame[kind] = np.zeros((len(frames), *some.shape[1:]))
        np.add.at(by_frame[kind], places, some)
        sums = by_frame[kind].sum(0)
        by_condition = {
            condition: mean_iou(some[[c == condition for _, c in samples]].sum(0) * 1.0, ids)
            for condition in conditions
        }
        by_class = mean_of_known(iou(sums).T).tolist()
        inputs[kind] = {
            "miou_percent": figure_of(by_frame[kind], lambda m: mean_iou(m, ids).mean(-1)),
            "by_seed": mean_iou(sums, ids).tolist(),
            "by_condition": {name: values.tolist() for name, values in by_condition.items()},
            "iou_percent": dict(zip(classes, by_class, strict=True)),
        }
    for kind in matrices.keys() - {BASE}:
        if BASE not in matrices:
            break
        both = min(by_frame[kind].shape[1], by_frame[BASE].shape[1])
        pairs = np.stack([by_frame[kind][:, :both], by_frame[BASE][:, :both]], 1)
        inputs[kind]["against_degraded"] = figure_of(
            pairs, lambda m: (mean_iou(m, ids)[:, 0] - mean_iou(m, ids)[:, 1]).mean(-1)
        )
    return {"conditions": conditions, "inputs": inputs}


def as_markdown(result: Mapping[str, Any]) -> str:
    """Return the tables of a result as Markdown."""
    parts = [describe(result)]
    for name, scores in result["sets"].items():
        counts = f"{scores['train_frames']} training and {scores['test_frames']} held-out frames"
        parts.append(f"**{name}**: {counts}, {scores['labels']} labels.")
        for table in (_main(scores), _by_class(scores)):
            if table.rows:
                parts.append(markdown(table))
    return "\n\n".join(parts) + "\n"


def describe(result: Mapping[str, Any]) -> str:
    """Return a paragraph that tells what was compared, and at which size."""
    wide, budget = result["inputs"]["width"], result["training"]
    width = "at their own size" if wide is None else f"{wide} pixels wide"
    return (
        f"SegFormer (MiT-B0) from random weights: {budget['steps']} steps of {budget['batch']} "
        f"crops of {budget['width']}x{budget['height']} for each network, "
        f"{result['seeds']} seeds, images {width}. Bundle `{result['bundle']}`, K = {result['k']}, "
        f"tau {result['tau']:g}, {result['precision']} in {result['backend']}. "
        "mIoU in %: mean over seeds, (lowest to highest seed), [95 % interval of other frames]."
    )


def _main(scores: Mapping[str, Any]) -> ScoreTable:
    conditions = scores["conditions"]
    rows = []
    for kind, row in scores["inputs"].items():
        against = row.get("against_degraded")
        rows.append(
            [
                kind,
                f"{_seeds(row['by_seed'])} {_interval(row['miou_percent'])}",
                _difference(against) if against else "",
                *[_seeds(row["by_condition"][name]) for name in conditions],
            ]
        )
    return ScoreTable(["input", "mIoU", "against degraded", *conditions], rows)


def _by_class(scores: Mapping[str, Any]) -> ScoreTable:
    inputs = scores["inputs"]
    names = next(iter(inputs.values()))["iou_percent"] if inputs else {}
    rows = []
    for name in names:
        values = [row["iou_percent"][name] for row in inputs.values()]
        if not np.isnan(values).all():
            rows.append([name, *["-" if np.isnan(v) else f"{v:.1f}" for v in values]])
    return ScoreTable(["IoU, %", *inputs], rows)


def _seeds(values: Sequence[float]) -> str:
    if np.isnan(values).any():
        return "-"
    mean = f"{np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def _difference(figure: Figure) -> str:
    return "-" if np.isnan(figure.value) else f"{figure.value:+.1f} {_interval(figure)}"


def _interval(figure: Figure) -> str:
    if np.isnan(figure.value):
        return ""
    return f"[{figure.low:.1f}, {figure.high:.1f}]"
