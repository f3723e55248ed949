from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from std_msgs.msg import Header

from magicfuse_ros.errors import FrameError
from magicfuse_ros.ros import labels
from tiny_bundle import CLASSES


def test_without_vision_msgs_the_names_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "LabelInfo", None)
    content = json.loads(labels.label_message(CLASSES, Header()).data)
    assert content["class_map"][1] == {"class_id": 1, "class_name": "person"}


def test_with_vision_msgs_it_is_a_label_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "LabelInfo", SimpleNamespace)
    monkeypatch.setattr(labels, "VisionClass", SimpleNamespace)
    header = Header(frame_id="x")
    message = labels.label_message(CLASSES, header)
    assert message.header is header
    assert [(c.class_id, c.class_name) for c in message.class_map][2] == (2, "sky")


@pytest.mark.parametrize("installed", [False, True])
def test_names_are_read_back(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(labels, "LabelInfo", SimpleNamespace if installed else None)
    monkeypatch.setattr(labels, "VisionClass", SimpleNamespace)
    message = labels.label_message(CLASSES, Header())
    assert labels.class_names(message) == {0: "road", 1: "person", 2: "sky"}


@pytest.mark.parametrize("entries", [[], [(-1, "x")], [(256, "x")], [("one", "x")]])
def test_names_that_no_mask_can_have_are_refused(
    monkeypatch: pytest.MonkeyPatch, entries: list[tuple[object, str]]
) -> None:
    monkeypatch.setattr(labels, "LabelInfo", SimpleNamespace)
    class_map = [SimpleNamespace(class_id=number, class_name=name) for number, name in entries]
    with pytest.raises(FrameError, match="label_info"):
        labels.class_names(SimpleNamespace(class_map=class_map))
