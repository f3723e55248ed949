# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Recipes are strict, with helpful errors; the project's recipes fit its presets and sets."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_make import write_recipe

from magicfuse_training import recipe as recipe_module
from magicfuse_training.commands.stage import check_stage
from magicfuse_training.data.datasets import DATASETS
from magicfuse_training.errors import RecipeError
from magicfuse_training.preset import load_preset
from magicfuse_training.recipe import load_recipe

RECIPES = Path(recipe_module.__file__).parents[1] / "recipes"
FEW = {"stage": "few_step", "steps": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stagse": []}, "stagse is unknown; did you mean 'stages'?"),
        ({"stages": [FEW | {"minute": 3}]}, "stages.0.minute is unknown; did you mean 'minutes'?"),
        ({"stages": [FEW | {"stage": "fewstep"}]}, "stages.0.stage is 'fewstep': unknown; did you"),
        ({"stages": [FEW | {"minutes": 3}]}, "stages.0: budget is 3.0 minutes and 1 steps; exp"),
        ({"stages": [FEW, FEW]}, "stages has 'few_step' twice; give each a name of its own"),
        ({"stages": [FEW | {"name": "start"}]}, "a stage's name is 'start', which is taken"),
        ({"start": {"commit": "dcc404a", "bundle": "x"}}, "start.commit is 'dcc404a'"),
        ({"average": {"stages": ["few_stp"], "weights": [1]}}, "'few_stp'; did you mean 'few_step"),
        ({"average": {"stages": ["few_step"], "weights": []}}, "average: weights has 0 values"),
        ({"average": {"stages": ["start"], "weights": [1]}}, "average.stages has 'start'"),
        (
            {"average": {"stages": ["few_step"], "weights": [1], "networks": ["unet"]}},
            "average.networks.0 is 'unet'",
        ),
        ({"average": {"stages": ["few_step"], "weights": [0]}}, "average: weights are [0.0]; exp"),
        ({"average": {"stages": ["few_step"], "weights": [math.nan]}}, "weights are [nan]; exp"),
        ({"stages": [{"stage": "few_step", "minutes": math.inf}]}, "stages.0.minutes is inf"),
        ({"data": []}, "data is []"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_recipe(tmp_path, [FEW])
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"recipe '{path}'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: nano\npreset: edge\n", "is not YAML: line 2 has the key 'preset' a second time"),
        ("preset: 2026-02-30\n", "is not YAML: day is out of range for month"),
        ("[" * 5000, "is not YAML: "),
    ],
)
def test_yaml_that_would_be_misread_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_fit_their_presets(path: Path) -> None:
    recipe = load_recipe(path)
    preset = load_preset(recipe.preset)
    for part in recipe.stages:
        check_stage(preset, part.stage)
    assert {text.split(":")[0] for text in recipe.data} <= set(DATASETS)
