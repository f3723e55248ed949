"""The one thread of `fuse_node` that decodes, fuses and publishes."""

from __future__ import annotations

from concurrent.futures import Executor
from time import monotonic

from builtin_interfaces.msg import Time
from rclpy.clock import Clock
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from magicfuse_ros.deadline import DeadlineControl
from magicfuse_ros.errors import FrameError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.input_checks import InputChecks
from magicfuse_ros.ros.debug_topics import DebugTopics
from magicfuse_ros.ros.images import Pixels, to_rgb
from magicfuse_ros.ros.mailbox import Mailbox
from magicfuse_ros.ros.publishers import Publishers
from magicfuse_ros.ros.statistics import Statistics

_WARN_EVERY_S = 5.0
# A camera's images may overtake each other by less than this; an older one is of a new beginning,
# such as a bag that starts again.
_OUT_OF_ORDER_NS = 500_000_000
_OTHER_CLOCK_S = 3600.0  # an age beyond it says nothing of the image
RELOAD_AFTER = 5  # images lost in a row: a defect that stays
_RELOAD_EVERY_S = 10.0


class Worker:
    """Takes the newest camera message, never an older one; survives every message.

    Attributes:
        camera_info: the camera's latest, or None.
        statistics: counts since the start.
        checks: what the images look like.
        failure: why no image comes through any more; empty once one does.
    """

    def __init__(
        self,
        fuser: Fuser,
        publishers: Publishers,
        debug: DebugTopics,
        control: DeadlineControl,
        clock: Clock,
        logger: RcutilsLogger,
        thread: Executor,
    ) -> None:
        """Start.

        Args:
            fuser: fuses the images.
            publishers: of the results.
            debug: of the figures of every frame.
            control: chooses the plan of each frame.
            clock: that of the stamps.
            logger: of the node.
            thread: runs the work. One that outlives the worker, as memory that is free again stays
                with the thread that had it.
        """
        self.camera_info: CameraInfo | None = None
        self.statistics = Statistics(monotonic())
        self.checks = InputChecks()
        self.failure = ""
        self._fuser = fuser
        self._publishers = publishers
        self._debug = debug
        self._control = control
        self._clock = clock
        self._logger = logger
        self._newest_ns = 0
        self._lost_in_a_row = 0
        self._next_reload = 0.0
        self._mailbox: Mailbox[Image | CompressedImage] = Mailbox()
        self._end = thread.submit(self._work)

    def offer(self, message: Image | CompressedImage) -> None:
        """Hand over a camera message; returns at once."""
        now = monotonic()
        self.statistics.received(now)
        replaced_due = self._mailbox.put(message, self._control.due(now))
        if replaced_due is not None:
            in_time = replaced_due <= now
            self.statistics.dropped(
                "replaced by a newer image" if in_time else "skipped for the deadline"
            )

    def stop(self) -> None:
        """Finish the frame in work, and leave the thread."""
        self._mailbox.close()
        self._end.result()

    def _work(self) -> None:
        while (message := self._mailbox.get()) is not None:
            try:
                self._process(message)
            except FrameError as error:
                self.statistics.refused(str(error))
                self._logger.warning(f"image refused: {error}", throttle_duration_sec=_WARN_EVERY_S)
            except Exception as error:  # a defect costs this frame, not the node
                self._lose(f"{type(error).__name__}: {error}")

    def _lose(self, reason: str) -> None:
        self._lost_in_a_row += 1
        stays = self._lost_in_a_row >= RELOAD_AFTER
        if stays:
            self.failure = f"{self._lost_in_a_row} images in a row were lost: {reason}"
        self.statistics.count("failed")
        self._logger.error(f"image lost: {reason}", throttle_duration_sec=_WARN_EVERY_S)
        if stays and monotonic() >= self._next_reload:
            self._next_reload = monotonic() + _RELOAD_EVERY_S
            self._reload()

    def _reload(self) -> None:
        try:
            self._fuser.reload()
        except Exception as error:  # the next lost image leads here again
            self._logger.error(f"the networks cannot be loaded anew: {error}")
        else:
            self.statistics.count("reloads")
            self._logger.warning(f"{self.failure}; the networks were loaded anew")

    def _process(self, message: Image | CompressedImage) -> None:
        start = monotonic()
        stamp_ns = _nanoseconds(message.header.stamp)
        if stamp_ns > 0 and 0 <= self._newest_ns - stamp_ns < _OUT_OF_ORDER_NS:
            raise FrameError("stamp is not newer than the last image's")
        image = to_rgb(message)
        try:
            self._fuse(image, message.header, stamp_ns, start)
        finally:
            self.checks.add(image, start)  # last: no result waits for them

    def _fuse(self, image: Pixels, header: Header, stamp_ns: int, start: float) -> None:
        wanted = self._publishers.wanted()
        restored = [topic for topic in wanted if topic.needs == {"restored"}]
        plan = self._control.plan(bool(restored))
        topics = restored if plan.mode == "restore" else wanted
        if not topics:
            self.statistics.idle()
            return
        outputs = frozenset().union(*(topic.needs for topic in topics))
        self._fuser.steps = plan.steps
        frame = self._fuser(image, outputs)
        self._publishers.publish(frame, topics, header, self.camera_info)
        now, age_s = monotonic(), self._age(stamp_ns)
        self._newest_ns = stamp_ns if stamp_ns > 0 else self._newest_ns
        self.failure, self._lost_in_a_row = "", 0
        self._control.done(plan, now - start, frame.stages_ms)
        self.statistics.fused(now, age_s, frame.steps, frame.stages_ms)
        self._debug.publish(age_s, now - start, frame.steps, frame.stages_ms)

    def _age(self, stamp_ns: int) -> float | None:
        """Return seconds since the stamp; None where it is not valid, or of another clock."""
        if stamp_ns <= 0:
            return None
        age_s = (self._clock.now().nanoseconds - stamp_ns) * 1e-9
        return age_s if abs(age_s) < _OTHER_CLOCK_S else None


def _nanoseconds(stamp: Time) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
