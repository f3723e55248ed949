"""The lifecycle node: a segmentation mask in, a ground point cloud and a scan of what blocks out.

configure   check the parameters; listen to TF; advertise
activate    subscribe
deactivate  unsubscribe
cleanup     take the topics back

The points lie in the frame of the camera, pixel for pixel like the mask, as Nav2's semantic
segmentation layer wants them; the scan lies in `base_frame`. Rays and ground points are computed
when the calibration or the pose changes; a mask costs few milliseconds (see the README).
"""

from __future__ import annotations

import sys
from time import perf_counter

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from magicfuse_ros.camera_model import Array, CameraModel
from magicfuse_ros.errors import CalibrationError, FrameError
from magicfuse_ros.ground import CLOUD, CameraPose, GroundProjection, Roles, Scan, roles
from magicfuse_ros.image_codec import decode_mask
from magicfuse_ros.parameters import GroundParameters
from magicfuse_ros.ros.camera_pose import FixedPose, PoseSource, TfPose
from magicfuse_ros.ros.ground_diagnostics import GroundDiagnostics
from magicfuse_ros.ros.labels import LABEL_TYPE, class_names
from magicfuse_ros.ros.managed_node import ManagedNode
from magicfuse_ros.ros.process import run, spin
from magicfuse_ros.ros.qos import latched

# Reliable, or large clouds get lost; few, as they are large.
_RESULTS = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_CAMERA = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # suits every camera
_TYPES = {"<f4": PointField.FLOAT32, "<u4": PointField.UINT32}
_FIELDS = [
    PointField(name=name, offset=offset, datatype=_TYPES[dtype.str], count=1)
    for name, (dtype, offset, *_) in (CLOUD.fields or {}).items()
]


class GroundCloudNode(ManagedNode[GroundParameters]):
    """See the README for its topics and parameters."""

    def __init__(self) -> None:
        self._values: GroundParameters | None = None
        self._pose_source: PoseSource | None = None
        self._publishers: list[Publisher] = []
        self._inputs: list[Subscription] = []
        super().__init__("ground_cloud_node", GroundParameters)
        self._forget()
        self._diagnostics = GroundDiagnostics(self.get_fully_qualified_name())

    def _forget(self) -> None:
        """Know nothing of the camera and the classes."""
        self._camera: CameraModel | None = None
        self._no_camera = f"no camera_info has come on {self.resolve_topic_name('camera_info')}"
        self._rays: Array | None = None
        self._table: Roles | None = None
        self._projection: tuple[CameraPose, GroundProjection] | None = None

    def configure(self, values: GroundParameters) -> None:
        """Listen to TF and advertise.

        Raises:
            MagicFuseError: if TF is asked for and tf2_ros is not installed.
        """
        source = TfPose(self, values.base_frame) if values.use_tf else FixedPose(values)
        self._values, self._pose_source = values, source
        self._points = self.create_lifecycle_publisher(PointCloud2, "~/points", _RESULTS)
        self._scan = self.create_lifecycle_publisher(LaserScan, "~/scan", _RESULTS)
        self._publishers = [self._points, self._scan]

    def activate(self) -> None:
        """Subscribe."""
        subscribe = self.create_subscription
        self._inputs = [
            subscribe(CameraInfo, "camera_info", self._on_camera_info, _CAMERA),
            subscribe(LABEL_TYPE, "label_info", self._on_labels, latched()),
            subscribe(Image, "mask", self._on_mask, _NEWEST),
        ]
        self.get_logger().info(f"waiting for masks on {self.resolve_topic_name('mask')}")

    def stop(self) -> None:
        """Unsubscribe, and forget what came."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._forget()

    def release(self) -> None:
        """Stop, listen to TF no more, and take the topics back."""
        self.stop()
        if self._pose_source is not None:
            self._pose_source.close()
        for publisher in self._publishers:
            self.destroy_lifecycle_publisher(publisher)
        self._publishers = []
        self._values = self._pose_source = None

    def _on_camera_info(self, info: CameraInfo) -> None:
        assert self._values is not None
        try:
            camera = CameraModel.from_camera_info(
                info.height, info.width, info.distortion_model, info.d, info.k, info.r, info.p,
                rectified=self._values.rectified,
            )  # fmt: skip
        except CalibrationError as error:
            self._camera, self._no_camera = None, str(error)
            return
        if camera != self._camera:
            self._camera, self._rays, self._projection = camera, None, None

    def _on_labels(self, message: object) -> None:
        assert self._values is not None
        logger = self.get_logger()
        try:
            names = class_names(message)
        except FrameError as error:
            logger.warning(f"label_info refused: {error}")
            return
        ground, passable = self._values.ground_classes, self._values.passable_classes
        if not set(ground) & set(names.values()):
            logger.warning(
                f"no ground class: label_info has {', '.join(names.values())}; ground_classes are "
                f"{', '.join(ground)}"
            )
        self._table = roles(names, ground, passable)
        blocking = [name for name in names.values() if name not in (*ground, *passable)]
        logger.info(f"ground: {', '.join(ground)}; blocking: {', '.join(blocking)}")

    def _on_mask(self, message: Image) -> None:
        self._diagnostics.received()
        try:
            self._process(message)
        except (FrameError, CalibrationError) as error:
            if self._diagnostics.refused(str(error)):
                self.get_logger().warning(f"mask refused, told once: {error}")
        except Exception as error:  # a defect costs this mask, not the node
            self._diagnostics.counts["failed"] += 1
            self.get_logger().error(
                f"mask lost: {type(error).__name__}: {error}", throttle_duration_sec=5.0
            )

    def _process(self, message: Image) -> None:
        cloud_wanted, scan_wanted = (p.get_subscription_count() > 0 for p in self._publishers)
        if not cloud_wanted and not scan_wanted:
            self._diagnostics.counts["idle"] += 1
            return
        began = perf_counter()
        if self._table is None:
            raise FrameError(f"no label_info has come on {self.resolve_topic_name('label_info')}")
        mask = decode_mask(
            message.encoding, message.height, message.width, message.step, message.data
        )
        projection = self._projection_for(message.header)
        seen = projection.find(mask, self._table)
        if cloud_wanted:
            self._points.publish(cloud_message(projection.cloud(seen), message.header))
        if scan_wanted:
            assert self._values is not None
            header = Header(stamp=message.header.stamp, frame_id=self._values.base_frame)
            self._scan.publish(scan_message(projection.scan(seen), header))
        self._diagnostics.published(1000.0 * (perf_counter() - began))

    def _projection_for(self, header: Header) -> GroundProjection:
        assert self._values is not None and self._pose_source is not None
        if self._camera is None:
            raise CalibrationError(self._no_camera)
        pose = self._pose_source.pose(header)
        if self._rays is None:
            self._rays = self._camera.rays()
        if self._projection is None or self._projection[0] != pose:
            self._projection = pose, GroundProjection(
                self._rays, pose,
                max_range=self._values.max_range, increment=self._values.scan_increment,
            )  # fmt: skip
        return self._projection[1]

    def diagnosis(self, stamp: Time) -> DiagnosticArray:
        """Return the state, the pose, counts and what is wrong."""
        settings: dict[str, str] = {}
        if (values := self._values) is not None:
            settings = {"base_frame": values.base_frame, "pose": "TF" if values.use_tf else "fixed"}
        if self._projection is not None:
            x, y, z = self._projection[0].position
            settings["camera_position"] = f"{x:.3f} {y:.3f} {z:.3f}"
        return self._diagnostics.message(self.state, self.failure, settings, stamp)


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
    # Assigning to `data` would check or copy byte by byte; the empty array of a new message grows.
    message.data.frombytes(cloud.reshape(-1).view(np.uint8))
    return message


def scan_message(scan: Scan, header: Header) -> LaserScan:
    """Return a scan as a message; all beams have the time of the image."""
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
    sys.exit(run(GroundCloudNode, spin))


if __name__ == "__main__":
    main()
