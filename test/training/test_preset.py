# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Presets are strict, and their errors are helpful."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from magicfuse_training.errors import PresetError
from magicfuse_training.preset import PRESETS, load_preset


def write(folder: Path, change: dict[str, Any]) -> str:
    """Write nano with some keys replaced; a dotted key addresses a nested value."""
    values = yaml.safe_load((PRESETS / "nano.yaml").read_text())
    for key, value in change.items():
        *parents, last = key.split(".")
        inner = values
        for part in parents:
            inner = inner[int(part)] if isinstance(inner, list) else inner[part]
        inner[last] = value
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ikr.width", "x.yaml': ikr.width is unknown; did you mean 'widths'?"),
        ("default_step", "x.yaml': default_step is unknown; did you mean 'default_steps'?"),
        ("classes.3.thermel", "x.yaml': classes.3.thermel is unknown; did you mean 'thermal'?"),
        ("schedule.qqq", "schedule.qqq is unknown; expected one of train_steps, beta_start"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest_known_one(
    tmp_path: Path, key: str, message: str
) -> None:
    with pytest.raises(PresetError, match=re.escape(message)):
        load_preset(write(tmp_path, {key: 3}))


def test_a_wrong_value_is_named_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"ikr\.act is 'gelu': .*'silu', 'relu'"):
        load_preset(write(tmp_path, {"ikr.act": "gelu"}))
    with pytest.raises(PresetError, match=r"x\.yaml': steps is missing"):
        path = Path(write(tmp_path, {}))
        path.write_text(re.sub(r"(?m)^steps:\n(- .*\n)*", "", path.read_text()))
        load_preset(str(path))


def test_keys_that_do_not_hold_together_are_named_and_no_more(tmp_path: Path) -> None:
    with pytest.raises(PresetError) as caught:
        load_preset(write(tmp_path, {"schedule.prediction": "epsilon"}))
    assert str(caught.value).endswith(
        "x.yaml': schedule.zero_terminal_snr is true; expected false with prediction epsilon, "
        "which divides by sqrt(alpha-bar)"
    )
    with pytest.raises(PresetError, match=r"x\.yaml': autoencoder: noise_channels must be 0"):
        load_preset(write(tmp_path, {"autoencoder.noise_channels": 8}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"default_steps": 7}, r"default_steps is 7; expected one of \[1\]"),
        ({"steps": [1, 2000]}, r"steps are \[1, 2000\]; expected one or more, from 1 to 1000"),
        ({"height": 481}, "height and width are 481 and 640; expected multiples of 32"),
        ({"tau": 2.0}, "tau is 2.0"),
        ({"seed": -1}, "seed is -1"),
        ({"losses.class_weights": [1.0]}, "losses.class_weights has 1 values; expected one for"),
    ],
)
def test_what_no_bundle_can_have_is_refused_before_training(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PresetError, match=message):
        load_preset(write(tmp_path, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda classes: classes.pop(3), "ids 0, 1, 2, 4"),
        (lambda classes: classes.insert(0, classes.pop()), "ids 10, 0, 1"),
        (lambda classes: [c.update(thermal=False) for c in classes], "at least one thermal class"),
    ],
)
def test_classes_that_would_be_mixed_up_are_refused(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], object], words: str
) -> None:
    content = yaml.safe_load((PRESETS / "nano.yaml").read_text())
    change(content["classes"])
    count = len(content["classes"])
    content["losses"]["class_weights"] = content["losses"]["class_weights"][:count]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(PresetError, match=words):
        load_preset(str(tmp_path / "x.yaml"))


def test_a_file_that_is_no_preset_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text, message in (("a: [1", "is not YAML"), ("", r"x\.yaml': the file is None")):
        path.write_text(text)
        with pytest.raises(PresetError, match=message):
            load_preset(str(path))


def test_an_unknown_preset_suggests_the_nearest_one() -> None:
    with pytest.raises(
        PresetError, match=r"'nanno' is neither .* nor a known preset; did you mean 'nano'\?"
    ):
        load_preset("nanno")
    with pytest.raises(PresetError, match=r"'mine\.yaml' is neither a YAML file"):
        load_preset("mine.yaml")
