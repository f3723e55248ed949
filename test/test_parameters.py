from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from magicfuse_ros import parameters
from magicfuse_ros.backends import BACKENDS
from magicfuse_ros.parameters import FuseParameters

ROOT = Path(__file__).resolve().parents[1]


def test_fuse_yaml_is_the_schema() -> None:
    text = (ROOT / "config" / "fuse.yaml").read_text()
    assert text == parameters.yaml()
    values = yaml.safe_load(text)["/**"]["ros__parameters"]
    assert FuseParameters.model_validate(values) == FuseParameters()


def test_the_readme_table_is_the_schema() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme == parameters.with_table(readme)


def test_backends_are_those_that_can_be_selected() -> None:
    assert get_args(FuseParameters.model_fields["backend"].annotation) == BACKENDS


def test_rows_know_their_limits() -> None:
    rows = {row.name: row for row in parameters.parameters()}
    live = {name for name, row in rows.items() if row.live}
    assert live == {"mode", "steps", "tau", "target_period"}
    assert (rows["tau"].minimum, rows["tau"].maximum) == (-1.0, 1.0)
    assert rows["mode"].choices == ("fuse", "restore", "auto")
    assert all(row.description for row in rows.values())


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
