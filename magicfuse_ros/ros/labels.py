"""The class names of the mask as a message, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from std_msgs.msg import Header, String

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.errors import FrameError

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # not on every ROS installation
    LabelInfo = VisionClass = None

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
    """Return the names by class id of a `LABEL_TYPE`, also of another node's.

    Raises:
        FrameError: if it names no class, or an id that no mono8 mask can have.
    """
    try:
        if LabelInfo is None:
            entries = [
                (c["class_id"], c["class_name"]) for c in json.loads(message.data)["class_map"]
            ]
        else:
            entries = [(c.class_id, c.class_name) for c in message.class_map]
        names = {int(number): str(name) for number, name in entries}
    except (ValueError, TypeError, KeyError) as error:
        raise FrameError(f"label_info cannot be read: {type(error).__name__}: {error}") from error
    if not names or not all(0 <= number <= 255 for number in names):
        raise FrameError(f"label_info has the class ids {sorted(names)}; expected some of 0 to 255")
    return names
