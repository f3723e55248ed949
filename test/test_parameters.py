# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from magicfuse_ros import parameters
from magicfuse_ros.backends import BACKENDS
from magicfuse_ros.parameters import SCHEMAS, FuseParameters, GroundParameters

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("node", SCHEMAS)
def test_the_yaml_file_is_the_schema(node: str) -> None:
    text = (ROOT / "config" / f"{node.removesuffix('_node')}.yaml").read_text()
    assert text == parameters.yaml(node)
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert SCHEMAS[node].model_validate(values) == SCHEMAS[node]()


@pytest.mark.parametrize("node", SCHEMAS)
def test_the_table_of_its_page_is_the_schema(node: str) -> None:
    page = (ROOT / "docs" / parameters.PAGES[node]).read_text(encoding="utf-8")
    assert page == parameters.with_table(page, node)


def test_backends_are_those_that_can_be_selected() -> None:
    assert get_args(FuseParameters.model_fields["backend"].annotation) == BACKENDS


def test_rows_know_their_limits() -> None:
    rows = {row.name: row for row in parameters.parameters()}
    live = {name for name, row in rows.items() if row.live}
    assert live == {"mode", "steps", "tau", "target_period"}
    assert (rows["tau"].minimum, rows["tau"].maximum) == (-1.0, 1.0)
    assert rows["mode"].choices == ("fuse", "restore", "auto")
    ground = {row.name: row for row in parameters.parameters(GroundParameters)}
    assert (ground["camera_height"].minimum, ground["camera_height"].maximum) == (0.01, 100.0)
    assert ground["ground_classes"].default == ["road", "pavement"]
    assert not ground["ground_classes"].choices
    assert all(row.description for row in (*rows.values(), *ground.values()))


def test_values_of_the_bundle() -> None:
    assert FuseParameters().chosen_tau is None
    assert FuseParameters(tau=0.0).chosen_tau == 0.0


@pytest.mark.parametrize(
    "values",
    [
        {"tau": 1.1},
        {"steps": -1},
        {"mode": "x"},
        {"target_period": -0.1},
        {"no": 1},
        {"tau": "0.5"},
    ],
)
def test_wrong_values_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        FuseParameters.model_validate(values)
