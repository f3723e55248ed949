# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Converts the class names of the mask to a message and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from std_msgs.msg import Header, String

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.errors import FrameError
from magicfuse_ros.untrusted_json import parse, shortened

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # not on every ROS installation
    LabelInfo = VisionClass = None

_MAX_TEXT = 2**17  # characters of JSON: 256 names of 100 characters, all of them escaped
_MAX_CLASSES = 256
_MAX_NAME = 100

LABEL_TYPE: Any = String if LabelInfo is None else LabelInfo


def label_message(classes: Sequence[SemanticClass], header: Header) -> Any:
    """Return the classes as a `LABEL_TYPE`: LabelInfo, or a JSON string with the same fields."""
    if LabelInfo is None:
        class_map = [{"class_id": c.id, "class_name": c.name} for c in classes]
        return String(data=json.dumps({"class_map": class_map, "threshold": 0.0}))
    return LabelInfo(
        header=header,
        class_map=[VisionClass(class_id=c.id, class_name=c.name) for c in classes],
        threshold=0.0,
    )


def class_names(message: Any) -> dict[int, str]:
    """Return the class names by id from a `LABEL_TYPE`, including one from another node.

    Raises:
        FrameError: if it cannot be read, names no class or one class twice, or has an id that no
            mono8 mask can have.
    """
    try:
        if LabelInfo is None:
            if len(message.data) > _MAX_TEXT:
                raise ValueError(f"{len(message.data)} characters; expected at most {_MAX_TEXT}")
            entries = [(c["class_id"], c["class_name"]) for c in parse(message.data)["class_map"]]
        else:
            entries = [(c.class_id, c.class_name) for c in message.class_map[: _MAX_CLASSES + 1]]
    except Exception as error:  # foreign text: a thousand brackets, a list instead of an object
        reason = shortened(f"{type(error).__name__}: {error}")
        raise FrameError(f"label_info cannot be read: {reason}") from error
    if len(entries) > _MAX_CLASSES:
        raise FrameError(f"label_info has more than {_MAX_CLASSES} classes")
    names: dict[int, str] = {}
    for number, name in entries:
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 255:
            told = shortened(repr(number), _MAX_NAME)
            raise FrameError(f"label_info has the class id {told}; expected 0 to 255")
        if not isinstance(name, str) or len(name) > _MAX_NAME or not name.isprintable():
            told = shortened(repr(name), _MAX_NAME)
            raise FrameError(
                f"label_info names class {number} {told}; expected a text in one line of at most "
                f"{_MAX_NAME} characters"
            )
        if names.setdefault(number, name) != name:
            raise FrameError(f"label_info names class {number} '{names[number]}' and '{name}'")
    if not names:
        raise FrameError("label_info has no classes; expected class ids of 0 to 255")
    return names
