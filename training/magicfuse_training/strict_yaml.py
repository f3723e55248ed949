# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads a YAML file into a pydantic model; errors name the problem and the nearest known key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from magicfuse_ros.errors import MagicFuseError
from magicfuse_training.errors import did_you_mean

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class Strict(BaseModel):
    """A model that refuses unknown keys and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def load_strict(
    path: Path, model: type[AnyModel], what: str, error: type[MagicFuseError]
) -> AnyModel:
    """Read a YAML file into a model that forbids unknown keys.

    Args:
        path: the file.
        model: the model of its content.
        what: the file's name in messages, as in "preset 'nano'".
        error: type of the error to raise.

    Raises:
        MagicFuseError: of the type `error`; names the key, its place, and the nearest known key.
    """
    try:
        # UTF-8, or UTF-16 with a byte order mark.
        content = path.read_bytes()
        _check_unique(yaml.compose(content, yaml.SafeLoader))
        values = yaml.safe_load(content)
    except OSError as problem:
        raise error(f"{what} cannot be read: {problem.strerror}") from problem
    except (ValueError, RecursionError, yaml.YAMLError) as problem:
        raise error(f"{what} is not YAML: {problem}") from problem
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        problems = "; ".join(_describe(e, values, model) for e in problem.errors())
        raise error(f"{what}: {problems}") from problem


def _check_unique(node: Any) -> None:
    """Refuse a key that comes twice in a YAML node: YAML forbids it, and the last one would win."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line} has the key '{key.value}' a second time")
                seen.add(key.value)
            _check_unique(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_unique(item)


def _describe(error: ErrorDetails, values: Any, model: type[BaseModel]) -> str:
    """Describe in one clause which key is wrong, and how."""
    *parents, key = error["loc"] or ("the file",)
    place = []
    for part in parents:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            continue  # the tag of a union, not a key
        place.append(part)
    name = ".".join(map(str, [*place, key]))
    if error["type"] == "extra_forbidden":
        return f"{name} is unknown{did_you_mean(str(key), _keys(parents, model))}"
    if error["type"] == "missing":
        return f"{name} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], dict):  # keys that conflict; the message names them
        return f"{name}: {message}" if error["loc"] else message
    return f"{name} is {error['input']!r}: {message}"


def _keys(place: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """Return a model's known keys at a place such as ("ikr",) or ("classes", 3)."""
    models = [model]
    for part in place:  # an index, a dict key or the tag of a union leads to no new model
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        models = [m for f in fields for m in _models_in(f.annotation)] or models
    return list(dict.fromkeys(name for m in models for name in m.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models within an annotation such as list[Model] or Model | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in get_args(annotation) for m in _models_in(inner)]
