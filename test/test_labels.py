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

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from std_msgs.msg import Header, String

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


def _entries(count: int, name: str) -> str:
    return json.dumps({"class_map": [{"class_id": 1, "class_name": name}] * count})


@pytest.mark.parametrize("entries", [[], [(-1, "x")], [(256, "x")], [("one", "x")]])
def test_names_that_no_mask_can_have_are_refused(
    monkeypatch: pytest.MonkeyPatch, entries: list[tuple[object, str]]
) -> None:
    monkeypatch.setattr(labels, "LabelInfo", SimpleNamespace)
    class_map = [SimpleNamespace(class_id=number, class_name=name) for number, name in entries]
    with pytest.raises(FrameError, match="label_info"):
        labels.class_names(SimpleNamespace(class_map=class_map))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**5, "nested more than 32 deep"),
        ('{"class_map": ' + "[" * 40 + "]" * 40 + "}", "nested more than 32 deep"),
        (" " * 10**6, "1000000 characters; expected at most 131072"),
        ('{"class_map": [{"class_id": 1e999, "class_name": "x"}]}', "class id inf"),
        ('{"class_map": [{"class_id": 1.5, "class_name": "x"}]}', "class id 1.5"),
        ('{"class_map": [{"class_id": 1, "class_name": "\\ud800"}]}', "surrogates"),
        ('{"class_map": [{"class_id": 1, "class_name": "a\\nb"}]}', "expected a text in one line"),
        (_entries(1, "x" * 10**4), "expected a text .* at most 100 characters"),
        (_entries(257, "x"), "more than 256 classes"),
    ],
)
def test_json_from_anywhere_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setattr(labels, "LabelInfo", None)
    with pytest.raises(FrameError, match=words) as error:
        labels.class_names(String(data=text))
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.fault(
    "a label_info with Infinity, deep nesting, ids or names of other types",
    "refused; WARN with the reason; the previous classes remain",
)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '{"class_map": 7}',
        '{"class_map": [7]}',
        '{"class_map": [{"class_id": Infinity, "class_name": "x"}]}',
        '{"class_map": [{"class_id": NaN, "class_name": "x"}]}',
        '{"class_map": [{"class_id": true, "class_name": "x"}]}',
        '{"class_map": [{"class_id": 1, "class_name": {"a": 1}}]}',
        '{"class_map": [{"class_id": 1, "class_name": "a"}, {"class_id": 1, "class_name": "b"}]}',
        '{"class_map": [{"class_id": 1' + "0" * 5000 + ', "class_name": "x"}]}',
    ],
)
def test_a_text_that_is_no_label_info_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(labels, "LabelInfo", None)
    with pytest.raises(FrameError, match="label_info"):
        labels.class_names(SimpleNamespace(data=text))
