# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Parses JSON from untrusted sources in bounded time and memory."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 32  # of lists and objects


def parse(text: str) -> Any:
    """Parse a JSON text; the caller must check its length.

    Raises:
        ValueError: if it is not JSON, is nested more than `MAX_DEPTH` deep, or contains text that
            is not valid Unicode, which nothing could print.
    """
    too_deep = ValueError(f"it is nested more than {MAX_DEPTH} deep")
    try:
        value = json.loads(text)
    except RecursionError:
        raise too_deep from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for outer in level for item in _inside(outer)]
    if level:
        raise too_deep
    return value


def _inside(value: Any) -> list[Any]:
    if isinstance(value, str):
        value.encode()  # a UnicodeEncodeError, which is a ValueError, for half of a surrogate pair
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def shortened(text: str, limit: int = 300) -> str:
    """Return a text, which may quote untrusted input, cut to the length of a log line."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
