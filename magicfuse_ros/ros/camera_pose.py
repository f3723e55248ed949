"""Where the camera is when an image is taken: fixed by parameters, or asked of TF."""

from __future__ import annotations

from typing import Protocol

from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from magicfuse_ros.errors import CalibrationError, MagicFuseError
from magicfuse_ros.ground import CameraPose
from magicfuse_ros.parameters import GroundParameters


class PoseSource(Protocol):
    """Says where the camera was."""

    def pose(self, header: Header) -> CameraPose:
        """Return the pose of the camera `header.frame_id` at `header.stamp`.

        Raises:
            CalibrationError: if it is not known, or not above the ground.
        """

    def close(self) -> None:
        """Stop listening."""


class FixedPose:
    """The pose that the parameters say."""

    def __init__(self, values: GroundParameters) -> None:
        self._pose = CameraPose.from_tilt(
            values.camera_height, values.camera_pitch, values.camera_roll
        )

    def pose(self, header: Header) -> CameraPose:
        """Return it."""
        return self._pose

    def close(self) -> None:
        """Do nothing."""


class TfPose:
    """The pose that TF knows."""

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

    def pose(self, header: Header) -> CameraPose:
        """Look it up; a stamp of 0 takes the latest."""
        try:
            found = self._buffer.lookup_transform(
                self._base_frame, header.frame_id, Time.from_msg(header.stamp)
            ).transform
        except self._failure as error:
            raise CalibrationError(
                f"TF has no transform from '{header.frame_id}' to '{self._base_frame}' at the "
                f"image's time: {error}"
            ) from error
        t, q = found.translation, found.rotation
        return CameraPose.from_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))

    def close(self) -> None:
        """Unsubscribe."""
        self._listener.unregister()
