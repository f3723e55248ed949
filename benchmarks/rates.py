# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Tests a camera below and above the fuser's rate: lost images, and the age of the results.

python benchmarks/rates.py [--frames 3000] [--json FILE]

One `fuse_node` gets 640x480 bgr8 images; MagImg and mask are subscribed to. The cost of a frame is
measured first, with one image at a time. The rates follow from it.

    below   at 0.6 frames per cost, nothing may be lost: every image must be published
    above   at 2 images per cost, the newest image must be fused, and the age (camera stamp to
            publication, ~/debug/age_ms) must be under 2 fuser times (~/debug/stage_ms/total) at p95

The node tells when it started a frame: stamp + age - cost. If the next image was already sent and
had arrived by then, the frame was not the newest. `under way`, measured below the fuser's rate, is
the time from an image's stamp to its start while nothing waits. Above that rate, no newer image may
have been out for longer than the maximum of these times.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import bench_rig as rig
import numpy as np
import typer
from sensor_msgs.msg import Image
from std_msgs.msg import Float32

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.playback.children import Process
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.session import Session

NODE, CAMERA = "/rates/fuse_node", "/rates/image_raw"
FIGURES = ("age_ms", "cost_ms", "stage_ms/total")
SIZE = (480, 640)
BELOW, ABOVE = 0.6, 2.0  # images per cost of a frame
MOST_FUSER_TIMES = 2.0
ALONE, WARM_UP = 40, 10  # frames
LAST_S = 30.0


@dataclass(frozen=True)
class Frames:
    """The measurements of one phase; the arrays have one entry per fused frame.

    Attributes:
        sent: stamps of all images, seconds, rising.
        stamps: stamps of the fused images, seconds.
        age_ms: stamp to publication.
        cost_ms: from taking the message to publication.
        fuser_ms: the fuser's part of it.
    """

    sent: np.ndarray
    stamps: np.ndarray
    age_ms: np.ndarray
    cost_ms: np.ndarray
    fuser_ms: np.ndarray

    def waited_ms(self) -> np.ndarray:
        """Return the time from each fused image's stamp to its start."""
        return np.asarray(self.age_ms - self.cost_ms)

    def outdated_ms(self) -> np.ndarray:
        """Return how long a newer image had been out at each start, 0 if there was none."""
        following = np.searchsorted(self.sent, self.stamps, side="right")
        newer = np.append(self.sent, np.inf)[following]
        return np.asarray(np.maximum(self.waited_ms() - 1e3 * (newer - self.stamps), 0.0))


class Camera:
    """Sends images and receives the results."""

    def __init__(self, session: Session, process: Process) -> None:
        """Wait until the node subscribes.

        Raises:
            MagicFuseError: if it does not come up.
        """
        self._session = session
        self._image = rig.camera_image(*SIZE)
        self._stamps: list[int] = []
        self._figures: dict[str, list[float]] = {name: [] for name in FIGURES}
        node = session.node
        self._publisher = node.create_publisher(Image, CAMERA, qos.images())
        node.create_subscription(Image, f"{NODE}/mag_image", self._note, rig.DEEP, raw=True)
        node.create_subscription(
            Image, f"{NODE}/segmentation/mask", lambda _: None, rig.DEEP, raw=True
        )
        for name, values in self._figures.items():
            self._subscribe(name, values)
        listens = self._publisher.get_subscription_count
        rig.wait_until(lambda: listens() > 0, session, [process], "the node did not become active")

    def _subscribe(self, name: str, values: list[float]) -> None:
        self._session.node.create_subscription(
            Float32, f"{NODE}/debug/{name}", lambda message: values.append(message.data), rig.DEEP
        )

    def _note(self, message: bytes) -> None:
        self._stamps.append(rig.stamp_of(message))

    def play(self, frames: int, rate: float | None) -> Frames:
        """Send images at a rate, or each after the previous result, and wait for the results.

        Raises:
            MagicFuseError: if a frame lacks a measurement.
        """
        self._stamps.clear()
        for values in self._figures.values():
            values.clear()
        sent: list[int] = []
        due = monotonic()
        for _ in range(frames):
            sent.append(rig.stamp(self._image))
            self._publisher.publish(self._image)
            if rate is None:
                self._wait_for(sent[-1])
            else:
                due = max(due + 1 / rate, monotonic() + 0.002)
                self._session.spin_until(lambda: False, due - monotonic())
        self._wait_for(sent[-1])
        figures = [np.array(self._figures[name]) for name in FIGURES]
        if any(len(found) != len(self._stamps) for found in figures):
            raise MagicFuseError("figures of some frames did not arrive")
        stamps = [np.array(times) / 1e9 for times in (sent, self._stamps)]
        return Frames(*stamps, *figures)

    def _wait_for(self, last: int) -> None:
        """Wait for the result of the image with this stamp; the last image is never skipped."""

        def there() -> bool:
            counts = {len(self._stamps), *(len(values) for values in self._figures.values())}
            return bool(self._stamps) and self._stamps[-1] == last and len(counts) == 1

        self._session.spin_until(there, LAST_S)


def judge(
    alone: Frames, below: Frames, above: Frames, rates: tuple[float, float]
) -> dict[str, Any]:
    """Return the results and whether the limits were kept."""
    under_way = float(below.waited_ms().max())
    fuser = float(np.median(above.fuser_ms))
    age = rig.quantiles(above.age_ms)
    outdated = above.outdated_ms()
    old = int((outdated > under_way).sum())
    checks = {
        "nothing lost below": len(below.stamps) == len(below.sent),
        "the newest is fused above": old == 0,
        "age above": age["p95"] < MOST_FUSER_TIMES * fuser,
    }
    return {
        "passed": all(checks.values()),
        "checks": checks,
        "alone": {"frames": len(alone.stamps), "fuser_ms": rig.quantiles(alone.fuser_ms)},
        "below": {
            "rate": rates[0],
            **_phase(below),
            "lost": len(below.sent) - len(below.stamps),
            "under_way_ms": {**rig.quantiles(below.waited_ms()), "max": round(under_way, 2)},
        },
        "above": {
            "rate": rates[1],
            **_phase(above),
            "age_in_fuser_times": round(age["p95"] / fuser, 2),
            "not_the_newest": old,
            "outdated_ms_max": round(float(outdated.max()), 2),
        },
    }


def _phase(frames: Frames) -> dict[str, Any]:
    return {
        "sent": len(frames.sent),
        "fused": len(frames.stamps),
        "fuser_ms": rig.quantiles(frames.fuser_ms),
        "age_ms": rig.quantiles(frames.age_ms),
    }


def rates(
    frames: Annotated[int, typer.Option(min=30, help="Below; above, twice as many.")] = 3000,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="File for the figures.")] = None,
) -> None:
    """Measure and print the results; exit with 1 if a limit was exceeded."""
    out = rig.output_folder(rig.ROOT / "out" / "rates")
    used = rig.load(bundle)
    node = rig.fuse_node(NODE, CAMERA, {"bundle": str(used.root)}, out)
    with rig.errors_in_one_line(out), node as process, Session("rates") as session:
        camera = Camera(session, process)
        camera.play(WARM_UP, None)
        alone = camera.play(ALONE, None)
        cost_s = float(np.median(alone.cost_ms)) / 1e3
        low, high = round(BELOW / cost_s, 1), round(ABOVE / cost_s, 1)
        print(f"a frame costs {1e3 * cost_s:.1f} ms: {low} and {high} images a second")
        below = camera.play(frames, low)
        above = camera.play(2 * frames, high)
    result = {**rig.head(used), **judge(alone, below, above, (low, high))}
    print(rig.write(result, file), end="")
    if not result["passed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(rates)
