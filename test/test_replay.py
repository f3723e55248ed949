# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse replay --offline`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin
from typer.testing import Result

from bag_files import mcap
from cli_run import magicfuse
from magicfuse_ros import backends
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.commands import replay as replay_commands
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.image_codec import decode
from magicfuse_ros.media import open_source
from magicfuse_ros.overlay import overlay, with_legend
from magicfuse_ros.replay.timing import latest
from media_files import image_message, picture, write_bag
from replay_bags import (
    CAMERA,
    LATENCY,
    OUTPUTS,
    START,
    camera_info,
    content,
    drive,
    messages,
    stamp_ns,
    stamps,
    summary,
    two_types,
)
from tiny_bundle import CLASSES


def test_a_summary_keeps_the_ages_of_the_latest_report_that_has_some() -> None:
    """Ages cover ten seconds: the last report of a slow machine has none."""
    reports = [{"fused": "1"}, {"fused": "2", "age_p50_ms": "30"}, {"fused": "3"}]
    assert latest(reports) == {"fused": "3", "age_p50_ms": "30"}
    assert latest([]) == {}


def test_a_summary_lists_a_cause_that_has_moved_into_other_once() -> None:
    reports = [
        {"refused": "1", "refused: odd": "1", "delay_p50_ms": "3", "stage_total_ms": "2"},
        {"refused": "9", "refused: other": "1", "refused: even": "8"},
    ]
    assert latest(reports) == {**reports[1], "delay_p50_ms": "3", "stage_total_ms": "2"}


def replay(bag: Path, out: Path, *options: str | Path) -> Result:
    return magicfuse("replay", bag, "--out", out, "--offline", *options)


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("suffix", ["", ".png", ".jpg"])
def test_every_frame_comes_out_with_its_stamps(
    tmp_path: Path, tiny_bundle: Path, storage: StoragePlugin, suffix: str
) -> None:
    bag = drive(tmp_path / "in", 4, suffix=suffix, storage=storage)
    out = tmp_path / "deep" / "out"
    result = replay(bag, out, "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    assert summary(out)["frames"] == {"read": 4, "fused": 4, "refused": 0}

    found = messages(out / "bag")
    assert set(found) == {f"/fuse_node/{n}" for n in (*OUTPUTS, "segmentation/label_info")}
    recorded = [stamp + LATENCY for stamp in stamps(4)]
    for name, encoding in OUTPUTS.items():
        topic = f"/fuse_node/{name}"
        assert [stamp_ns(m) for m in found[topic]] == stamps(4), name
        assert [time for time, _ in content(out / "bag")[topic]] == recorded, name
        for message in found[topic]:
            assert (message.encoding, message.height, message.width) == (encoding, 64, 96)
            assert message.header.frame_id == "camera"
            assert message.step == 96 * (3 if encoding == "bgr8" else 1)
    (labels,) = found["/fuse_node/segmentation/label_info"]
    assert [(c.class_id, c.class_name) for c in labels.class_map] == [
        (c.id, c.name) for c in CLASSES
    ]

    fuser = Fuser(Bundle.load(tiny_bundle), backends.select())
    for i, frame in enumerate(open_source(bag)):
        fused = fuser(frame.image)
        assert fused.mag_image is not None and fused.mask is not None
        expected: dict[str, Any] = {
            "mag_image": fused.mag_image,
            "restored_image": fused.restored,
            "thermal_estimate": fused.thermal_estimate,
            "segmentation/mask": fused.mask,
            "segmentation/confidence": fused.confidence,
            "segmentation/overlay": with_legend(
                overlay(fused.mag_image, fused.mask, CLASSES), CLASSES
            ),
        }
        for name, image in expected.items():
            m = found[f"/fuse_node/{name}"][i]
            written = decode(m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data)
            wanted = image if image.ndim == 3 else np.repeat(image[..., np.newaxis], 3, axis=2)
            np.testing.assert_array_equal(written, wanted, err_msg=name)


def test_a_header_is_that_of_the_image_whatever_its_stamp(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    stamps = [(3, 2_000_000_000), (2**31 - 1, 2**32 - 1), (-5, 7)]  # ROS itself has invalid ones
    sent = []
    for sec, nanosec in stamps:
        sent.append(image_message(picture(64, 96), 0))
        sent[-1].header.stamp.sec, sent[-1].header.stamp.nanosec = sec, nanosec
    bag = write_bag(tmp_path / "in", [(CAMERA, START + i, m) for i, m in enumerate(sent)])
    out = tmp_path / "out"
    result = replay(bag, out, "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    for name in OUTPUTS:
        headers = [m.header for m in messages(out / "bag")[f"/fuse_node/{name}"]]
        assert [(h.stamp.sec, h.stamp.nanosec) for h in headers] == stamps, name


def test_the_uncertainty_is_recorded_and_compared_where_the_bundle_has_it(
    tmp_path: Path, tiny_uncertain_bundle: Path
) -> None:
    bag = drive(tmp_path / "in", 2)
    first, second = tmp_path / "first", tmp_path / "second"
    bundle = ("--bundle", tiny_uncertain_bundle)
    assert replay(bag, first, *bundle).exit_code == 0
    found = messages(first / "bag")["/fuse_node/thermal_uncertainty"]
    fuser = Fuser(Bundle.load(tiny_uncertain_bundle), backends.select())
    for message, frame in zip(found, open_source(bag), strict=True):
        uncertainty = fuser(frame.image).thermal_uncertainty
        assert message.encoding == "mono8"
        np.testing.assert_array_equal(message.data.reshape(64, 96), uncertainty)
    result = replay(bag, second, *bundle, "--compare", first / "bag")
    assert result.exit_code == 0, result.output
    report = json.loads((second / "comparison.json").read_text())
    assert "thermal_uncertainty" in report["psnr_db"]


def test_twice_gives_the_same_bytes(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 6, suffix=".jpg", info=True)
    bags = []
    for name in ("first", "second"):
        assert replay(bag, tmp_path / name, "--bundle", tiny_bundle).exit_code == 0
        bags.append(content(tmp_path / name / "bag"))
    assert len(bags[0]) == 8
    assert bags[0] == bags[1]


def test_the_camera_info_of_the_moment_is_carried_along(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 6, info=True)
    out = tmp_path / "out"
    assert replay(bag, out, "--bundle", tiny_bundle, "--start", "0.1").exit_code == 0
    infos = messages(out / "bag")["/fuse_node/camera_info"]
    assert [stamp_ns(info) for info in infos] == stamps(6)[1:]
    # the first one was recorded before the part that is read
    assert [info.k[0] for info in infos] == [0, 0, 3, 3, 3]
    assert {info.header.frame_id for info in infos} == {"camera"}


def test_a_camera_info_that_the_node_would_not_send_is_left_out(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    images = [(CAMERA, START + i, image_message(picture(64, 96), START + i)) for i in range(3)]
    wrong = camera_info(START, focal=1.0)
    wrong.width = 640
    infos = [("/camera/camera_info", START - 1, wrong)]
    bag = write_bag(tmp_path / "in", [*infos, *images])
    result = replay(bag, tmp_path / "out", "--bundle", tiny_bundle)
    assert result.exit_code == 0
    there = messages(tmp_path / "out" / "bag")
    assert len(there["/fuse_node/mag_image"]) == 3
    assert not there.get("/fuse_node/camera_info")
    (sentence,) = summary(tmp_path / "out")["damaged"]
    assert sentence == "camera_info is for 640x64; the image is 96x64; it is left out"
    assert sentence in result.stderr


def test_the_camera_info_with_the_stamp_of_an_image_belongs_to_it(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """As in the node: its frame_id may differ, and the recorder may get it after the image."""
    recorded = []
    for number, stamp in enumerate(stamps(3)):
        info = camera_info(stamp, focal=number)
        info.header.frame_id = "optical"
        recorded.append((CAMERA, stamp, image_message(picture(64, 96), stamp)))
        recorded.append(("/camera/camera_info", stamp + 1, info))
    out = tmp_path / "out"
    bag = write_bag(tmp_path / "in", recorded)
    assert replay(bag, out, "--bundle", tiny_bundle).exit_code == 0
    infos = messages(out / "bag")["/fuse_node/camera_info"]
    assert [(info.k[0], info.header.frame_id) for info in infos] == [
        (focal, "camera") for focal in (0, 1, 2)
    ]
    assert summary(out)["damaged"] == []


def test_a_damaged_camera_info_costs_no_image(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 6, info=True)
    (file,) = bag.glob("*.mcap")
    content = file.read_bytes()
    # The second one's distortion model is longer than its message.
    at = content.rindex(b"\x0a\0\0\0plumb_bob\0")
    file.write_bytes(content[:at] + b"\xff\xff\xff\x7f" + content[at + 4 :])
    out = tmp_path / "out"
    result = replay(bag, out, "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    report = summary(out)
    assert report["frames"] == {"read": 6, "fused": 6, "refused": 0}
    assert report["refused"] == []
    (sentence,) = report["damaged"]
    assert sentence.startswith("/camera/camera_info: the message is damaged")
    assert sentence in result.output
    assert len(messages(out / "bag")["/fuse_node/camera_info"]) == 6, "the first one holds"


def test_a_part_of_the_bag(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 8)
    out = tmp_path / "out"
    options = ("--start", "0.15", "--duration", "0.3", "--name", "/front/fuse")
    assert replay(bag, out, "--bundle", tiny_bundle, *options).exit_code == 0
    found = messages(out / "bag")["/front/fuse/mag_image"]
    assert [stamp_ns(m) for m in found] == stamps(8)[2:5]
    report = summary(out)
    assert (report["topic"], report["mode"], report["frames"]["read"]) == (CAMERA, "offline", 3)

    result = replay(bag, tmp_path / "none", "--bundle", tiny_bundle, "--start", "9")
    assert result.exit_code == 2
    assert "0.7 s long" in result.output and "from second 9 on" in result.output
    assert not (tmp_path / "none").exists()


def test_a_topic_of_two_types_is_fused_offline_and_refused_in_real_time(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    bag, out = two_types(tmp_path / "in"), tmp_path / "out"
    result = magicfuse("replay", bag, "--out", out, "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert f"topic '{CAMERA}' of rosbag2 '{bag}' holds messages of " in result.stderr
    assert "expected one type" in result.stderr and not out.exists()
    assert replay(bag, out, "--bundle", tiny_bundle).exit_code == 0
    assert summary(out)["frames"] == {"read": 2, "fused": 2, "refused": 0}


def test_bad_frames_are_counted_and_named(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 5, broken=(1, 3))
    out = tmp_path / "out"
    result = replay(bag, out, "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    report = summary(out)
    assert report["frames"] == {"read": 5, "fused": 3, "refused": 2}
    assert [refusal["name"] for refusal in report["refused"]] == ["000001", "000003"]
    assert "odd_code" in report["refused"][0]["reason"]
    assert "refused 000001" in result.output
    assert len(messages(out / "bag")["/fuse_node/mag_image"]) == 3


def test_nothing_readable_is_an_error(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 2, broken=(0, 1))
    result = replay(bag, tmp_path / "out", "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert "no image of" in result.output and "odd_code" in result.output


def test_damage_that_costs_no_image_is_told_and_not_counted(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    images = [(CAMERA, START + i, image_message(picture(64, 96), START + i)) for i in range(5)]
    bag = tmp_path / "drive.mcap"
    bag.write_bytes(mcap(images, footer=False))
    result = replay(bag, tmp_path / "out", "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    report = summary(tmp_path / "out")
    assert report["frames"] == {"read": 5, "fused": 5, "refused": 0}
    (sentence,) = report["damaged"]
    assert "was not finished" in sentence and sentence in result.output


@pytest.mark.parametrize(("missing", "code"), [(6, 0), (24, 2)])
def test_what_is_missing_in_all_rounds_is_compared_with_all_rounds(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, missing: int, code: int
) -> None:
    frames = {"sent": 36, "fused": 36, "missing": missing}
    report = {"frames": frames, "fps": 1.0, "damaged": ["it is cut"], "node": {}}
    monkeypatch.setattr(replay_commands, "replay_live", lambda *_: report)
    options = ("--bundle", tiny_bundle, "--loop", "6")
    bag = drive(tmp_path / "in", 8)
    result = magicfuse("replay", bag, "--out", tmp_path / "out", *options)
    assert result.exit_code == code, result.output
    assert ("most of" in result.output and "5 images" in result.output) == bool(code)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_damaged_bags_are_named(tmp_path: Path, tiny_bundle: Path, storage: StoragePlugin) -> None:
    bag = drive(tmp_path / "in", 4, storage=storage)
    (file,) = (f for f in bag.iterdir() if f.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    result = replay(bag, tmp_path / "out", "--bundle", tiny_bundle)
    # sqlite notices only when it gets there; everything before is still fused
    assert result.exit_code == 2 or summary(tmp_path / "out")["frames"]["refused"] > 0
    assert str(bag) in result.output or "damaged" in result.output
    assert "Traceback" not in result.output


def test_wrong_inputs_are_named_and_leave_nothing_behind(tmp_path: Path, tiny_bundle: Path) -> None:
    image = image_message(picture(64, 96), START)
    several = write_bag(tmp_path / "several", [("/left", START, image), ("/right", START, image)])
    empty = write_bag(tmp_path / "empty", [("/header", START, image.header)])
    good = drive(tmp_path / "good", 1)
    (tmp_path / "folder").mkdir()
    out = tmp_path / "out"
    cases: list[tuple[Path, tuple[str | Path, ...], str]] = [
        (several, (), "give topic as one of /left, /right"),
        (several, ("--topic", "/rear"), "topic is '/rear'"),
        (empty, (), "holds no message of sensor_msgs/msg/Image"),
        (tmp_path / "nothing.mcap", (), "nothing.mcap' does not exist"),
        (tmp_path / "folder", (), "folder' is not a rosbag2"),
        (good, ("--steps", "7"), "steps is 7"),
        (good, ("--fit", "crop"), "crop"),
        (good, ("--backend", "abacus"), "abacus"),
        (good, ("--bundle", tmp_path / "folder"), "folder"),
        (good, ("--loop", "2"), "for real time"),
        (good, ("--no-node",), "for real time"),
        (good, ("--rate", "0"), "rate"),
        *((good, ("--name", n), f"name is '{n}'") for n in ("fuse_node", "/fuse-node", "/", "/a/")),
        (good, ("--min-psnr", "50"), "need --compare"),
        (good, ("--compare", tmp_path / "other"), "other' does not exist"),
        (good, ("--compare", good), "holds none of the outputs"),
    ]
    for bag, options, words in cases:
        result = replay(bag, out, "--bundle", tiny_bundle, *options)
        assert result.exit_code == 2, (options, result.output)
        assert words in result.output, (options, result.output)
        assert not out.exists(), options
    left = replay(several, out, "--bundle", tiny_bundle, "--topic", "/left")
    assert left.exit_code == 0, left.output


def test_an_earlier_result_is_never_overwritten(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 1)
    assert replay(bag, tmp_path / "out", "--bundle", tiny_bundle).exit_code == 0
    before = content(tmp_path / "out" / "bag")
    result = replay(bag, tmp_path / "out", "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "remove it or choose another" in result.output
    assert content(tmp_path / "out" / "bag") == before
    shutil.rmtree(tmp_path / "out" / "bag")
    assert replay(bag, tmp_path / "out", "--bundle", tiny_bundle).exit_code == 0


@pytest.mark.parametrize("name", ["summary.json", "comparison.json", "comparison.png"])
def test_a_report_that_no_replay_wrote_is_never_removed(
    tmp_path: Path, tiny_bundle: Path, name: str
) -> None:
    bag, mine = drive(tmp_path / "in", 1), tmp_path / name
    mine.write_text('{"frames": 7}')
    result = replay(bag, tmp_path, "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert f"'{mine}' exists; expected a summary.json that an earlier" in result.stderr
    assert mine.read_text() == '{"frames": 7}' and not (tmp_path / "bag").exists()


def test_humble_reads_the_bag(tmp_path: Path, tiny_bundle: Path) -> None:
    # its reader takes the QoS profiles only as a string, as metadata stores them up to version 8
    assert (
        replay(drive(tmp_path / "in", 1), tmp_path / "out", "--bundle", tiny_bundle).exit_code == 0
    )
    metadata = yaml.safe_load((tmp_path / "out" / "bag" / "metadata.yaml").read_text())
    information = metadata["rosbag2_bagfile_information"]
    assert information["version"] == 8
    profiles = {
        t["topic_metadata"]["name"]: t["topic_metadata"]["offered_qos_profiles"]
        for t in information["topics_with_message_count"]
    }
    assert all(isinstance(profile, str) for profile in profiles.values())
    (latched,) = yaml.safe_load(profiles["/fuse_node/segmentation/label_info"])
    assert (latched["durability"], latched["reliability"]) == (1, 1)  # transient local, reliable


def test_real_time_without_ros_says_what_to_do(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "stub" / "rclpy").mkdir(parents=True)
    (tmp_path / "stub" / "rclpy" / "__init__.py").write_text("raise ImportError('no rclpy')\n")
    path = os.pathsep.join([str(tmp_path / "stub"), os.environ.get("PYTHONPATH", "")])
    bag = drive(tmp_path / "in", 1)
    program = "from magicfuse_ros.cli import app; app()"
    options = ("--out", str(tmp_path / "out"), "--bundle", str(tiny_bundle))
    done = subprocess.run(
        [sys.executable, "-c", program, "replay", str(bag), *options],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "needs ROS 2" in done.stderr and "--offline" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_whole_bag_and_a_summary(
    tmp_path: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    press_ctrl_c: Callable[[], None],
    number: signal.Signals,
) -> None:
    fuse = Fuser.__call__
    calls: list[object] = []

    def interrupted(self: Fuser, *arguments: Any) -> Any:
        calls.append(self)
        if len(calls) == 3:  # the first one is the warm-up
            press_ctrl_c() if number == signal.SIGINT else signal.raise_signal(number)
        return fuse(self, *arguments)

    monkeypatch.setattr(Fuser, "__call__", interrupted)
    out = tmp_path / "out"
    result = replay(drive(tmp_path / "in", 4), out, "--bundle", tiny_bundle)
    assert result.exit_code == 130 and "interrupted" in result.stderr
    report = summary(out)
    fused = report["frames"]["fused"]
    assert report["stopped"] == "interrupted" and 0 < fused < 4
    assert len(messages(out / "bag")["/fuse_node/mag_image"]) == fused


def test_the_bag_itself_is_no_folder_for_results(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "bag", 2)
    result = replay(bag, bag, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "the bag itself" in result.stderr
    result = replay(bag, tmp_path, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "whose 'bag' is the bag" in result.stderr
    assert "remove it" not in result.stderr
    assert not (bag / "bag").exists()
