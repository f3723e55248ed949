# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse replay` in real time: player, node and recorder over DDS."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rosbags.rosbag2 import StoragePlugin
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from bag_files import mcap
from media_files import image_message, write_bag
from replay_bags import (
    CAMERA,
    LATENCY,
    START,
    content,
    drive,
    frame,
    messages,
    stamp_ns,
    stamps,
    summary,
    two_types,
)
from ros_rig import RELIABLE, Rig

TIMEOUT_S = 280
PROGRAM = "from magicfuse_ros.cli import app; app()"


def started(bag: Path, out: Path, *options: object, **variables: str) -> subprocess.Popen[str]:
    arguments = ["replay", *map(str, (bag, "--out", out, *options))]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], env={**os.environ, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def replay(bag: Path, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    process = started(bag, out, *options)
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.terminate()  # so that it ends its node
        stdout, stderr = process.communicate()
        raise AssertionError(stdout + stderr) from None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def test_the_node_gives_what_the_offline_replay_gives(
    tmp_path: Path, tiny_uncertain_bundle: Path
) -> None:
    bag = drive(tmp_path / "in", 12, suffix=".png", info=True, storage=StoragePlugin.SQLITE3)
    # Without --steps, a node on a slow machine would do fewer.
    bundle = ("--bundle", tiny_uncertain_bundle, "--steps", 2)
    offline = tmp_path / "offline"
    done = replay(bag, offline, *bundle, "--offline")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    strict = ("--min-agreement", 100, "--min-psnr", 99, "--max-missing", 11)
    options = (*bundle, "--rate", 2, "--compare", offline / "bag", *strict)
    done = replay(bag, out, *options)
    assert done.returncode == 0, done.stdout + done.stderr

    report = summary(out)
    frames = report["frames"]
    assert frames["sent"] == 12 and frames["fused"] >= 1
    assert frames["refused"] == frames["failed"] == 0
    assert frames["dropped"] == 12 - frames["fused"]
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["frames"]["compared"] == frames["fused"]
    assert comparison["mask_agreement"]["worst"] == 100
    assert set(comparison["psnr_db"].values()) == {None}
    assert 0 < report["age_ms"]["p50"] <= report["age_ms"]["p95"]
    assert report["node"]["image_topic"] == f"{CAMERA}/compressed"
    # The stamps are years old: this age is right only in the bag's time.
    assert 0 < float(report["node"]["age_p50_ms"]) < 60_000

    live, expected = messages(out / "bag"), messages(offline / "bag")
    results = {topic for topic in live if "/debug/" not in topic}
    assert results - {"/diagnostics"} == set(expected)
    assert "/fuse_node/thermal_uncertainty" in expected
    assert len(live["/fuse_node/debug/age_ms"]) >= frames["fused"]
    for topic in (t for t in expected if t != "/fuse_node/segmentation/label_info"):
        by_stamp = {stamp_ns(m): m for m in expected[topic]}
        for message in live[topic]:
            other = by_stamp[stamp_ns(message)]
            assert message.header.frame_id == other.header.frame_id
            if topic.endswith("camera_info"):
                continue  # the node has the latest arrival, which may be of the previous frame
            assert (message.encoding, message.step) == (other.encoding, other.step), topic
            assert bytes(message.data) == bytes(other.data), topic


def test_a_replay_that_is_terminated_says_that_it_is_not_complete(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """As a CI job ends it, or `docker stop`."""
    bag, out = drive(tmp_path / "in", 40), tmp_path / "out"
    options = ("--bundle", tiny_bundle, "--rate", 0.1)  # it would take 40 seconds
    process = started(bag, out, *options)
    end = time.monotonic() + 120
    sent = out / "log" / "published.txt"
    while not (sent.exists() and sent.read_text().count("\n") > 1) and time.monotonic() < end:
        time.sleep(0.05)
    process.terminate()
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130 and "interrupted" in stderr
    report = summary(out)
    assert report["stopped"] == "interrupted" and 0 < report["frames"]["sent"] < 40


def test_ctrl_c_before_the_play_says_so_and_leaves_no_process(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    bag, out = drive(tmp_path / "in", 40), tmp_path / "out"
    process = started(bag, out, "--bundle", tiny_bundle)
    end = time.monotonic() + 120
    while not (out / "log" / "fuse_node.txt").exists() and time.monotonic() < end:
        time.sleep(0.01)
    (node,) = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130 and "interrupted" in stderr
    assert not Path("/proc", str(node)).exists()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process's main thread has started."""
    deadline = time.monotonic() + 10
    file = Path("/proc", str(pid), "task", str(pid), "children")
    while not (text := file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [int(child) for child in text.split()]


def test_a_node_that_is_up_already_sees_the_bags_time(tmp_path: Path, tiny_bundle: Path) -> None:
    bag = drive(tmp_path / "in", 10, info=True, broken=(4,))
    out = tmp_path / "out"
    rig = Rig(tmp_path, bundle=str(tiny_bundle))
    player = None
    try:
        assert rig.set(use_sim_time=True).successful
        assert rig.transition("configure") and rig.transition("activate"), rig.output()
        clocks: list[int] = []
        rig.node.create_subscription(
            Clock, "/clock", lambda m: clocks.append(m.clock.sec * 10**9 + m.clock.nanosec), 1000
        )
        images: list[bytes] = []
        infos: list[bytes] = []
        rig.node.create_subscription(Image, CAMERA, images.append, RELIABLE, raw=True)
        topic = "/camera/camera_info"
        rig.node.create_subscription(CameraInfo, topic, infos.append, RELIABLE, raw=True)
        # Endless, until Ctrl-C; in the shell's domain, which the rig has set.
        options = ("--no-node", "--name", rig.name, "--rate", 2, "--loop", 0)
        player = started(bag, out, *options, PYTHONFAULTHANDLER="1")

        def recorded_enough() -> bool:
            # The node fuses once it knows the recorder, so its next report is recorded too.
            reports = [report for report in rig.diagnostics if int(report.get("fused", 0))][1:]
            refused = [int(report["refused"]) for report in reports]
            return len(images) >= 15 and bool(refused) and refused[-1] > refused[0]

        rig.spin_until(lambda: recorded_enough() or player.poll() is not None, 120)
        assert player.poll() is None, player.communicate()
        assert recorded_enough(), rig.output()
        player.send_signal(signal.SIGINT)
        if not rig.spin_until(lambda: player.poll() is not None, 60):
            player.send_signal(signal.SIGABRT)  # print where every thread is
            raise AssertionError(("the replay does not end", *player.communicate()))
        assert player.returncode == 0, player.communicate()
        reports = len(rig.diagnostics)
        assert rig.spin_until(lambda: len(rig.diagnostics) >= reports + 2)
        assert rig.diagnostics[-1]["state"] == "active"
    finally:
        if player is not None and player.poll() is None:
            player.terminate()  # so that it ends its own processes
            player.wait(TIMEOUT_S)
        rig.close()

    recorded = content(bag)
    # Byte by byte, in a loop; the replay waits for the node, not for this subscriber.
    camera = [data for _, data in recorded[CAMERA]]
    first_seen = camera.index(images[0])
    sent = itertools.islice(itertools.cycle(camera), first_seen, None)
    assert all(image == next(sent) for image in images[:15])
    # The wire format pads to four bytes.
    assert infos and all(any(i.startswith(data) for _, data in recorded[topic]) for i in infos)
    first, last = START + LATENCY, stamps(10)[-1] + LATENCY
    assert first - 1 <= min(clocks) and max(clocks) <= last
    jumps = [(a, b) for a, b in itertools.pairwise(clocks) if b < a]
    assert jumps, "15 images of 10 start the loop again"
    # A subscriber may miss the last message before a jump, or the first one after it.
    near = 50_000_000
    for before, after in jumps:
        assert last - before < near and after - first < near, "only from the bag's end to its start"
    between = [t for t in clocks if (t - first) % 100_000_000]
    assert len(between) > 20, "the clock also runs between the images"

    report = summary(out)
    assert report["frames"]["sent"] >= 15
    assert report["frames"]["refused"] >= 1
    assert "odd_code" in json.dumps(report["node"])
    fused = [stamp_ns(m) for m in messages(out / "bag")[f"{rig.name}/mag_image"]]
    assert set(fused) <= set(stamps(10)) - {stamps(10)[4]}
    assert len(fused) == report["frames"]["fused"]
    # latched long before the recorder started
    assert len(messages(out / "bag")[f"{rig.name}/segmentation/label_info"]) == 1


def playing(folder: Path, *parameters: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(101 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(folder),
    }
    given = [word for parameter in parameters for word in ("-p", parameter)]
    command = [sys.executable, "-m", "magicfuse_ros.ros.replay_node", "--ros-args", *given]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def player(folder: Path, *parameters: str) -> subprocess.CompletedProcess[str]:
    with playing(folder, *parameters) as process:
        stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def cut_drive(folder: Path) -> Path:
    """A bag of 9 images whose file holds the first 5."""
    images = [(CAMERA, t + LATENCY, image_message(frame(0), t)) for t in stamps(9)]
    bag = write_bag(folder / "in", images)
    (bag / "in.mcap").write_bytes(mcap(images[:5], footer=False))
    return bag


def test_rounds_add_up_what_is_missing_and_tell_each_damage_once(tmp_path: Path) -> None:
    done = player(tmp_path, f"bag:={cut_drive(tmp_path)}", "loop:=3", "rate:=20.0")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["sent"], report["missing"]) == (15, 9)
    (sentence,) = report["damaged"]
    assert "in.mcap' was not finished" in sentence


def test_a_round_that_is_interrupted_keeps_what_earlier_rounds_found(tmp_path: Path) -> None:
    sent = tmp_path / "sent.txt"
    published = (f"bag:={cut_drive(tmp_path)}", "loop:=0", f"published:={sent}")
    with playing(tmp_path, *published) as process:
        end = time.monotonic() + 60
        while not (sent.exists() and sent.read_text().count("\n") == 6) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    report = json.loads(stdout.splitlines()[-1])
    assert report["sent"] > 5 and report["missing"] == report["sent"] // 5 * 3
    assert len(report["damaged"]) == 1


def test_the_file_of_what_was_sent_is_in_the_home_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    bag = drive(tmp_path / "in", 2)
    done = player(tmp_path, f"bag:={bag}", "published:=~/sent.txt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sent.txt").read_text().count("\n") == 2
    done = player(tmp_path, f"bag:={bag}", "published:=~/none/sent.txt")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    expected = f"cannot write '{tmp_path}/none/sent.txt' (published): No such file or directory"
    assert expected in done.stderr


def test_a_jump_of_the_recorders_clock_is_skipped(tmp_path: Path) -> None:
    year = 365 * 24 * 3600 * 10**9
    times = [START, START + 10**8, START + year, START + year + 10**8]
    bag = write_bag(tmp_path / "in", [(CAMERA, t, image_message(frame(0), t)) for t in times])
    done = player(tmp_path, f"bag:={bag}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sent"] == 4 and report["skipped_s"] == pytest.approx(year / 1e9, abs=2)
    assert "a pause of 31536000 s in the bag is skipped" in done.stderr


def test_a_player_without_a_bag_plays_nothing(tmp_path: Path) -> None:
    done = player(tmp_path)
    assert done.returncode == 1 and "bag is empty; expected -p bag:=FILE" in done.stderr


def test_the_player_refuses_a_topic_of_two_types(tmp_path: Path) -> None:
    done = player(tmp_path, f"bag:={two_types(tmp_path / 'in')}")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"topic '{CAMERA}' of rosbag2" in done.stderr and "expected one type" in done.stderr


def test_the_player_gives_up_where_nobody_listens(tmp_path: Path) -> None:
    bag = drive(tmp_path / "in", 1)
    start = time.monotonic()
    done = player(tmp_path, f"bag:={bag}", "wait_for:=/front", "wait_s:=0.2")
    assert time.monotonic() - start < 50
    assert done.returncode == 1
    assert f"/front does not listen to {CAMERA} after 0.2 s; nobody does" in done.stderr
    assert "Traceback" not in done.stderr
