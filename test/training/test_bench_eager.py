# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train bench-eager`, the eager backend behind it, and the plot of results."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_make import write_preset

from cli_run import train
from magicfuse_ros.backends import select
from magicfuse_ros.bench.report import BenchReport, BenchResult, Machine, Quantiles
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.export.eager import EagerBackend
from magicfuse_training.model import MagicFuse
from magicfuse_training.preset import Preset

PLOT = Path(__file__).parents[2] / "benchmarks" / "plot.py"


@pytest.fixture
def folder(exported: tuple[MagicFuse, Path]) -> Path:
    return exported[1]


def test_eager_fuses_what_the_runtime_fuses(
    folder: Path, build_model: Callable[[], MagicFuse]
) -> None:
    bundle = Bundle.load(folder)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    model = build_model()
    for parameter in model.parameters():  # as a bundle stores them
        if parameter.numel() >= 1024:
            parameter.data = parameter.data.half().float()
    eager = Fuser(bundle, EagerBackend(model))(image)
    runtime = Fuser(bundle, select("onnxruntime"))(image)
    for name in ("mag_image", "restored", "thermal_estimate", "mask"):
        difference = np.abs(getattr(eager, name).astype(int) - getattr(runtime, name))
        assert (difference > 1).mean() < 0.01, name


def test_bench_eager_says_how_many_times_faster_the_runtime_is(
    folder: Path, small_preset: Preset, tmp_path: Path
) -> None:
    preset, out = write_preset(small_preset, tmp_path / "small.yaml"), tmp_path / "eager.json"
    command = ("bench-eager", "--bundle", folder, "--preset", preset, "--threads", "1")
    options = ("--precision", "fp32", "fp16", "--rounds", "2", "--frames", "2", "--json", out)
    code, output = train(*command, *options)
    assert code == 0 and "skipped openvino fp16" in output and "times faster" in output, output
    report = json.loads(out.read_text())
    (runtime,) = report["results"]
    assert runtime["backend"] == "openvino" and report["threads"] == 1
    ratio = report["eager_median_ms"] / runtime["median_ms"]
    assert runtime["times_faster"] == pytest.approx(ratio, rel=0.01)


def test_weights_of_another_preset_are_refused(folder: Path) -> None:
    code, output = train("bench-eager", "--bundle", folder, "--preset", "nano")
    assert code == 2 and "preset 'nano' has" in output


def test_the_plot_shows_the_newest_result_of_every_device(tmp_path: Path) -> None:
    for device, dates in (("a", ("2026-01-01", "2026-02-01")), ("b", ("2026-01-01",))):
        (tmp_path / device).mkdir()
        for date in dates:
            (tmp_path / device / f"{date}.json").write_text(_report(date).model_dump_json())
    picture = tmp_path / "docs" / "plot.png"
    command = [sys.executable, str(PLOT), str(tmp_path), str(picture)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "drawn from 2 results" in done.stdout
    image = cv2.imread(str(picture))
    assert image is not None and image.std() > 10
    few, more = _report("2026-03-01"), _report("2026-02-15")
    more = more.model_copy(update={"results": 2 * more.results})
    for report in (more, few):  # a later run of fewer combinations does not replace the picture
        (tmp_path / "b" / f"{report.created}.json").write_text(report.model_dump_json())
    subprocess.run(command, check=True)
    assert len(cv2.imread(str(picture))) > len(image)
    (tmp_path / "none").mkdir()
    done = subprocess.run([*command[:2], str(tmp_path / "none")], capture_output=True, text=True)
    assert done.returncode == 1 and "holds no result" in done.stderr


def _report(date: str) -> BenchReport:
    result = BenchResult(
        backend="openvino", backend_version="1", precision="fp32", width=640, height=480, steps=1,
        outputs=["mask"], gflop=10, median_ms=50, p95_ms=60, fps=20,
        stages_ms={"mkf": Quantiles(median=5, p95=6)}, rss_mb=300, load_to_first_frame_s=2,
        conv_peak_gflops=200, efficiency=0.5, peak_ratio=1,
    )  # fmt: skip
    return BenchReport(
        machine=Machine(cpu="a CPU", cores=2, conv_peak_gflops=200), commit="0", created=date,
        bundle="nano", bundle_sha256="0", gflop_per_frame=10, threads=0, rounds=1,
        frames_per_round=1, results=[result], skipped=[],
    )  # fmt: skip
