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
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.night import by_night
from magicfuse_ros.ros import play_node
from magicfuse_ros.ros.play_node import paced
from media_files import picture, write_picture


def test_a_night_keeps_its_light_and_has_fresh_noise() -> None:
    image = np.full((60, 80, 3), 160, np.uint8)
    first, second = by_night([image, image])
    assert first.mean() < 80
    assert (first != second).mean() > 0.3
    blocks = [i.reshape(6, 10, 8, 10, 3).mean((1, 3)) for i in (first, second)]
    assert np.abs(blocks[0] - blocks[1]).max() < 4


def test_images_come_in_time_and_a_late_one_delays_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0

    def pass_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(play_node, "monotonic", lambda: now)
    monkeypatch.setattr(play_node, "sleep", pass_by)
    image = np.zeros((2, 2, 3), np.uint8)
    times = []
    for number, _ in enumerate(paced([image] * 6, 0.12, False)):  # type: ignore[arg-type]
        times.append(now)
        pass_by(0.3 if number == 2 else 0.01)
    assert np.diff(times) == pytest.approx([0.12, 0.12, 0.3, 0.12, 0.12])


def test_a_broken_picture_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write_picture(pictures / "a.png", picture())
    (pictures / os.fsdecode(b"b\xff.png")).write_bytes(b"broken")
    command = [sys.executable, "-m", "magicfuse_ros.ros.play_node", "--ros-args"]
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(101 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [*command, "-p", f"input:={pictures}"],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"sent": 1}
    assert r"1 frames of" in done.stderr and r"b\udcff.png" in done.stderr


def test_a_signal_ends_the_play() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    assert list(paced([image] * 6, 10.0, True)) == []  # type: ignore[arg-type]


def test_only_as_much_is_made_ahead_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    monkeypatch.setattr(play_node, "_AHEAD_BYTES", 3 * image.nbytes)
    made = 0

    def images() -> Iterator[Pixels]:
        nonlocal made
        for _ in range(10):
            made += 1
            yield image

    played = play_node.ahead(images(), False)  # type: ignore[arg-type]
    assert made == 3
    assert len(list(played)) == 10
    play_node.ahead(images(), True)  # type: ignore[arg-type]
    assert made == 10, "a signal ends the preparation"
