# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A ROS client: a node with its own context that is spun only while the caller waits."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

_WAKE_S = 0.1
_ASK_AGAIN_S = 1.0


class Session:
    """A connection to ROS; a context manager."""

    def __init__(self, name: str) -> None:
        self._context = Context()
        # Not with the arguments of the command line: they are not ROS's.
        options = SignalHandlerOptions.NO
        rclpy.init(args=[], context=self._context, signal_handler_options=options)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def __enter__(self) -> Session:
        """Return the session."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Leave ROS."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def spin_until(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Handle messages until `done()`; return False if that takes too long."""
        end = monotonic() + timeout_s
        while not done():
            left = end - monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, _WAKE_S))
        return True

    def change_state(
        self, node: str, transition: int, alive: Callable[[], bool], timeout_s: float
    ) -> bool:
        """Request a transition of a lifecycle node.

        Args:
            node: full name of the node.
            transition: a constant of lifecycle_msgs/Transition.
            alive: returns whether waiting still makes sense.
            timeout_s: time limit for the service to appear, and again for its answer.

        Returns:
            Whether the node made the transition.
        """
        client = self.node.create_client(ChangeState, f"{node}/change_state")
        try:
            if not self.spin_until(lambda: client.service_is_ready() or not alive(), timeout_s):
                return False
            self._make_known(node, alive, timeout_s)
            answer = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            self.spin_until(lambda: answer.done() or not alive(), timeout_s)
            return bool(answer.done() and answer.result().success)
        finally:
            self.node.destroy_client(client)

    def _make_known(self, node: str, alive: Callable[[], bool], timeout_s: float) -> None:
        """Wait until a node knows the clients that this one has.

        DDS drops the answer to a client that the node has not discovered yet. The node discovers
        the one that is made here last.
        """
        client = self.node.create_client(GetState, f"{node}/get_state")
        end = monotonic() + timeout_s
        try:
            self.spin_until(lambda: client.service_is_ready() or not alive(), timeout_s)
            while alive() and monotonic() < end:
                answer = client.call_async(GetState.Request())
                if self.spin_until(lambda: answer.done() or not alive(), _ASK_AGAIN_S):  # noqa: B023
                    return
                client.remove_pending_request(answer)
        finally:
            self.node.destroy_client(client)

    def bring_up(self, node: str, alive: Callable[[], bool], timeout_s: float) -> bool:
        """Configure and activate a lifecycle node; return whether it is active."""
        return all(
            self.change_state(node, transition, alive, timeout_s)
            for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
        )
