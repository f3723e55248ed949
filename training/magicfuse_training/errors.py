# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Errors of the training package that a user can fix; the command line prints one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from magicfuse_ros.errors import MagicFuseError


class PresetError(MagicFuseError):
    """An unusable preset: not found, not YAML, an unknown key, a value out of range."""


class RecipeError(MagicFuseError):
    """An unusable recipe: not YAML, an unknown key or stage, keys that conflict."""


class TrainingError(MagicFuseError):
    """A run that cannot start, resume or finish."""


class ExportError(MagicFuseError):
    """A graph that does not match its network."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'NEAREST'?", or "; expected one of ..." if nothing is near."""
    known = list(known)
    if near := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean '{near[0]}'?"
    return f"; expected one of {', '.join(known)}"
