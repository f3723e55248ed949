# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Drives a node in a child process over DDS, in a domain of its own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from magicfuse_ros.image_codec import encode_bgr8
from magicfuse_ros.playback.children import claim_domain

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 60.0  # for events that must happen eventually; a busy machine may stall for seconds
CAMERA = "/camera/image_raw"
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
COUNTERS = ("received", "fused", "dropped", "idle", "failed", "refused")
_domains = itertools.count(os.getpid())
_nanoseconds = itertools.count(7)
R = TypeVar("R", bound="Rig")


@dataclass(frozen=True)
class Resources:
    """The resources that a process uses."""

    rss_mb: float
    threads: int
    files: int


class Domain:
    """A ROS domain that nothing else on this machine uses until it is released."""

    def __init__(self) -> None:
        claimed = None
        while claimed is None:
            self.number = 1 + next(_domains) % 100
            claimed = claim_domain(self.number)
        self._claim = claimed

    def free(self) -> None:
        self._claim.close()


class Rig:
    """A `fuse_node` in `/front` that subscribes to `/camera/image_raw`, and a client of it."""

    name = "/front/fuse_node"
    command: tuple[str, ...] = (sys.executable, "-m", "magicfuse_ros.ros.fuse_node")
    config = "fuse.yaml"
    remappings: tuple[str, ...] = ("image:=/camera/image_raw",)

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        command: tuple[str, ...] = (),
        **parameters: Any,
    ) -> None:
        self._domain = Domain()
        domain = self._domain.number
        self._parameters = folder / f"overrides_{domain}.yaml"
        lines = [f"    {key}: {value!r}" for key, value in parameters.items()]
        head = ["/**:", "  ros__parameters:", "    use_sim_time: false"]
        self._parameters.write_text("\n".join([*head, *lines]) + "\n")
        local = {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(folder / "log"),
        }
        os.environ.update(local)  # rclpy in this process must find the child
        self._log = (folder / f"node_{domain}.txt").open("w+")
        # The command of launch_ros for fuse.launch.py, apart from the path of the executable.
        namespace, _, node = self.name.rpartition("/")
        arguments = ["-r", f"__node:={node}", "-r", f"__ns:={namespace}"]
        arguments += ["--params-file", str(ROOT / "config" / self.config)]
        arguments += ["--params-file", str(self._parameters)]
        arguments += [word for rule in self.remappings for word in ("-r", rule)]
        self.process = subprocess.Popen(
            [*(command or self.command), "--ros-args", *arguments],
            env={**os.environ, **(environment or {})},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("test_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.camera = self.node.create_publisher(Image, CAMERA, RELIABLE)
        self._clients: dict[str, Any] = {}
        self.diagnostics: list[dict[str, str]] = []
        self._newest_report_ns = 0
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        (status,) = array.status
        stamp = array.header.stamp
        self._newest_report_ns = stamp.sec * 10**9 + stamp.nanosec
        values = {value.key: value.value for value in status.values}
        self.diagnostics.append(
            {**values, "level": str(ord(status.level)), "message": status.message}
        )

    def spin_until(self, done: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> bool:
        """Handle messages until `done`; return False if it does not become true in time."""
        end = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def wait(self, seconds: float) -> None:
        """Handle messages for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def call(self, service_type: Any, service: str, request: Any) -> Any:
        if service not in self._clients:
            name = f"{self.name}/{service}"
            self._clients[service] = self.node.create_client(service_type, name)
            self.sync()  # an answer to a client that the node does not know yet is lost
        client = self._clients[service]
        assert self.spin_until(client.service_is_ready), self.output()
        future = client.call_async(request)
        assert self.spin_until(future.done), self.output()
        return future.result()

    def transition(self, label: str) -> bool:
        number = getattr(Transition, f"TRANSITION_{label.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, "change_state", request).success)

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def sync(self) -> None:
        """Wait until the node has processed everything that this client did before.

        It knows of all subscriptions, cancelled subscriptions and publishers, and has taken the
        last message. DDS announces a participant's topics to another participant in the order in
        which they were made. A node that answers a client made just now therefore knows of all
        earlier ones. It takes messages before service calls.
        """
        client = self.node.create_client(GetState, f"{self.name}/get_state")
        try:
            assert self.spin_until(client.service_is_ready), self.output()
            # The answer is lost if the node does not know the client yet.
            assert self.spin_until(lambda: self._answers(client)), self.output()
        finally:
            self.node.destroy_client(client)

    def _answers(self, client: Any) -> bool:
        return self.spin_until(client.call_async(GetState.Request()).done, 1.0)

    def activate(self) -> None:
        """Activate the node, with the camera connected."""
        self.activate_for(self.camera)

    def activate_for(self, *publishers: Any) -> None:
        """Configure and activate, with these publishers connected to the node."""

        def connected(wanted: bool) -> bool:
            return all((p.get_subscription_count() > 0) == wanted for p in publishers)

        assert self.transition("configure"), self.output()
        assert self.spin_until(lambda: connected(False)), "the subscriptions before are not gone"
        assert self.transition("activate"), self.output()
        assert self.spin_until(lambda: connected(True)), self.output()
        self.sync()

    def connect_camera(self) -> None:
        """Publish camera images again after the publisher was destroyed."""
        self.camera = self.node.create_publisher(Image, CAMERA, RELIABLE)
        assert self.spin_until(lambda: self.camera.get_subscription_count() > 0)
        self.sync()

    def set(self, **values: Any) -> SetParametersResult:
        """Set one parameter."""
        client = self._parameter_client()
        future = client.set_parameters([Parameter(name, value=v) for name, v in values.items()])
        assert self.spin_until(future.done)
        (result,) = future.result().results
        return result

    def parameter(self, name: str) -> Any:
        """Return the value of a parameter."""
        future = self._parameter_client().get_parameters([name])
        assert self.spin_until(future.done)
        (value,) = future.result().values
        return parameter_value_to_python(value)

    def _parameter_client(self) -> AsyncParameterClient:
        if "parameters" not in self._clients:
            self._clients["parameters"] = AsyncParameterClient(self.node, self.name)
        client = self._clients["parameters"]
        assert self.spin_until(client.services_are_ready)
        return client

    def subscribe(self, topic: str, message_type: Any = Image, qos: QoSProfile = RELIABLE) -> Any:
        """Return the list that collects the messages, once both sides know of each other."""
        messages: list[Any] = []
        subscription = self.node.create_subscription(
            message_type, f"{self.name}/{topic}", messages.append, qos
        )
        count = self.node.count_publishers
        assert self.spin_until(lambda: count(subscription.topic_name) > 0)
        self.sync()
        return messages

    def unsubscribe_all(self) -> None:
        for subscription in list(self.node.subscriptions):
            if subscription.topic_name.startswith(self.name):
                self.node.destroy_subscription(subscription)
        self.sync()

    def next_diagnostics(self) -> dict[str, str]:
        """Return a report made after this call began, from a node in real time."""
        began = time.time_ns()
        assert self.spin_until(lambda: self._newest_report_ns >= began), self.output()
        return self.diagnostics[-1]

    def says(self, words: str) -> bool:
        """Wait until the node's diagnostics contain the given values."""
        return self.spin_until(lambda: any(words in r["message"] for r in self.diagnostics[-1:]))

    def counts(self) -> dict[str, int]:
        """Return the node's counters of images once no image is in progress.

        They must add up then: an image that is never counted is an error.
        """
        began = time.time_ns()

        def latest() -> dict[str, int]:
            return {name: int(self.diagnostics[-1][name]) for name in COUNTERS}

        def settled() -> bool:
            if self._newest_report_ns < began:
                return False
            received, *others = latest().values()
            return received == sum(others)

        assert self.spin_until(settled), self.diagnostics[-1:]
        return latest()

    def new_counts(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return the growth of the counters."""
        return {name: count - before[name] for name, count in self.counts().items()}

    def resources(self) -> Resources:
        process = psutil.Process(self.process.pid)
        return Resources(process.memory_info().rss / 1e6, process.num_threads(), process.num_fds())

    def output(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def __enter__(self: R) -> R:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End the node, which must then exit with 0 unless the test failed or has ended it."""
        try:
            if kind is None and self.process.poll() is None:
                assert self.end() == 0, self.output()
        finally:
            self.close()

    def end(self, number: signal.Signals = signal.SIGINT, times: int = 1) -> int:
        """Send the signal several times, 20 ms apart, and return the exit code."""
        for _ in range(times):
            if self.process.poll() is None:
                self.process.send_signal(number)
                time.sleep(0.02)
        try:
            return self.process.wait(TIMEOUT_S)
        finally:
            self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._context.ok():
            self._executor.shutdown()
            self.node.destroy_node()
            rclpy.shutdown(context=self._context)
        self._domain.free()


def image(stamp: int = 1, size: tuple[int, int] = (64, 96), value: int = 90) -> Image:
    """Return a bgr8 camera message of (rows, columns) with a gradient.

    Its stamp is `stamp` seconds and a few nanoseconds, and later than that of any earlier image.
    """
    rows, columns = size
    pixels = np.full((rows, columns, 3), value, np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, columns, dtype=np.uint8)
    encoded = encode_bgr8(pixels)
    message = Image(encoding="bgr8", height=rows, width=columns, step=encoded.step)
    message.header.frame_id = "front_camera"
    message.header.stamp.sec = stamp
    message.header.stamp.nanosec = next(_nanoseconds)
    message.data.frombytes(encoded.data)
    return message
