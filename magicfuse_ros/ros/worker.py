"""The one thread of `fuse_node` that decodes, fuses and publishes."""

from __future__ import annotations

import threading
from time import monotonic

from rclpy.clock import Clock
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from magicfuse_ros.errors import FrameError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.parameters import Mode
from magicfuse_ros.ros.images import to_rgb
from magicfuse_ros.ros.mailbox import Mailbox
from magicfuse_ros.ros.publishers import Publishers
from magicfuse_ros.ros.statistics import Statistics

_WARN_EVERY_S = 5.0


class Worker:
    """Takes the newest camera message, never an older one; survives every message.

    Attributes:
        mode: `fuse` or `restore`; may change at any time.
        camera_info: the camera's latest, or None.
        statistics: counts since the start.
    """

    def __init__(
        self, fuser: Fuser, publishers: Publishers, mode: Mode, clock: Clock, logger: RcutilsLogger
    ) -> None:
        self.mode: Mode = mode
        self.camera_info: CameraInfo | None = None
        self.statistics = Statistics(monotonic())
        self._fuser = fuser
        self._publishers = publishers
        self._clock = clock
        self._logger = logger
        self._mailbox: Mailbox[Image | CompressedImage] = Mailbox()
        self._thread = threading.Thread(target=self._work, name="fuse")
        self._thread.start()

    def offer(self, message: Image | CompressedImage) -> None:
        """Hand over a camera message; returns at once."""
        self.statistics.received(monotonic())
        if self._mailbox.put(message):
            self.statistics.count("dropped")

    def stop(self) -> None:
        """Finish the frame in work and end the thread."""
        self._mailbox.close()
        self._thread.join()

    def _work(self) -> None:
        while (message := self._mailbox.get()) is not None:
            try:
                self._process(message)
            except FrameError as error:
                self.statistics.refused(str(error))
                self._logger.warning(f"image refused: {error}", throttle_duration_sec=_WARN_EVERY_S)
            except Exception as error:  # a defect costs this frame, not the node
                self.statistics.count("failed")
                self._logger.error(
                    f"image lost: {type(error).__name__}: {error}",
                    throttle_duration_sec=_WARN_EVERY_S,
                )

    def _process(self, message: Image | CompressedImage) -> None:
        image = to_rgb(message)
        topics = self._publishers.wanted(self.mode)
        if not topics:
            self.statistics.count("idle")
            return
        outputs = frozenset().union(*(topic.needs for topic in topics))
        frame = self._fuser(image, outputs)
        self._publishers.publish(frame, topics, message.header, self.camera_info)
        self.statistics.fused(monotonic(), self._age(message.header), frame.steps, frame.stages_ms)

    def _age(self, header: Header) -> float | None:
        stamp = Time.from_msg(header.stamp, clock_type=self._clock.clock_type)
        if stamp.nanoseconds == 0:
            return None
        return float((self._clock.now() - stamp).nanoseconds) * 1e-9
