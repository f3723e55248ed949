# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The pose of the camera when an image is taken: fixed by parameters, or looked up in TF."""

from __future__ import annotations

from typing import Protocol

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from magicfuse_ros.errors import CalibrationError, MagicFuseError
from magicfuse_ros.navigation.ground import CameraPose
from magicfuse_ros.parameters import GroundParameters
from magicfuse_ros.ros.sequence import OUT_OF_ORDER_NS


class TransformMissingError(CalibrationError):
    """A pose that TF does not have yet, but may have soon."""


class PoseSource(Protocol):
    """Provides the pose of the camera."""

    def pose(self, header: Header) -> CameraPose:
        """Return the pose of the camera `header.frame_id` at `header.stamp`.

        Raises:
            TransformMissingError: if the pose is not known yet.
            CalibrationError: if the camera is not above the ground.
        """

    def close(self) -> None:
        """Stop listening."""


class FixedPose:
    """The pose from the parameters."""

    def __init__(self, values: GroundParameters) -> None:
        self._pose = CameraPose.from_tilt(
            values.camera_height, values.camera_pitch, values.camera_roll
        )

    def pose(self, header: Header) -> CameraPose:
        """Return the fixed pose."""
        return self._pose

    def close(self) -> None:
        """Do nothing."""


class TfPose:
    """The pose from TF.

    A bag that starts again brings transforms older than those of its last round. TF would keep the
    old ones and reject the new ones as outdated. So this class clears the buffer when time goes
    back: the clock's time, or the images' stamps if a bag is played without /clock. tf2_ros clears
    its own Buffer when the clock of its node jumps back, but not on Humble.
    """

    def __init__(self, node: Node, base_frame: str) -> None:
        """Listen to /tf and /tf_static.

        Raises:
            MagicFuseError: if tf2_ros is not installed.
        """
        try:
            import tf2_ros
        except ImportError as error:
            raise MagicFuseError(
                f"use_tf is true, but tf2_ros cannot be imported ({error}): install it "
                "(ros-<distro>-tf2-ros-py), or set use_tf: false and camera_height, camera_pitch "
                "and camera_roll"
            ) from error
        self._base_frame = base_frame
        self._failure = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)
        self._logger = node.get_logger()
        self._newest_ns = 0
        back = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-OUT_OF_ORDER_NS))
        self._jumps = node.get_clock().create_jump_callback(
            back, post_callback=lambda jump: self._forget()
        )

    def pose(self, header: Header) -> CameraPose:
        """Look up the pose; a stamp of 0 takes the latest."""
        if header.stamp.sec < 0:
            raise CalibrationError(f"image has the stamp {header.stamp.sec} s; expected 0 or more")
        if not header.frame_id or header.frame_id.startswith("/"):  # waiting would not help
            raise CalibrationError(
                f"image has the frame_id '{header.frame_id}'; TF needs a name that does not begin "
                "with '/': set it in the camera's driver"
            )
        stamp = Time.from_msg(header.stamp)
        if 0 < stamp.nanoseconds <= self._newest_ns - OUT_OF_ORDER_NS:
            self._forget()
        self._newest_ns = max(self._newest_ns, stamp.nanoseconds)
        try:
            found = self._buffer.lookup_transform(
                self._base_frame, header.frame_id, stamp
            ).transform
        except self._failure as error:
            raise TransformMissingError(
                f"TF has no transform from '{header.frame_id}' to '{self._base_frame}' at the "
                f"image's time: {error}"
            ) from error
        t, q = found.translation, found.rotation
        return CameraPose.from_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))

    def close(self) -> None:
        """Unsubscribe."""
        self._jumps.unregister()
        self._listener.unregister()
        # Both are parts of reference cycles; the transforms must not wait for their end.
        self._listener.buffer = None
        del self._buffer

    def _forget(self) -> None:
        self._logger.info("time jumped: the transforms from before are forgotten")
        self._newest_ns = 0
        self._buffer.clear()  # keeps the transforms of /tf_static
