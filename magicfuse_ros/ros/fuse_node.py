# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The lifecycle node: a camera's images in, fused images and segmentation out.

configure   load and verify the bundle, build its networks, warm up; advertise
activate    subscribe, start the worker
deactivate  unsubscribe, finish the current frame
cleanup     remove the topics, free the networks
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from magicfuse_ros.image_codec import BitDepth
from magicfuse_ros.parameters import FuseParameters
from magicfuse_ros.ros.autostart import serve
from magicfuse_ros.ros.camera import Camera, camera_info_topic, image_topic
from magicfuse_ros.ros.diagnostics import Diagnosis
from magicfuse_ros.ros.fuse_diagnostics import Activity, FuseDiagnostics
from magicfuse_ros.ros.managed_node import ManagedNode
from magicfuse_ros.ros.pipeline import Pipeline
from magicfuse_ros.ros.process import run
from magicfuse_ros.ros.worker import Worker
from magicfuse_ros.shared_networks import SharedNetworks


class FuseNode(ManagedNode[FuseParameters]):
    """See docs/topics.md for its topics and parameters."""

    def __init__(self, shared: SharedNetworks | None = None, arguments: Sequence[str] = ()) -> None:
        """Start unconfigured.

        Args:
            shared: networks of the cameras in this process; None: there is no other camera.
            arguments: see `ManagedNode`.
        """
        self._shared = shared or SharedNetworks()
        self._pipeline: Pipeline | None = None
        self._worker: Worker | None = None
        self._camera: Camera | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fuse")
        self._diagnostics = FuseDiagnostics()
        others = ("cameras",) if arguments else ()  # of `fuse_cameras`
        super().__init__("fuse_node", "fusion", FuseParameters, arguments, others)

    def configure(self, values: FuseParameters) -> None:
        """Load bundle and networks, and advertise. Errors: see `Pipeline.build`."""
        self._pipeline = Pipeline.build(self, values, self._shared)

    def activate(self) -> None:
        """Start the worker and subscribe.

        Raises:
            MagicFuseError: if a QoS override of a subscription cannot be used.
        """
        pipeline = self._pipeline
        assert pipeline is not None  # the state machine configures first
        pipeline.publishers.publish_labels()
        self._diagnostics = FuseDiagnostics()  # it compares the worker's counts, which start at 0
        self._worker = Worker(
            pipeline.fuser,
            pipeline.publishers,
            pipeline.debug,
            pipeline.control,
            self.get_clock(),
            self.get_logger(),
            self._thread,
            BitDepth(pipeline.values.image_bits),
            self.guard,
            pipeline.networks.seat,
        )
        self._camera = Camera(self, pipeline.values, self._worker)
        self.get_logger().info(f"waiting for images on {image_topic(self, pipeline.values)}")

    def stop(self) -> None:
        """Let the worker finish its frame."""
        self._camera = None
        if self._worker is not None:
            self._worker.stop()

    def release(self) -> None:
        """Remove the topics and free the networks."""
        pipeline, self._pipeline, self._worker = self._pipeline, None, None
        if pipeline is not None:
            pipeline.destroy()

    def apply(self, values: FuseParameters) -> None:
        """Apply the live parameters. Errors: see `Pipeline.apply`."""
        if self._pipeline is not None:
            self._pipeline.apply(values)

    def destroy_node(self) -> None:
        """End the worker before the publishers that it uses."""
        self.guard.run("the end", self.stop)
        self._thread.shutdown()
        super().destroy_node()

    def diagnosis(self) -> Diagnosis:
        """Return the settings, the plan, ages, counts and problems."""
        pipeline, worker = self._pipeline, self._worker
        settings: dict[str, str] = {}
        if pipeline is not None:
            settings = pipeline.settings()
            settings["image_topic"] = image_topic(self, pipeline.values)
            settings["camera_info_topic"] = camera_info_topic(self, pipeline.values)
        if pipeline is None or worker is None:
            return Diagnosis(values=settings)
        worker.watch()  # this is called once a second
        settings["image_bits"] = str(worker.depth)
        now = monotonic()
        simulated = self.get_clock().ros_time_is_active
        snapshot = worker.statistics.snapshot(now)
        activity = Activity(
            snapshot,
            pipeline.control.status(),
            worker.checks.latest(now),
            # A simulated camera has no noise: its image repeats while the robot stands.
            worker.checks.warnings(now, frozen=not simulated),
        )
        problems = self._problems(pipeline, worker, snapshot.received == 0)
        self.log_problems(problems)
        failure = "" if self._camera is None else worker.failure
        return self._diagnostics.diagnosis(failure, settings, problems, activity, simulated)

    def _problems(self, pipeline: Pipeline, worker: Worker, silent: bool) -> list[str]:
        if self._camera is None:
            return []
        info_wanted = pipeline.publishers.camera_info_wanted()
        found = (
            self.clock_complaint(),
            self._camera.image_complaint(silent),
            self._camera.info_complaint(info_wanted, worker.infos.empty()),
            worker.infos.misfit if info_wanted else "",
            pipeline.unserved(),
            pipeline.choice.warning,
        )
        return [problem for problem in found if problem]


def main() -> None:
    """Run the node; the entry point of the executable `fuse_node`."""
    sys.exit(run(FuseNode, serve))


if __name__ == "__main__":
    main()
