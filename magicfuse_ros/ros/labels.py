"""The class names of the mask as a message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from std_msgs.msg import Header, String

from magicfuse_ros.bundle import SemanticClass

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
