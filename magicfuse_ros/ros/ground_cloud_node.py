# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The lifecycle node that turns segmentation masks into ground point clouds and laser scans.

configure   check the parameters; listen to TF; advertise
activate    subscribe
deactivate  unsubscribe
cleanup     remove the topics

The points are in the camera frame, pixel for pixel like the mask, as Nav2's semantic segmentation
layer expects them; the scan is in `base_frame`. Rays and ground points are computed when the
calibration or the pose changes; a mask costs a few milliseconds (see docs/navigation.md).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from magicfuse_ros.errors import CalibrationError, FrameError
from magicfuse_ros.image_codec import decode_mask
from magicfuse_ros.navigation.camera_model import Array, CameraModel, Window
from magicfuse_ros.navigation.ground import CLOUD, CameraPose, GroundProjection, Roles, Scan, roles
from magicfuse_ros.parameters import GroundParameters
from magicfuse_ros.ros.autostart import serve
from magicfuse_ros.ros.camera_pose import FixedPose, PoseSource, TfPose, TransformMissingError
from magicfuse_ros.ros.causes import one_line
from magicfuse_ros.ros.diagnostics import Diagnosis
from magicfuse_ros.ros.ground_diagnostics import GroundDiagnostics
from magicfuse_ros.ros.guard import describe
from magicfuse_ros.ros.labels import LABEL_TYPE, class_names
from magicfuse_ros.ros.lost_messages import SUPPORTED, LostMessages
from magicfuse_ros.ros.managed_node import ManagedNode
from magicfuse_ros.ros.process import run
from magicfuse_ros.ros.qos import OVERRIDABLE, checked_overrides, latched, newest

_RETRY_S = 0.02
_MOST_WAITING = 32  # masks; one second of a fast camera
_LONGEST_WAIT_S = 10.0  # of real time, for a mask: /clock may have stopped
_TYPES = {"<f4": PointField.FLOAT32, "<u4": PointField.UINT32}
_FIELDS = [
    PointField(name=name, offset=offset, datatype=_TYPES[dtype.str], count=1)
    for name, (dtype, offset, *_) in (CLOUD.fields or {}).items()
]


class _Calibration(NamedTuple):
    camera: CameraModel
    size: str  # of its image, for messages


class GroundCloudNode(ManagedNode[GroundParameters]):
    """See docs/navigation.md for its topics and parameters."""

    def __init__(self) -> None:
        self._values: GroundParameters | None = None
        self._pose_source: PoseSource | None = None
        self._outputs: list[Publisher] = []
        # With the calibration at their arrival, and the time of it, real and ROS's.
        self._waiting: deque[tuple[Image, _Calibration | None, float, float]] = deque()
        self._retry: Timer | None = None
        self._diagnostics = GroundDiagnostics()
        super().__init__("ground_cloud_node", "ground cloud", GroundParameters)
        self._forget()

    def _forget(self) -> None:
        """Forget the camera and the classes."""
        self._calibration: _Calibration | None = None
        topic = self.resolve_topic_name("camera_info")
        self._no_camera = f"no camera_info has arrived on {topic} (fuse_node's diagnostics say why)"
        self._rays: tuple[CameraModel, Array] | None = None
        self._table: Roles | None = None
        self._label_problem = self._told_roles = ""
        self._blindness = ""
        self._projection: tuple[CameraPose, GroundProjection] | None = None

    def configure(self, values: GroundParameters) -> None:
        """Listen to TF and advertise.

        Raises:
            MagicFuseError: if TF is requested and tf2_ros is not installed.
        """
        source = TfPose(self, values.base_frame) if values.use_tf else FixedPose(values)
        self._values, self._pose_source = values, source
        self._points = self._advertise(PointCloud2, "~/points")
        self._scan = self._advertise(LaserScan, "~/scan")
        self._outputs = [self._points, self._scan]

    def _advertise(self, message_type: Any, name: str) -> Publisher:
        topic = self.resolve_topic_name(name)
        with checked_overrides(topic):
            # Reliable, because large clouds would get lost otherwise; few, because they are large.
            profile = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
            return self.create_lifecycle_publisher(
                message_type, topic, profile, qos_overriding_options=OVERRIDABLE
            )

    def activate(self) -> None:
        """Subscribe."""
        camera_info, label_info, mask = map(
            self.resolve_topic_name, ("camera_info", "label_info", "mask")
        )
        self.subscribe(CameraInfo, camera_info, self._on_camera_info, newest)
        self.subscribe(LABEL_TYPE, label_info, self._on_labels, latched)
        lost = LostMessages()

        def count_and_take(message: Image, info: Mapping[str, Any]) -> None:
            self._diagnostics.counts["lost"] += lost.before(info)
            self._on_mask(message)

        take = count_and_take if SUPPORTED else self._on_mask
        self.subscribe(Image, mask, take, newest)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # ROS time may stand still
        work = self.guard.wrapped("waiting masks", self._work)
        self._retry = self.create_timer(_RETRY_S, work, clock=steady)
        self._retry.cancel()  # until a mask waits
        self.get_logger().info(f"waiting for masks on {mask}")

    def stop(self) -> None:
        """Forget the received messages."""
        if self._retry is not None:
            self.destroy_timer(self._retry)
            self._retry = None
        while self._waiting:
            self._waiting.popleft()
            self._refuse("the node was deactivated while the mask waited for its transform")
        self._forget()

    def release(self) -> None:
        """Stop listening to TF and remove the topics."""
        source, publishers = self._pose_source, self._outputs
        self._values, self._pose_source, self._outputs = None, None, []
        if source is not None:
            source.close()
        for publisher in publishers:
            self.destroy_lifecycle_publisher(publisher)

    def _on_camera_info(self, info: CameraInfo) -> None:
        assert self._values is not None
        try:
            camera = CameraModel.from_camera_info(
                info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p,
                rectified=self._values.rectified,
                window=Window(
                    info.roi.x_offset, info.roi.y_offset, info.roi.height, info.roi.width,
                    info.binning_x, info.binning_y,
                ),
            )  # fmt: skip
        except CalibrationError as error:
            self._calibration, self._no_camera = None, str(error)
            return
        size = f"{camera.width}x{camera.height}"
        if (camera.height, camera.width) != (info.height, info.width):
            size += f" ({info.width}x{info.height} after region of interest and binning)"
        self._calibration = _Calibration(camera, size)

    def _on_labels(self, message: object) -> None:
        assert self._values is not None
        try:
            names = class_names(message)
        except FrameError as error:
            self._label_problem = one_line(f"label_info refused: {error}")
            self.warn_once(self._label_problem)
            return
        ground, passable = self._values.ground_classes, self._values.passable_classes
        self._label_problem = ""
        there = ", ".join(names.values())
        if not set(ground) & set(names.values()):
            self._label_problem = one_line(
                f"no ground class: ground_classes are {', '.join(ground)}; label_info has {there}"
            )
        elif unknown := [
            name
            for key, chosen in (("ground_classes", ground), ("passable_classes", passable))
            for name in chosen
            if name not in names.values() and chosen != GroundParameters.model_fields[key].default
        ]:
            self._label_problem = one_line(
                f"unknown classes in ground_classes or passable_classes: {', '.join(unknown)}; "
                f"label_info has {there}"
            )
        self._table = roles(names, ground, passable)
        blocking = [name for name in names.values() if name not in (*ground, *passable)]
        line = one_line(f"ground: {', '.join(ground)}; blocking: {', '.join(blocking)}")
        if line != self._told_roles:  # some nodes send label_info with every mask
            self.get_logger().info(line)
        self._told_roles = line

    def _on_mask(self, message: Image) -> None:
        assert self._values is not None
        self._diagnostics.received()
        self._waiting.append((message, self._calibration, monotonic(), self._ros_time()))
        self._work()

    def _work(self) -> None:
        """Process the masks in order, and retry later those that have to wait."""
        assert self._retry is not None
        try:
            self._take_masks()
        finally:
            if self._waiting:
                self._retry.reset()
            else:
                self._retry.cancel()

    def _take_masks(self) -> None:
        """Process the masks up to the first one whose transform is still missing."""
        while self._waiting:
            message, calibration, *since = self._waiting[0]
            try:
                self._process(message, calibration or self._calibration)
            except TransformMissingError as error:
                if not self._has_waited(*since) and len(self._waiting) <= _MOST_WAITING:
                    break
                self._refuse(describe(error))
            except (FrameError, CalibrationError) as error:
                self._refuse(describe(error))
            except BaseException:  # a bug costs this mask; the guard reports it
                self._diagnostics.counts["failed"] += 1
                self._waiting.popleft()
                raise
            self._waiting.popleft()

    def _has_waited(self, since_s: float, ros_since_s: float) -> bool:
        """Return whether a mask has waited long enough: a slow simulation also sends TF slowly."""
        assert self._values is not None
        real_s, ros_s = monotonic() - since_s, self._ros_time() - ros_since_s
        waited_s = real_s if ros_s < 0 else min(real_s, ros_s)  # below 0: the clock was set back
        return waited_s >= self._values.transform_timeout or real_s >= _LONGEST_WAIT_S

    def _ros_time(self) -> float:
        return float(1e-9 * self.get_clock().now().nanoseconds)

    def _refuse(self, reason: str) -> None:
        if self._diagnostics.refused(reason):
            self.get_logger().warning(f"mask refused (logged once): {reason}")

    def _process(self, message: Image, calibration: _Calibration | None) -> None:
        cloud_wanted, scan_wanted = (p.get_subscription_count() > 0 for p in self._outputs)
        if not cloud_wanted and not scan_wanted:
            self._diagnostics.counts["idle"] += 1
            return
        began = perf_counter()
        if self._table is None:
            raise FrameError(
                f"no label_info has arrived on {self.resolve_topic_name('label_info')}"
            )
        mask = decode_mask(
            message.encoding, message.height, message.width, message.step, message.data
        )
        projection = self._projection_for(message.header, mask.shape, calibration)
        self._blindness = self._blind(projection, message.header.frame_id)
        seen = projection.find(mask, self._table)
        if cloud_wanted:
            self._points.publish(cloud_message(projection.cloud(seen), message.header))
        if scan_wanted:
            assert self._values is not None
            header = Header(stamp=message.header.stamp, frame_id=self._values.base_frame)
            self._scan.publish(scan_message(projection.scan(seen), header))
        self._diagnostics.published(1000.0 * (perf_counter() - began))

    def _projection_for(
        self, header: Header, shape: tuple[int, ...], calibration: _Calibration | None
    ) -> GroundProjection:
        assert self._values is not None and self._pose_source is not None
        if calibration is None:
            raise CalibrationError(self._no_camera)
        camera, size = calibration
        if shape != (camera.height, camera.width):  # before computing rays for any size
            raise FrameError(f"mask is {shape[1]}x{shape[0]}; expected the camera_info's {size}")
        pose = self._pose_source.pose(header)
        if self._rays is None or self._rays[0] != camera:
            self._rays, self._projection = (camera, camera.rays()), None
        if self._projection is None or not self._projection[0].is_close(pose):
            self._projection = pose, GroundProjection(
                self._rays[1], pose,
                max_range=self._values.max_range, increment=self._values.scan_increment,
            )  # fmt: skip
        return self._projection[1]

    def _blind(self, projection: GroundProjection, frame: str) -> str:
        """Return why the camera sees no ground, and what to check; empty if it sees some."""
        assert self._values is not None
        if not (why := projection.blindness()):
            return ""
        if self._values.use_tf:
            return f"{why}; is '{frame}' an optical frame (z forward, x right, y down)?"
        return f"{why}; camera_pitch is positive if it looks down"

    def diagnosis(self) -> Diagnosis:
        """Return the pose, the counts and the problems."""
        settings: dict[str, str] = {}
        if (values := self._values) is not None:
            settings = {"base_frame": values.base_frame, "pose": "TF" if values.use_tf else "fixed"}
        if self._projection is not None:
            x, y, z = self._projection[0].position
            settings["camera_position"] = f"{x:.3f} {y:.3f} {z:.3f}"
            if seen := self._projection[1].ground_range():
                settings["ground_nearest_m"], settings["ground_farthest_m"] = map(
                    "{:.2f}".format, seen
                )
        settings["waiting"] = str(len(self._waiting))
        problems = [self.clock_complaint(), *self.topic_complaints(), self._label_problem]
        problems.append(self._blindness)
        problems = [problem for problem in problems if problem]
        self.log_problems(problems)
        return self._diagnostics.diagnosis(settings, problems)


def cloud_message(cloud: npt.NDArray[np.void], header: Header) -> PointCloud2:
    """Return a cloud [H, W] of dtype `CLOUD` as an organised PointCloud2."""
    rows, columns = cloud.shape
    message = PointCloud2(
        header=header,
        height=rows,
        width=columns,
        fields=_FIELDS,
        is_bigendian=False,
        point_step=CLOUD.itemsize,
        row_step=CLOUD.itemsize * columns,
        is_dense=False,
    )
    # Assigning to `data` would check or copy it byte by byte, so fill the new message's own array.
    message.data.frombytes(cloud.reshape(-1).view(np.uint8))
    return message


def scan_message(scan: Scan, header: Header) -> LaserScan:
    """Return a scan as a message; all beams have the image's time."""
    message = LaserScan(
        header=header,
        angle_min=scan.angle_min,
        angle_max=scan.angle_max,
        angle_increment=scan.angle_increment,
        range_min=0.0,
        range_max=scan.range_max,
    )
    message.ranges.frombytes(scan.ranges.view(np.uint8))
    return message


def main() -> None:
    """Run the node; the entry point of the executable `ground_cloud_node`."""
    sys.exit(run(GroundCloudNode, serve))


if __name__ == "__main__":
    main()
