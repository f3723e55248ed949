# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The demo from its command line: three processes over DDS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from magicfuse_ros.demo.__main__ import PRODUCTS, remove_earlier
from magicfuse_ros.media.video_writer import VideoWriter
from magicfuse_ros.output_files import write_png
from replay_bags import messages, stamp_ns

RATE = 20


def run_demo(*arguments: object, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "magicfuse_ros.demo", *map(str, arguments)]
    environment = {**os.environ, **({} if home is None else {"HOME": str(home)})}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "drive.mp4", RATE) as writer:
        for number in range(40):
            image = np.full((64, 96, 3), 60, np.uint8)
            image[:, 2 * number : 2 * number + 16] = 200
            writer.write(image, number * 10**9 // RATE)
    return tmp_path / "drive.mp4"


def test_a_video_goes_through_the_node_into_a_bag(
    tmp_path: Path, video: Path, tiny_bundle: Path
) -> None:
    out = tmp_path / "out"
    done = run_demo(video, "--bundle", tiny_bundle, "--out", out, "--seconds", "1.5")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((out / "summary.json").read_text())
    frames = summary["frames"]
    assert frames["sent"] == 30
    assert 1 <= frames["fused"] <= 30
    assert frames["dropped"] == 30 - frames["fused"]
    assert summary["degradation"] == "none"
    assert summary["backend"].startswith("openvino ")
    assert 0 < summary["age_ms"]["p50"] <= summary["age_ms"]["p95"]
    assert "age of MagImg on arrival, p95" in done.stdout

    recorded = messages(out / "bag")
    camera = [message.header for message in recorded["/camera/image_raw"]]
    assert len(camera) == 30
    assert {header.frame_id for header in camera} == {"camera"}
    stamps = [stamp_ns(message) for message in recorded["/camera/image_raw"]]
    # The median: a machine that stalls delays one image and all after it.
    assert np.median(np.diff(stamps)) == pytest.approx(10**9 / RATE, rel=0.1)
    fused = recorded["/fuse_node/mag_image"]
    assert len(fused) == frames["fused"]
    assert all(message.header in camera for message in fused)
    for topic in ("restored_image", "thermal_estimate", "segmentation/mask"):
        assert recorded[f"/fuse_node/{topic}"]
    for figure in ("age_ms", "stage_ms/mkf"):
        assert len(recorded[f"/fuse_node/debug/{figure}"]) >= frames["fused"]
    labels = recorded["/fuse_node/segmentation/label_info"][0]
    assert "person" in labels.data
    for product in ("side_by_side.mp4", "contact_sheet.png"):
        assert (out / product).stat().st_size > 1000

    own = run_demo(
        *(out / "bag", "--topic", "/camera/image_raw"), *("--bundle", tiny_bundle, "--out", out)
    )
    assert own.returncode == 1
    assert "which is emptied" in own.stdout
    bag = out / "bag"
    again = run_demo(
        *(bag, "--topic", "/camera/image_raw", "--seconds", "0.2"),
        *("--bundle", tiny_bundle, "--out", tmp_path / "again"),
    )
    assert again.returncode == 0, again.stdout + again.stderr
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert summary["frames"]["sent"] == pytest.approx(0.2 * RATE, abs=3)


def test_it_fails_where_nothing_comes_out(tmp_path: Path, tiny_bundle: Path) -> None:
    pictures = tmp_path / "pictures"
    write_png(pictures / "a.png", np.zeros((4, 4, 3), np.uint8))
    (pictures / "a.png").write_bytes((pictures / "a.png").read_bytes()[:30])
    done = run_demo(pictures, "--bundle", tiny_bundle, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "no fused image came out" in done.stdout
    remove_earlier(tmp_path / "out")  # a failed demo is a demo, too
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "summary",
    [
        None,
        "[1]",
        '{"bag": "drive.mcap", "frames": {"sent": 9}}',
        pytest.param("[" * 99999, id="deep"),
    ],
)
def test_only_the_results_of_a_demo_are_removed(
    tmp_path: Path, video: Path, tiny_bundle: Path, summary: str | None
) -> None:
    out = tmp_path / "out"
    (out / "bag").mkdir(parents=True)
    (mine := out / "bag" / "drive.mcap").touch()
    if summary is not None:
        (out / "summary.json").write_text(summary)
    done = run_demo(video, "--bundle", tiny_bundle, "--out", out)
    assert done.returncode == 1 and mine.exists()
    assert f"'{out}' holds 'bag', but no summary.json of an earlier demo" in done.stdout


def test_the_results_of_an_earlier_demo_are_removed(tmp_path: Path) -> None:
    for product in (*PRODUCTS, "mine.png"):
        (tmp_path / product).touch()
    (tmp_path / "summary.json").write_text('{"degradation": "none"}')
    remove_earlier(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_it_fails_where_the_node_does_not_come_up(
    tmp_path: Path, video: Path, tiny_bundle: Path
) -> None:
    # the hashes are valid, but the node cannot build it: only the node's own log tells why
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    manifest = json.loads((broken / "bundle.json").read_text())
    manifest["networks"]["decoder"]["inputs"][0]["shape"] = [1, 4, 9, 9]
    (broken / "bundle.json").write_text(json.dumps(manifest))
    done = run_demo(video, "--bundle", broken, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "fuse_node did not become active" in done.stdout
    assert "configuration failed" in done.stdout


def test_a_wrong_input_is_named(tmp_path: Path) -> None:
    done = run_demo("~/nothing.mp4", "--out", tmp_path / "out", home=tmp_path)
    assert done.returncode == 1
    assert f"'{tmp_path}/nothing.mp4' does not exist" in done.stdout


def test_an_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, video: Path, tiny_bundle: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run_demo(video, "--bundle", tiny_bundle, "--out", tmp_path / "file" / "out")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert f"cannot make folder '{tmp_path}/file/out'" in done.stdout
    kept = (tmp_path / "drive.mp4").rename(tmp_path / "contact_sheet.png")
    done = run_demo(tmp_path, "--bundle", tiny_bundle, "--out", tmp_path)
    assert done.returncode == 1 and kept.exists()
