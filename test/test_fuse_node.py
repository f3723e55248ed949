# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The node over DDS, as the vehicle sees it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from builtin_interfaces.msg import Time
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.ros.fuse_node import FuseNode
from magicfuse_ros.ros.managed_node import _GONE
from replay_bags import OUTPUTS
from ros_rig import CAMERA, COUNTERS, LATCHED, Domain, Rig, image

BURST = 40  # images; the queues for the results have room for all of them
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Rig]:
    """An active node for all tests that do not change it."""
    depth: dict[str, Any] = {f"qos_overrides.{Rig.name}/mag_image.publisher.depth": BURST}
    with Rig(tmp_path_factory.mktemp("node"), bundle=str(tiny_bundle), **depth) as rig:
        rig.activate()
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    yield shared
    shared.unsubscribe_all()


def test_all_outputs_carry_the_cameras_header_and_size(rig: Rig) -> None:
    received = {topic: rig.subscribe(topic) for topic in OUTPUTS}
    sent = image(stamp=12, size=(50, 70))
    rig.camera.publish(sent)
    assert rig.spin_until(lambda: all(received.values())), rig.output()
    for topic, encoding in OUTPUTS.items():
        (message,) = received[topic]
        assert message.header == sent.header, topic
        assert (message.encoding, message.height, message.width) == (encoding, 50, 70)
        assert message.step == 70 * (3 if encoding == "bgr8" else 1)
        assert len(message.data) == message.step * message.height
    assert set(received["segmentation/mask"][0].data) <= {0, 1, 2}


def test_a_bundle_without_the_uncertainty_has_no_topic_for_it(rig: Rig) -> None:
    names = [name for name, _ in rig.node.get_topic_names_and_types()]
    assert f"{rig.name}/thermal_estimate" in names
    assert f"{rig.name}/thermal_uncertainty" not in names


def test_the_uncertainty_of_the_thermal_estimate(
    tmp_path: Path, tiny_uncertain_bundle: Path
) -> None:
    # All steps, as below: on a slow machine the node would do fewer.
    with Rig(tmp_path, bundle=str(tiny_uncertain_bundle), steps=2) as rig:
        rig.activate()
        sent = image(stamp=12, size=(50, 70))
        rig.camera.publish(sent)
        rig.sync()
        assert rig.counts()["idle"] == 1  # an advertised topic without subscribers costs nothing
        uncertainty = rig.subscribe("thermal_uncertainty")
        sent.header.stamp.sec = 13
        rig.camera.publish(sent)
        assert rig.spin_until(lambda: bool(uncertainty)), rig.output()
        (message,) = uncertainty
        assert message.header == sent.header
        assert (message.encoding, message.height, message.width) == ("mono8", 50, 70)
        assert message.step == 70
        rgb = np.array(sent.data, np.uint8).reshape(50, 70, 3)[..., ::-1]
        fuser = Fuser(Bundle.load(tiny_uncertain_bundle), select())
        expected = fuser(rgb, ["thermal_uncertainty"]).thermal_uncertainty
        np.testing.assert_array_equal(np.reshape(message.data, (50, 70)), expected)
        rig.counts()
        report = rig.diagnostics[-1]
        assert float(report["stage_ckg_ms"]) > 0 and float(report["stage_decoder_ms"]) > 0
        for idle in ("ikr", "mkf", "segmentation"):
            assert float(report[f"stage_{idle}_ms"]) == 0, idle

        estimate = rig.subscribe("thermal_estimate")
        sent.header.stamp.sec = 14
        rig.camera.publish(sent)
        assert rig.spin_until(lambda: bool(estimate) and len(uncertainty) == 2), rig.output()
        assert estimate[0].header == uncertainty[1].header == sent.header
        assert estimate[0].data != uncertainty[1].data == message.data


def test_only_what_has_a_subscriber_is_computed(rig: Rig) -> None:
    before = rig.counts()
    rig.camera.publish(image())
    rig.sync()
    new = rig.new_counts(before)
    assert new == dict.fromkeys(COUNTERS, 0) | {"received": 1, "idle": 1}


def test_a_single_output_runs_only_its_networks(tmp_path: Path, tiny_bundle: Path) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle)) as rig:
        rig.activate()
        restored = rig.subscribe("restored_image")
        for number in range(1, 4):  # the median of three ignores one delayed image
            sent = image()
            sent.header.stamp = rig.node.get_clock().now().to_msg()
            rig.camera.publish(sent)
            assert rig.spin_until(lambda n=number: len(restored) == n)  # type: ignore[misc]
        assert rig.counts()["fused"] == 3
        report = rig.diagnostics[-1]
        assert 0 < float(report["age_p50_ms"]) < 1000
        assert report["backend"].startswith("openvino ")
        assert report["backend_asked"] == "auto" and report["backend_why"].startswith("auto; ")
        assert float(report["stage_ikr_ms"]) > 0
        assert float(report["stage_decoder_ms"]) > 0
        for idle in ("ckg", "mkf", "segmentation"):
            assert float(report[f"stage_{idle}_ms"]) == 0, idle


def test_the_newest_image_is_fused_and_the_count_is_honest(rig: Rig) -> None:
    received = rig.subscribe("mag_image")
    before = rig.counts()
    for stamp in range(100, 100 + BURST):
        rig.camera.publish(image(stamp, size=(960, 1280)))
    assert rig.spin_until(lambda: bool(received) and received[-1].header.stamp.sec == 99 + BURST), (
        rig.output()
    )
    stamps = [message.header.stamp.sec for message in received]
    assert stamps == sorted(set(stamps))
    assert len(stamps) < BURST
    new = rig.new_counts(before)
    assert new["fused"] == len(stamps)
    assert new["received"] == new["fused"] + new["dropped"]


@pytest.mark.fault(
    "short, oversized and zero-size messages, a wrong step or encoding",
    "refused, counted by cause, and each cause logged once; WARN",
)
def test_bad_messages_are_refused_and_counted(rig: Rig) -> None:
    received = rig.subscribe("restored_image")
    unknown, short, narrow, nothing = (image() for _ in range(4))
    unknown.encoding = "x" * 100_000
    del short.data[-100:]
    narrow.step = 10
    nothing.height = nothing.width = nothing.step = 0
    del nothing.data[:]

    missing = {
        f"encoding is '{'x' * 120}…'": unknown,
        "data is # bytes long": short,
        "step is #": narrow,
        "image is #": nothing,
    }
    before = rig.counts()
    sent = 0
    while missing:  # once, unless one replaces another that has not started
        assert sent < 50, rig.diagnostics[-1]
        for bad in missing.values():
            rig.camera.publish(bad)
            sent += 1
            rig.wait(0.05)
        rig.sync()
        new = rig.new_counts(before)
        assert new["received"] == sent == new["refused"] + new["dropped"]
        causes = " ".join(key for key in rig.diagnostics[-1] if key.startswith("refused: "))
        missing = {words: bad for words, bad in missing.items() if words not in causes}
    told = [m for m in rig.diagnostics if "images refused or lost" in m["message"]]
    assert told and {m["level"] for m in told} == {"1"}
    assert rig.output().count("image refused: step is 10") == 1
    assert not received
    rig.camera.publish(image(stamp=5))
    assert rig.spin_until(lambda: bool(received)), rig.output()
    assert rig.state() == "active"


def test_live_parameters(rig: Rig) -> None:
    received = {topic: rig.subscribe(topic) for topic in ("mag_image", "restored_image")}
    assert rig.set(steps=1).successful
    assert rig.set(tau=0.25).successful
    rig.camera.publish(image())
    assert rig.spin_until(lambda: all(received.values()))
    rig.counts()
    assert (rig.diagnostics[-1]["steps"], rig.diagnostics[-1]["tau"]) == ("1", "0.25")

    refused = rig.set(steps=7)
    assert not refused.successful
    assert "steps is 7" in refused.reason
    assert not rig.set(tau=1.5).successful
    assert not rig.set(mode="guess").successful
    refused = rig.set(bundle="/elsewhere")
    assert not refused.successful
    assert "bundle can only change while the node is unconfigured" in refused.reason
    assert rig.set(bundle=rig.parameter("bundle")).successful  # nothing changes

    assert rig.set(mode="restore").successful
    received["mag_image"].clear()
    received["restored_image"].clear()
    for number in (1, 2):  # with the second, everything from the first has arrived
        rig.camera.publish(image())
        assert rig.spin_until(lambda n=number: len(received["restored_image"]) == n)  # type: ignore[misc]
    assert not received["mag_image"]
    rig.unsubscribe_all()
    rig.subscribe("mag_image")
    said = "mode is restore, which publishes nothing on ~/mag_image"
    assert rig.says(said), rig.diagnostics[-1:]
    for name, value in {"mode": "fuse", "steps": 0, "tau": -1.0}.items():
        assert rig.set(**{name: value}).successful
    assert rig.next_diagnostics()["tau"] == "0.40"


def test_class_names_wait_for_late_subscribers(rig: Rig) -> None:
    labels = rig.subscribe("segmentation/label_info", String, LATCHED)
    assert rig.spin_until(lambda: bool(labels))
    classes = json.loads(labels[0].data)["class_map"]
    assert [c["class_name"] for c in classes] == ["road", "person", "sky"]


def test_camera_info_gets_the_header_of_the_frame(rig: Rig) -> None:
    infos = rig.subscribe("camera_info", CameraInfo)
    masks = rig.subscribe("segmentation/mask")
    publisher = rig.node.create_publisher(CameraInfo, "/camera/camera_info", 1)
    assert rig.spin_until(lambda: publisher.get_subscription_count() > 0)
    rig.sync()  # the node knows the publisher, too
    publisher.publish(CameraInfo(width=96, height=64, k=np.arange(9, dtype=np.float64)))
    rig.sync()
    sent = image(stamp=31)
    rig.camera.publish(sent)
    assert rig.spin_until(lambda: bool(infos and masks))
    assert infos[0].header == sent.header
    assert list(infos[0].k) == list(range(9))
    rig.camera.publish(image(stamp=32, size=(50, 70)))
    assert rig.spin_until(lambda: len(masks) == 2)
    assert len(infos) == 1, "it is not this image's"
    said = "camera_info is for 96x64; the image is 70x50"
    assert rig.says(said), rig.diagnostics[-1:]


def test_a_camera_info_that_never_comes_or_is_of_another_camera_is_named(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """With a camera that does not stamp its messages."""
    with Rig(tmp_path, bundle=str(tiny_bundle)) as rig:
        publisher = rig.node.create_publisher(CameraInfo, "/camera/camera_info", 1)
        rig.activate_for(rig.camera, publisher)
        infos = rig.subscribe("camera_info", CameraInfo)
        masks = rig.subscribe("segmentation/mask")
        said = f"nothing arrives on {publisher.topic_name}"
        assert rig.says(said), rig.diagnostics[-1:]
        assert rig.output().count(said) == 1

        sent = image()
        sent.header.stamp = Time()

        def fuse_beside(frame: str) -> None:
            calibration, before = CameraInfo(width=96, height=64), len(masks)
            calibration.header.frame_id = frame
            publisher.publish(calibration)
            rig.sync()
            rig.camera.publish(sent)
            assert rig.spin_until(lambda: len(masks) > before), rig.output()

        fuse_beside("rear_camera")
        other = "camera_info is of 'rear_camera'; the image is of 'front_camera'"
        assert rig.says(other), rig.diagnostics[-1:]
        assert said not in rig.diagnostics[-1]["message"] and not infos
        fuse_beside("front_camera")
        assert rig.spin_until(lambda: bool(infos)), rig.diagnostics[-1:]
        assert infos[0].header == sent.header


def test_transitions_and_back(tmp_path: Path, tiny_bundle: Path) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle)) as rig:
        for _ in range(2):
            assert rig.state() == "unconfigured"
            rig.activate()
            assert rig.state() == "active"
            received = rig.subscribe("mag_image")
            rig.camera.publish(image(stamp=3))
            assert rig.spin_until(partial(bool, received)), rig.output()
            assert rig.transition("deactivate")
            assert rig.state() == "inactive"
            rig.camera.publish(image(stamp=4))
            rig.sync()
            assert len(received) == 1
            rig.unsubscribe_all()
            assert rig.transition("cleanup")
        assert rig.transition("unconfigured_shutdown")
        assert rig.state() == "finalized"
        assert rig.end(signal.SIGTERM) == 0, rig.output()


@pytest.fixture
def configured(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FuseNode]:
    """An inactive node in this process."""
    domain = Domain()
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=["--ros-args", "-p", f"bundle:={tiny_bundle}"], domain_id=domain.number)
    node = FuseNode()
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()
        domain.free()


def test_losses_are_reported_in_every_activation(configured: FuseNode) -> None:
    node = configured
    for count in (3, 2):  # the counts start at 0 each time
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        assert node._worker is not None
        for _ in range(count):
            node._worker.statistics.refused("step is 10")
        assert f"{count} images refused or lost" in node.diagnosis().problems
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS


def test_no_event_of_a_publisher_lengthens_the_waits_for_images(configured: FuseNode) -> None:
    names = {publisher.topic_name for publisher in configured.publishers}
    assert {"/parameter_events", "/diagnostics", "/fuse_node/mag_image"} <= names
    assert not any(publisher.event_handlers for publisher in configured.publishers)


@pytest.mark.fault(
    "a broken bundle",
    "stays unconfigured and says which file; ERROR; configures once the bundle is repaired",
)
def test_a_broken_bundle_leaves_the_node_unconfigured(tmp_path: Path, tiny_bundle: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    content = bytearray((broken / "mkf.onnx").read_bytes())
    content[40] ^= 1
    (broken / "mkf.onnx").write_bytes(content)
    with Rig(tmp_path, bundle=str(broken)) as rig:
        assert not rig.transition("configure")
        assert not rig.transition("activate"), "is answered, although the state does not allow it"
        assert rig.state() == "unconfigured"
        assert "mkf.onnx (mkf) was changed or damaged" in rig.output()
        report = rig.next_diagnostics()
        assert report["level"] == "2"
        assert "mkf.onnx" in report["message"]
        assert rig.set(bundle=str(tiny_bundle)).successful
        rig.activate()
        assert rig.next_diagnostics()["failure"] == ""


def test_a_missing_backend_leaves_the_node_unconfigured(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')\n")
    with Rig(
        tmp_path, {"PYTHONPATH": str(tmp_path)}, bundle=str(tiny_bundle), backend="onnxruntime"
    ) as rig:
        assert not rig.transition("configure")
        assert rig.state() == "unconfigured"
        assert "pip install onnxruntime" in rig.next_diagnostics()["message"]


def test_compressed_images(tmp_path: Path, tiny_bundle: Path) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle), image_transport="compressed") as rig:
        assert rig.transition("configure") and rig.transition("activate"), rig.output()
        camera = rig.node.create_publisher(CompressedImage, "/camera/image_raw/compressed", 1)
        received = rig.subscribe("mag_image")
        assert rig.spin_until(lambda: camera.get_subscription_count() > 0)
        rig.sync()
        _, jpeg = cv2.imencode(".jpg", np.full((64, 96, 3), 90, np.uint8))
        camera.publish(CompressedImage(format="jpeg", data=jpeg.tobytes()[:-200]))
        camera.publish(CompressedImage(format="bgr8; jpeg compressed bgr8", data=jpeg.tobytes()))
        assert rig.spin_until(lambda: bool(received)), rig.output()
        assert (received[0].height, received[0].width) == (64, 96)


@pytest.mark.fault(
    "a best-effort camera, and a camera_info latched before the node started",
    "received: QoS follows the publishers unless it is overridden",
)
@pytest.mark.fault(
    "a camera topic of another type, or on the raw or compressed counterpart of the topic",
    "WARN and a log line: who publishes what, and which parameter to set",
)
def test_camera_topics_are_found_or_named(tmp_path: Path, tiny_bundle: Path) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle), targt_period=0.5) as rig:
        rig.node.destroy_publisher(rig.camera)
        infos = rig.node.create_publisher(CameraInfo, "/camera/camera_info", LATCHED)
        infos.publish(CameraInfo(width=96, height=64))
        assert rig.transition("configure") and rig.transition("activate"), rig.output()
        assert "parameter 'targt_period' is unknown and ignored" in rig.output()
        received = rig.subscribe("camera_info", CameraInfo)  # this alone makes it fuse
        compressed = rig.node.create_publisher(CompressedImage, f"{CAMERA}/compressed", 1)
        said = f"nobody publishes {CAMERA}; {compressed.topic_name} is there: set image_transport"
        assert rig.says(said), rig.diagnostics[-1:]
        assert rig.diagnostics[-1]["level"] == "1" and rig.output().count(said) == 1

        rig.node.destroy_publisher(compressed)
        jpeg = rig.node.create_publisher(CompressedImage, CAMERA, 1)
        assert rig.says(f"remap image/compressed to {CAMERA}"), rig.diagnostics[-1:]
        rig.node.destroy_publisher(jpeg)

        camera = rig.node.create_publisher(Image, CAMERA, BEST_EFFORT)
        compressed = rig.node.create_publisher(CompressedImage, f"{CAMERA}/compressed", 1)
        assert rig.says(f"nothing arrives on {CAMERA}; {compressed.topic_name} is there: set")
        rig.node.destroy_publisher(compressed)
        second = rig.node.create_publisher(Image, CAMERA, BEST_EFFORT)
        assert rig.says(f"several publishers of {CAMERA}: /test_client, /test_client; expected one")
        rig.node.destroy_publisher(second)

        def fuses() -> bool:
            camera.publish(image())
            return rig.spin_until(lambda: bool(received), 0.2)

        assert rig.spin_until(fuses), rig.output()
        assert "nobody" not in rig.next_diagnostics()["message"]
        told = f"nobody publishes {CAMERA}\n"
        rig.wait(_GONE + 1)
        assert told not in rig.output()
        rig.node.destroy_publisher(camera)  # the camera dies later: that is told, too
        assert rig.spin_until(lambda: told in rig.output()), rig.output()


REFUSING_GPU = """
import magicfuse_ros.backends as backends
real = backends._obstacle
backends._obstacle = lambda name, *rest: "" if name == "tensorrt_rtx" else real(name, *rest)
from magicfuse_ros.ros.fuse_node import main; main()
"""


@pytest.mark.fault(
    "a GPU refuses the networks although their engines are there",
    "with `backend: auto`, a warning, and the next backend; `backend_why` has the reason",
)
def test_auto_goes_on_where_a_gpu_fails(tmp_path: Path, tiny_bundle: Path) -> None:
    command = (sys.executable, "-c", REFUSING_GPU)  # opening the GPU then fails
    with Rig(tmp_path, command=command, bundle=str(tiny_bundle), backend="auto") as rig:
        rig.activate()
        report = rig.next_diagnostics()
        assert report["backend"].startswith(("openvino", "onnxruntime"))
        assert "tensorrt_rtx failed (" in report["backend_why"]
        assert "trying the next backend" in rig.output()
