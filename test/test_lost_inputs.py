# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Commands whose input is partly lost: they count and report it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bag_files import mcap
from cli_run import magicfuse
from media_files import SECOND, Message, image_message, picture, write_bag, write_video
from replay_bags import summary

COUNT = 12


@pytest.mark.parametrize(("part", "code"), [(0.85, 0), (0.6, 2)])
def test_a_video_that_is_cut(tmp_path: Path, tiny_bundle: Path, part: float, code: int) -> None:
    path = write_video(tmp_path / "v.avi", range(COUNT), "mjpeg")
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    out = tmp_path / "out"
    result = magicfuse("run", path, "--out", out, "--bundle", tiny_bundle)
    assert result.exit_code == code, result.output
    assert ("most of" in result.output) == (code == 2)
    report = json.loads((out / "report.json").read_text())
    counts = report["counts"]
    assert 0 < counts["fused"] < COUNT and counts["read"] + counts["missing"] == COUNT
    assert counts["read"] == counts["fused"] + counts["refused"]
    assert "the file is cut" in report["refused"][-1]["reason"]
    assert f"of {COUNT} frames" in result.output
    assert f"missing {counts['missing']} more" in result.output
    assert (out / "contact_sheet.png").is_file()


@pytest.mark.parametrize(("part", "code"), [(0.7, 0), (0.3, 2)])
def test_a_bag_that_is_cut(tmp_path: Path, tiny_bundle: Path, part: float, code: int) -> None:
    stamps = [SECOND * (1 + i) for i in range(COUNT)]
    messages: list[Message] = [("/cam", t, image_message(picture(), t)) for t in stamps]
    bag = write_bag(tmp_path / "bag", messages)
    whole = mcap(messages, footer=False)
    (bag / "bag.mcap").write_bytes(whole[: int(part * len(whole))])
    out = tmp_path / "out"
    result = magicfuse("replay", bag, "--offline", "--out", out, "--bundle", tiny_bundle)
    assert result.exit_code == code, result.output
    assert ("most of" in result.output) == (code == 2)
    report = summary(out)
    frames = report["frames"]
    assert 0 < frames["fused"] < COUNT and frames["read"] + frames["missing"] == COUNT
    assert "bag.mcap' is cut or damaged at byte" in report["refused"][-1]["reason"]
