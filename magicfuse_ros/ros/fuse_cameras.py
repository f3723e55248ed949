# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Several cameras in one process: a `fuse_node` for each, and one copy of the networks for all.

ros2 run magicfuse_ros fuse_cameras --ros-args -p cameras:="[front, rear]" -r image:=image_raw

starts /front/fuse_node and /rear/fuse_node. Every name is the same as with one process for
each camera: parameter files and remappings tell the nodes apart by their full names.
"""

from __future__ import annotations

import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.validate_namespace import validate_namespace

from magicfuse_ros.backends.cpu import core_count
from magicfuse_ros.errors import DeviceLostError, MagicFuseError
from magicfuse_ros.ros.autostart import serve
from magicfuse_ros.ros.exit_timer import exit_after
from magicfuse_ros.ros.fuse_node import FuseNode
from magicfuse_ros.ros.process import DEFECT, DEVICE_LOST, END_S, Stop, run
from magicfuse_ros.shared_networks import SharedNetworks

_NAME = "fuse_cameras"
_IMAGES_AT_ONCE = 2  # more would need more memory, and each would take longer
_WAKE_S = 0.2  # Python runs signal handlers between two waits


class FuseCameras:
    """The nodes of all cameras.

    Each node has a thread that serves ROS and one that decodes, fuses and publishes, so that only
    the networks make one node wait for another.
    """

    def __init__(self) -> None:
        """Make the nodes.

        Raises:
            MagicFuseError: if `cameras` is not a list of different namespaces, or if a start
                parameter of a node is refused.
        """
        self.nodes: list[FuseNode] = []
        try:
            namespaces = _namespaces()
            shared = SharedNetworks(min(_IMAGES_AT_ONCE, len(namespaces), core_count()))
            for namespace in namespaces:
                self.nodes.append(_node(namespace, shared))
            self._warn_of_one_camera()
        except BaseException:
            self.destroy_node()
            raise

    def _warn_of_one_camera(self) -> None:
        """Log if nodes have the same camera: an absolute name in a remapping is that of all."""
        topics = [node.resolve_topic_name("image") for node in self.nodes]
        for node, topic in zip(self.nodes, topics, strict=True):
            if topics.count(topic) > 1:
                node.get_logger().warning(
                    f"image is {topic}, as for another camera of this process; a remapping such "
                    "as image:=image_raw is relative to each namespace"
                )

    def serve(self, stop: Stop) -> None:
        """Serve all nodes until a signal comes.

        Raises:
            DeviceLostError: if none of them can work any more in this process.
        """
        end = _End(stop)
        with ThreadPoolExecutor(len(self.nodes), thread_name_prefix="ros") as threads:
            ends = [threads.submit(serve, node, end) for node in self.nodes]
            while not stop and not any(one.done() for one in ends):
                wait(ends, _WAKE_S, FIRST_COMPLETED)
            end.came = True
            if not stop:
                # A thread that waits for the lost device would wait for ever.
                ended = (one.exception() for one in ends if one.done())
                lost = any(isinstance(error, DeviceLostError) for error in ended)
                exit_after(END_S, DEVICE_LOST if lost else DEFECT)
        for one in ends:
            one.result()

    def destroy_node(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.destroy_node()


class _End:
    """True once a signal has come, or one of the nodes has ended."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.came = False

    def __bool__(self) -> bool:
        return self.came or bool(self._stop)


def _namespaces() -> list[str]:
    # A short-lived node: only a node can read the parameters of the process.
    node = rclpy.create_node(_NAME, start_parameter_services=False, enable_rosout=False)
    try:
        what = ParameterDescriptor(description="namespaces of the cameras", read_only=True)
        cameras: list[str] = list(node.declare_parameter("cameras", [""], what).value or ())
        before = node.get_namespace()
    finally:
        node.destroy_node()
    names = [name if name.startswith("/") else f"{before.rstrip('/')}/{name}" for name in cameras]
    if not all(cameras) or not cameras or len(set(names)) < len(names):
        raise MagicFuseError(
            f"cameras is {cameras}; expected different namespaces, such as [front, rear]"
        )
    return names


def _node(namespace: str, shared: SharedNetworks) -> FuseNode:
    arguments = ["--ros-args", "-r", f"__ns:={namespace}", "-r", "__node:=fuse_node"]
    try:
        validate_namespace(namespace)
        return FuseNode(shared, arguments)
    except (MagicFuseError, ParameterException, NameValidationException) as error:
        raise MagicFuseError(f"camera {namespace}: {error}") from error


def main() -> None:
    """Run the nodes; the entry point of the executable `fuse_cameras`."""
    sys.exit(run(FuseCameras, FuseCameras.serve))


if __name__ == "__main__":
    main()
