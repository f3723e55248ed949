# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""What `fuse_node` holds from configure to cleanup: bundle, backend, fuser and output topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from magicfuse_ros.backends import Choice, choose, on_gpu
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.deadline import DeadlineControl
from magicfuse_ros.errors import BackendError, DeviceLostError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.parameters import FuseParameters
from magicfuse_ros.printable import printable
from magicfuse_ros.ros.causes import one_line
from magicfuse_ros.ros.debug_topics import DebugTopics
from magicfuse_ros.ros.managed_node import ManagedNode
from magicfuse_ros.ros.publishers import Publishers
from magicfuse_ros.shared_networks import Lease, SharedNetworks
from magicfuse_ros.topics import image_topics


@dataclass
class Pipeline:
    """Made by `build`. `values` are the parameters in use."""

    values: FuseParameters
    bundle: Bundle
    networks: Lease
    choice: Choice
    fuser: Fuser
    publishers: Publishers
    debug: DebugTopics
    control: DeadlineControl

    @classmethod
    def build(
        cls, node: ManagedNode[Any], values: FuseParameters, shared: SharedNetworks
    ) -> Pipeline:
        """Load and verify the bundle, load its networks unless `shared` has them; advertise.

        Raises:
            MagicFuseError: if the bundle or the backend cannot be used, or a value is refused.
        """
        bundle = Bundle.load(values.bundle or default_bundle())
        manifest = bundle.manifest
        control = DeadlineControl(manifest.step_grids, manifest.default_steps)
        control.configure(values.mode, values.steps, values.target_period)
        choice, networks = _networks(node, values, bundle, shared)
        try:
            backend, others = networks.backend, ", ".join(networks.others())
            tau = values.chosen_tau
            fuser = Fuser(bundle, backend, fit=values.fit, tau=tau, sampler=networks)
            publishers = Publishers(node, image_topics(fuser.outputs), manifest.classes)
            debug = DebugTopics(node)
            node.get_logger().info(
                f"networks are ready on {backend.name} {backend.version} ({backend.device})"
                + (f", shared with {others}" if others else "")
            )
        except BaseException:
            networks.free()
            raise
        return cls(values, bundle, networks, choice, fuser, publishers, debug, control)

    def apply(self, values: FuseParameters) -> None:
        """Apply the live parameters.

        Raises:
            MagicFuseError: if the bundle has no such steps; nothing has changed then.
        """
        self.control.configure(values.mode, values.steps, values.target_period)
        tau = values.chosen_tau
        self.fuser.tau = self.bundle.manifest.tau if tau is None else tau
        self.values = values

    def unserved(self) -> str:
        """Return which subscribed topics this mode never publishes; empty if one is published."""
        wanted = self.publishers.wanted()
        if self.values.mode != "restore" or any(t.needs == {"restored"} for t in wanted):
            return ""
        names = ", ".join(f"~/{topic.name}" for topic in wanted)
        return f"mode is restore, which publishes nothing on {names}" if names else ""

    def destroy(self) -> None:
        """Remove the topics, and free the networks unless others use them."""
        self.networks.free()
        self.publishers.destroy()
        self.debug.destroy()

    def settings(self) -> dict[str, str]:
        """Return what is in use, for the diagnostics."""
        backend = self.networks.backend
        return {
            "bundle": printable(str(self.bundle.root)),
            "backend": f"{backend.name} {backend.version} {backend.device}",
            "backend_asked": self.choice.asked,
            "backend_why": self.choice.why,
            "networks_shared_with": ", ".join(self.networks.others()),
            "precision": self.choice.precision,
            "mode": self.values.mode,
            "tau": f"{self.fuser.tau:.2f}",
        }


def _networks(
    node: ManagedNode[Any], values: FuseParameters, bundle: Bundle, shared: SharedNetworks
) -> tuple[Choice, Lease]:
    """Return the backend and its networks.

    A GPU may refuse engines that were built for it, or its memory may be full. With `auto`, the
    next backend then takes its place.
    """
    failed: dict[str, str] = {}
    logger = node.get_logger()
    while True:
        choice = choose(values.backend, values.precision, bundle, failed)
        if not node.retrying:  # a cause that stays would fill the log
            logger.info(
                f"loading '{printable(str(bundle.root))}'; backend '{choice.asked}' was asked for, "
                f"{choice} ({choice.precision})"
            )
        try:
            name = node.get_fully_qualified_name()
            return choice, shared.lease(name, bundle, choice, values.threads)
        except BackendError as error:
            for_good = isinstance(error, DeviceLostError) or not on_gpu(choice.used)
            if values.backend != "auto" or for_good:
                raise
            failed[choice.used] = f"failed ({one_line(str(error))})"
            logger.warning(f"{choice.used} {failed[choice.used]}; trying the next backend")
