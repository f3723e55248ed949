# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The thread of `fuse_node` that decodes, fuses and publishes."""

from __future__ import annotations

from concurrent.futures import Executor, wait
from math import inf
from time import monotonic, sleep, thread_time

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from magicfuse_ros.deadline import DeadlineControl
from magicfuse_ros.errors import DeviceLostError, FrameError
from magicfuse_ros.fuser import Fuser, Output
from magicfuse_ros.image_codec import BitDepth, Pixels, decode_message
from magicfuse_ros.input_checks import InputChecks
from magicfuse_ros.ros.camera_infos import CameraInfos
from magicfuse_ros.ros.debug_topics import DebugTopics
from magicfuse_ros.ros.guard import Guard, describe
from magicfuse_ros.ros.mailbox import Mailbox
from magicfuse_ros.ros.publishers import Publishers
from magicfuse_ros.ros.sequence import Sequence
from magicfuse_ros.ros.statistics import OTHER_CLOCK_S, Statistics
from magicfuse_ros.turns import Seat, Turns

_WARN_EVERY_S = 5.0
_LONGEST_REST_S = 0.02  # the thread also serves parameters and lifecycle
RELOAD_AFTER = 5  # images lost in a row before a defect counts as permanent
# Seconds that one image, or a reload after it, may take. Nothing else ends a call into a library
# that hangs, and it would keep the turn of all cameras.
HANG_S = 120
_RELOAD_AGAIN_S = (10.0, 320.0)  # pauses between reloads that do not help: doubled up to the last


class Worker:
    """Takes the newest camera message, never an older one; no message can end it.

    Attributes:
        infos: stores the camera's camera_info.
        statistics: counts since the start.
        checks: measures of the images' quality.
        depth: how many bits the camera's 16-bit images use.
        failure: why no image is fused any more; empty once one is.
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
        depth: BitDepth | None = None,
        guard: Guard | None = None,
        seat: Seat | None = None,
    ) -> None:
        """Start.

        Args:
            fuser: fuses the images.
            publishers: publish the results.
            debug: publishes the figures of every frame.
            control: chooses the plan of each frame.
            clock: clock of the stamps.
            logger: the node's logger.
            thread: runs the work. It outlives the worker, because freed memory stays with the
                thread that used it.
            depth: how many bits the camera's 16-bit images use; None: found from the images.
            guard: told if the GPU is lost, which ends the work; None tells nobody.
            seat: the place among the cameras that share the networks; None: there are no others.
        """
        self.infos = CameraInfos()
        self.statistics = Statistics(monotonic())
        self.checks = InputChecks()
        self.depth = depth or BitDepth()
        self.failure = ""
        self._fuser = fuser
        self._publishers = publishers
        self._debug = debug
        self._control = control
        self._clock = clock
        self._logger = logger
        self._guard = guard or Guard(lambda: logger)
        self._seat = seat or Turns().seat()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._cpu: float | None = None  # seconds of the thread that calls `offer`
        self._arrivals = Sequence()
        self._sequence = 0
        self._newest_ns = 0  # stamp of the latest result of the sequence
        self._lost_in_a_row = 0
        self._next_reload = -inf
        self._reload_again_s = _RELOAD_AGAIN_S[0]
        self._begun = 0  # images taken
        self._busy = False  # with one of them
        self._watched = (0, 0)  # an image, and how often `watch` has seen it
        self._mailbox: Mailbox[tuple[Image | CompressedImage, int, float]] = Mailbox()
        self._end = thread.submit(self._work)

    def offer(self, message: Image | CompressedImage) -> None:
        """Hand over a camera message. One thread calls it, and serves ROS.

        The thread rests a little if the message replaces an unread one while other cameras share
        the networks. On average, receiving then takes at most half of an equal part of a core.
        """
        now, cpu = monotonic(), thread_time()
        # What this thread has spent since the last message, mostly on receiving this one.
        receiving = 0.0 if self._cpu is None else cpu - self._cpu
        self._seat.charge(receiving)
        self._cpu = cpu
        self.statistics.received(now)
        sequence = self._arrivals.number(_nanoseconds(message.header.stamp))
        replaced_due = self._mailbox.put((message, sequence, now), self._control.due(now))
        if replaced_due is not None:
            in_time = replaced_due <= now
            self.statistics.dropped(
                "replaced by a newer image" if in_time else "skipped for the deadline"
            )
            if others := self._seat.share().others:
                sleep(min(receiving * (2 * others + 1), _LONGEST_REST_S))

    def watch(self) -> None:
        """Note, once a second, what the worker is busy with; a hang is reported as a lost device.

        Calls are counted in place of time: a process that was suspended has not hung.
        """
        image, seen = self._watched
        self._watched = (self._begun, seen + 1 if self._busy and image == self._begun else 0)
        if self._watched[1] >= HANG_S:
            self._guard.failed("fusing", _hanging())

    def stop(self) -> None:
        """Finish the current frame and leave the thread. No further call has an effect."""
        if not self._mailbox.closed and self._mailbox.close():
            self.statistics.dropped("the node was deactivated")
        self._seat.wake()
        if not wait([self._end], HANG_S).done:
            self._guard.failed("fusing", _hanging())
            return
        self._end.result()

    def _work(self) -> None:
        while (item := self._mailbox.get(self._wait)) is not None:
            self._begun += 1
            self._busy = True
            try:
                self._process(*item)
            except FrameError as error:
                if self.statistics.refused(str(error)):
                    self._logger.warning(f"image refused: {describe(error)} (logged once)")
            except BaseException as error:  # a bug costs this frame, not the node
                self._lose(describe(error), error)
            finally:
                self._busy = False
                self._seat.leave()
            if self._guard.lost:
                self.failure = describe(self._guard.lost)
                return
        self._seat.leave()  # the mailbox may close just as this camera becomes first in line

    def _wait(self, due: float) -> None:
        deadline_s = self._control.status().deadline_s or 0.0
        self._seat.wait(due + deadline_s, lambda: self._mailbox.closed)

    def _lose(self, reason: str, error: BaseException) -> None:
        if isinstance(error, DeviceLostError):
            self._guard.failed("fusing", error)
        self._lost_in_a_row += 1
        stays = self._lost_in_a_row >= RELOAD_AFTER
        if stays:
            self.failure = f"{self._lost_in_a_row} images in a row were lost: {reason}"
        self.statistics.count("failed")
        self._logger.error(
            f"image lost: {reason}",
            throttle_duration_sec=_WARN_EVERY_S,
            throttle_time_source_type=self._steady,  # the wall clock may be set back
        )
        if stays and not self._guard.lost and monotonic() >= self._next_reload:
            self._next_reload = monotonic() + self._reload_again_s
            self._reload_again_s = min(2 * self._reload_again_s, _RELOAD_AGAIN_S[1])
            self._reload()

    def _reload(self) -> None:
        self._seat.leave()  # a reload may take seconds
        try:
            self._fuser.reload()
        except DeviceLostError as error:
            self._guard.failed("reloading the networks", error)
        except BaseException as error:  # a later lost image causes a retry
            self._logger.error(f"the networks cannot be reloaded: {describe(error)}")
        else:
            self.statistics.count("reloads")
            self._logger.warning(f"{self.failure}; the networks were reloaded")

    def _process(self, message: Image | CompressedImage, sequence: int, arrival: float) -> None:
        start = monotonic()
        stamp_ns = _nanoseconds(message.header.stamp)
        if sequence != self._sequence:
            self._sequence, self._newest_ns = sequence, 0
        if 0 < stamp_ns <= self._newest_ns:
            # Stamps in whole seconds, for example, repeat in different images.
            how = "equal to" if stamp_ns == self._newest_ns else "not newer than"
            raise FrameError(f"stamp is {how} the last image's")
        image = decode_message(message, self.depth)
        try:
            self._fuse(image, message.header, stamp_ns, start, arrival)
        finally:
            # Last, so that no result waits for the checks. A bug in them costs no frame.
            self._guard.run("the check of the input", self.checks.add, image, start)

    def _fuse(
        self, image: Pixels, header: Header, stamp_ns: int, start: float, arrival: float
    ) -> None:
        wanted = self._publishers.wanted()
        restored = [topic for topic in wanted if topic.needs == {"restored"}]
        # Both describe a fused frame, so a frame is fused for them even if nothing else needs it.
        info_wanted = self._publishers.camera_info_wanted()
        beside = info_wanted or self._debug.wanted()
        restore_wanted = bool(restored) or (beside and not wanted)
        plan = self._control.plan(restore_wanted, self._seat.share())
        topics = restored if plan.mode == "restore" else wanted
        outputs: frozenset[Output] = frozenset().union(*(topic.needs for topic in topics))
        if not outputs and beside:
            outputs = frozenset({"restored" if plan.mode == "restore" else "mag_image"})
        if not outputs:
            self.statistics.idle()
            return
        self._fuser.steps = plan.steps
        frame = self._fuser(image, outputs)
        rows, columns = image.shape[:2]
        info = self.infos.find(header, rows, columns) if info_wanted else None
        self._publishers.publish(frame, topics, header, info)
        now, age_s = monotonic(), self._age(stamp_ns)
        cost_s = now - start - 1e-3 * frame.stages_ms.get("waiting", 0.0)
        self._newest_ns = stamp_ns if stamp_ns > 0 else self._newest_ns
        self.failure, self._lost_in_a_row = "", 0
        self._reload_again_s = _RELOAD_AGAIN_S[0]
        self._next_reload = min(self._next_reload, now + self._reload_again_s)
        self._control.done(plan, cost_s, frame.stages_ms)
        known_s = age_s if age_s is not None and 0 <= age_s < OTHER_CLOCK_S else None
        self._debug.publish(known_s, cost_s, frame.steps, frame.stages_ms)
        self.statistics.fused(now, now - arrival, age_s, frame.steps, frame.stages_ms)

    def _age(self, stamp_ns: int) -> float | None:
        """Return seconds since the stamp, below 0 if it is ahead of this node's clock.

        None if it is invalid.
        """
        return (self._clock.now().nanoseconds - stamp_ns) * 1e-9 if stamp_ns > 0 else None


def _hanging() -> DeviceLostError:
    return DeviceLostError(f"an image has taken more than {HANG_S} s: a library or a device hangs")


def _nanoseconds(stamp: Time) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
