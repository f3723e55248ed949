# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Faults of a vehicle, applied to the real node over DDS."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from ros_rig import CAMERA, RELIABLE, Rig, image

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2}
BURST = 200  # images; the queues for the results have room for all of them
SHALLOW_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
BURST_QOS = QoSProfile(depth=BURST, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Rig]:
    depth: dict[str, Any] = {f"qos_overrides.{Rig.name}/restored_image.publisher.depth": BURST}
    with Rig(tmp_path_factory.mktemp("node"), bundle=str(tiny_bundle), **depth) as rig:
        rig.activate()
        yield rig
        assert rig.counts()["failed"] == 0, rig.output()


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    """The node, which must fuse the next image after any fault."""
    yield shared
    shared.unsubscribe_all()
    received = shared.subscribe("restored_image")
    shared.camera.publish(image())
    assert shared.spin_until(lambda: bool(received)), shared.output()
    shared.unsubscribe_all()


def gray(encoding: str, size: tuple[int, int], padding: int = 0, big: bool = False) -> Image:
    """Return a gray picture of (rows, columns) in an encoding; its row padding is noise."""
    rows, columns = size
    levels = np.linspace(0, 255, rows * columns).astype(np.uint8).reshape(rows, columns)
    low = np.full_like(levels, 77)
    if encoding == "mono16":
        pixels = np.stack((levels, low) if big else (low, levels), axis=2)
    else:
        pixels = np.repeat(levels[..., None], CHANNELS[encoding], axis=2)
    noise = np.random.default_rng(0).integers(0, 256, (rows, padding), np.uint8)
    lines = np.concatenate([pixels.reshape(rows, -1), noise], axis=1)
    message = image()
    message.encoding, message.is_bigendian = encoding, int(big)
    message.height, message.width, message.step = rows, columns, lines.shape[1]
    del message.data[:]
    message.data.frombytes(np.ascontiguousarray(lines).reshape(-1))
    return message


def fused(rig: Rig, received: list[Image], message: Image) -> Image:
    """Publish a message and return what the node makes of it."""
    before = len(received)
    rig.camera.publish(message)
    assert rig.spin_until(lambda: len(received) > before), rig.output()
    return received[-1]


@pytest.mark.fault(
    "camera stops and returns", "WARN after 2 s without an image; continues with the first new one"
)
def test_camera_stops_and_returns(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    fused(rig, received, image(1))
    rig.next_diagnostics()
    rig.node.destroy_publisher(rig.camera)
    assert rig.spin_until(lambda: "no image on /camera/image_raw" in rig.diagnostics[-1]["message"])
    assert rig.diagnostics[-1]["level"] == "1"
    rig.connect_camera()

    def goes_on() -> bool:
        fused(rig, received, image(2))
        rig.wait(0.1)
        return "no image" not in rig.diagnostics[-1]["message"]

    assert rig.spin_until(goes_on)


@pytest.mark.fault("size and encoding change from image to image", "each is fused at its own size")
def test_size_and_encoding_change(rig: Rig) -> None:
    received = rig.subscribe("segmentation/mask")
    for encoding, size in product(CHANNELS, ((50, 70), (480, 640), (33, 1), (1, 5))):
        mask = fused(rig, received, gray(encoding, size))
        assert (mask.height, mask.width, mask.step) == (*size, size[1]), encoding


@pytest.mark.fault("rows with padding", "the padding is ignored")
@pytest.mark.fault("big-endian mono16", "read as such")
def test_layout_in_memory(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    assert rig.set(steps=2).successful  # on a slow machine the node would change them
    plain = fused(rig, received, gray("mono8", (48, 64))).data
    for encoding, big in (*((name, False) for name in CHANNELS), ("mono16", True)):
        assert fused(rig, received, gray(encoding, (48, 64), 5, big)).data == plain, encoding
    assert rig.set(steps=0).successful


@pytest.mark.fault(
    "stamps that are zero, negative, far from now or with a nanosec field above one second",
    "fused; the header is copied unchanged; no age is counted without a stamp of the same clock",
)
def test_invalid_stamps(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    far, least = 2**31 - 1, -(2**31)
    message = image()
    message.header.stamp = rig.node.get_clock().now().to_msg()
    fused(rig, received, message)
    for seconds, nanoseconds in ((0, 0), (-5, 0), (least, 1), (7, 2 * 10**9), (far, 2**32 - 1)):
        message = image()
        message.header.stamp = Time(sec=seconds, nanosec=nanoseconds)
        assert fused(rig, received, message).header == message.header
    ages = [float(v) for k, v in rig.next_diagnostics().items() if k.startswith("age_")]
    assert ages and all(0 < age < 60_000 for age in ages)


@pytest.mark.fault(
    "images out of order or repeated",
    "refused and counted if the stamp is not newer than the last one's; a stamp that goes back by "
    "0.5 s or more starts a new sequence, as when a bag restarts",
)
def test_out_of_order(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    before = rig.counts()
    refused = before["refused"]
    for tenths in (100, 102, 101, 102, 103, 40, 41):
        message = image()
        message.header.stamp = Time(sec=tenths // 10, nanosec=tenths % 10 * 10**8)
        if tenths in (101, 102) and len(received) > 1:
            rig.camera.publish(message)
            refused += 1  # wait for it: otherwise the next image would replace it
            assert rig.spin_until(lambda n=refused: rig.diagnostics[-1]["refused"] == str(n))  # type: ignore[misc]
        else:
            fused(rig, received, message)
    stamps = [m.header.stamp.sec * 10 + m.header.stamp.nanosec // 10**8 for m in received]
    assert stamps == [100, 102, 103, 40, 41]
    assert rig.new_counts(before)["refused"] == 2


@pytest.mark.fault(
    "subscribers come and go", "outputs without subscribers are not computed; no image is lost"
)
def test_subscribers_come_and_go(rig: Rig) -> None:
    topics = ("mag_image", "segmentation/mask", "thermal_estimate", "segmentation/overlay")
    for number, topic in enumerate(topics):
        received = rig.subscribe(topic)
        answer = fused(rig, received, image(stamp=10 + number))
        assert answer.header.stamp.sec == 10 + number
        rig.unsubscribe_all()


@pytest.mark.fault("parameters change under load", "applied between images; every image is counted")
def test_parameters_change_under_load(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    before = rig.counts()
    changes: list[dict[str, Any]] = [
        {"tau": 0.1},
        {"steps": 1},
        {"mode": "restore"},
        {"steps": 2},
        {"mode": "fuse"},
    ]
    for number in range(30):
        rig.camera.publish(image(stamp=100 + number, size=(480, 640)))
        assert rig.set(**changes[number % len(changes)]).successful
    assert rig.set(steps=0).successful and rig.set(tau=-1.0).successful
    assert rig.spin_until(lambda: bool(received) and received[-1].header.stamp.sec == 129)
    stamps = [message.header.stamp.sec for message in received]
    assert stamps == sorted(set(stamps))
    new = rig.new_counts(before)
    assert new["received"] == new["fused"] + new["dropped"]


@pytest.mark.fault(
    "use_sim_time without a /clock", "fused; WARN and a log line say so; no age is counted"
)
@pytest.mark.fault(
    "the clock jumps back because a bag restarts",
    "continues; so do the diagnostics, which use a steady clock",
)
def test_clock_jumps_back(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    clock = rig.node.create_publisher(Clock, "/clock", RELIABLE)
    assert rig.set(use_sim_time=True).successful
    try:
        assert rig.spin_until(lambda: clock.get_subscription_count() > 0)
        said = "use_sim_time is true, but nothing arrives on /clock"
        assert rig.says(said), rig.diagnostics[-1:]
        assert rig.output().count(said) == 1
        for seconds in (1000, 1001, 5, 6):
            clock.publish(Clock(clock=Time(sec=seconds, nanosec=5 * 10**7)))
            rig.sync()
            message = image()
            message.header.stamp = Time(sec=seconds)
            fused(rig, received, message)
        assert [message.header.stamp.sec for message in received] == [1000, 1001, 5, 6]
        reports = len(rig.diagnostics)
        assert rig.spin_until(lambda: len(rig.diagnostics) >= reports + 2)
        assert rig.diagnostics[-1]["level"] != "2"
    finally:
        assert rig.set(use_sim_time=False).successful
        rig.node.destroy_publisher(clock)


# These come last because deadline control remembers the camera's rate for a while.
@pytest.mark.fault(
    "images at 200 Hz",
    "only the newest image is fused, and results stay in order; the images that it replaces are "
    "counted as dropped",
)
def test_bursts(rig: Rig) -> None:
    received = rig.subscribe("restored_image", qos=BURST_QOS)
    before = rig.counts()
    start = monotonic()
    for number in range(BURST):
        rig.camera.publish(image(stamp=100 + number, size=(480, 640)))
        rig.wait(start + number / 200 - monotonic())
    newest = 99 + BURST
    assert rig.spin_until(lambda: bool(received) and received[-1].header.stamp.sec == newest)
    stamps = [message.header.stamp.sec for message in received]
    assert stamps == sorted(set(stamps))
    new = rig.new_counts(before)
    assert new["fused"] == len(received)
    assert new["received"] == new["fused"] + new["dropped"]


@pytest.mark.fault(
    "the node is held up, and DDS drops images",
    "continues with the newest; images that never arrived are counted as lost (Kilted); WARN",
)
def test_a_node_that_is_held_up(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    camera = rig.node.create_publisher(Image, CAMERA, SHALLOW_QOS)
    assert rig.spin_until(lambda: camera.get_subscription_count() > 0)
    rig.sync()
    camera.publish(image(stamp=200))
    assert rig.spin_until(lambda: bool(received))
    before, lost = rig.counts(), int(rig.diagnostics[-1]["lost"])
    reports = len(rig.diagnostics)
    rig.process.send_signal(signal.SIGSTOP)
    for number in range(201, 241):
        camera.publish(image(stamp=number))
    rig.process.send_signal(signal.SIGCONT)
    assert rig.spin_until(lambda: received[-1].header.stamp.sec == 240), rig.output()
    new = rig.new_counts(before)
    lost = int(rig.diagnostics[-1]["lost"]) - lost
    assert lost > 0 and new["received"] + lost == 40
    told = [
        r["level"] for r in rig.diagnostics[reports:] if "images refused or lost" in r["message"]
    ]
    assert "1" in told
    rig.node.destroy_publisher(camera)


@pytest.mark.fault(
    "fuzzed messages: 2,000 through the node's code, 200 over DDS",
    "refused with a reason, or fused; every one is counted",
)
def test_fuzzed_messages(rig: Rig) -> None:
    """A few over DDS; test_fuzz.py runs 2,000 through the same code."""
    received = rig.subscribe("restored_image")
    before = rig.counts()
    random = np.random.default_rng(4)
    for number in range(200):
        message = gray(str(random.choice(list(CHANNELS))), (12, 16), int(random.integers(3)))
        field = str(random.choice(["height", "width", "step", "encoding", "data", "none"]))
        if field == "encoding":
            message.encoding = bytes(random.integers(32, 127, 6, np.uint8)).decode()
        elif field == "data":
            del message.data[int(random.integers(len(message.data))) :]
        elif field != "none":
            setattr(message, field, int(random.integers(2**32)) >> int(random.integers(32)))
        message.header.stamp.sec = 100 + number
        rig.camera.publish(message)
        rig.state()  # it answers once the message was taken
    fused(rig, received, image(stamp=300))
    new = rig.new_counts(before)
    assert new["received"] == new["fused"] + new["dropped"] + new["refused"] == 201
    assert new["fused"] == len(received) > 1
    assert new["refused"] > 0


@pytest.mark.fault(
    "configure, activate, deactivate, cleanup, 50 times",
    "no growth: the same threads and open files; memory within 10 MB after the first 20",
)
def test_lifecycle_cycles_do_not_grow(tmp_path: Path, tiny_bundle: Path) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle)) as rig:
        assert rig.state() == "unconfigured"
        assert "configure and activate it, or set autostart" in rig.output()
        used = []
        for _ in range(50):
            for transition in ("configure", "activate", "deactivate", "cleanup"):
                assert rig.transition(transition), rig.output()
            used.append(rig.resources())
        # Networks, with OpenVINO's 14 threads, go at once, not when Python looks for cycles.
        assert {u.threads for u in used[1:]} == {used[0].threads}
        assert used[-1].files == used[19].files
        assert used[-1].rss_mb - used[19].rss_mb < 10
        rig.activate()
        received = rig.subscribe("restored_image")
        fused(rig, received, image())


@pytest.mark.fault(
    "deactivate and activate, 16 times, with images in between",
    "no growth: memory within 10 MB after the first 4",
)
def test_activations_with_images_do_not_grow(tmp_path: Path, tiny_bundle: Path) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle)) as rig:
        rig.activate()
        received = rig.subscribe("restored_image")
        used = []
        for cycle in range(1, 17):
            for number in range(4):
                fused(rig, received, image(stamp=10 * cycle + number, size=(720, 1280)))
            used.append(rig.resources().rss_mb)
            assert rig.transition("deactivate"), rig.output()
            assert rig.spin_until(lambda: rig.camera.get_subscription_count() == 0)
            assert rig.transition("activate"), rig.output()
            assert rig.spin_until(lambda: rig.camera.get_subscription_count() > 0)
            rig.sync()
        assert used[-1] - used[3] < 10, used
