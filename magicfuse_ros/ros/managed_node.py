# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Base of both lifecycle nodes: transitions, parameters, diagnostics once a second."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Generic

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rclpy.time_source import CLOCK_TOPIC

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.parameters import parameters
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.causes import MAX_REPORTED, Causes, cause, one_line
from magicfuse_ros.ros.diagnostics import Diagnosis, diagnostics
from magicfuse_ros.ros.guard import Guard
from magicfuse_ros.ros.node_parameters import Schema, declare, read
from magicfuse_ros.ros.sim_time import ClockCheck
from magicfuse_ros.ros.subscriptions import MatchedSubscription

_GONE = 5  # reports without a problem, after which it counts as a new one
_SUCCESS = TransitionCallbackReturn.SUCCESS


class ManagedNode(LifecycleNode, Generic[Schema]):
    """A lifecycle node with the parameters of a schema.

    No method that ROS calls raises (see `Guard`). A failed transition leaves no topic behind.

    Attributes:
        guard: runs all callbacks; its `failure` says what is wrong with the node.
        retrying: whether the present transition is an automatic retry, whose reason is logged only
            once.
    """

    def __init__(
        self,
        name: str,
        task: str,
        schema: type[Schema],
        arguments: Sequence[str] = (),
        others: Collection[str] = (),
    ) -> None:
        """Start unconfigured.

        Args:
            name: name of the node.
            task: what it does, for the name of its diagnostic status.
            schema: its parameters.
            arguments: command line arguments for this node only, such as `--ros-args -r
                __ns:=/front`, if the process has several; they go before those of the process.
            others: parameters that the process itself reads.
        """
        self.guard = Guard(self.get_logger)  # first: the node subscribes to /clock on creation
        super().__init__(name, cli_args=list(arguments))
        self._task = task
        self._schema = schema
        self.retrying = False
        self._subscribed: list[MatchedSubscription] = []
        self._warned = Causes()
        self._problems_told: dict[str, int] = {}  # reports since it was last there, by cause
        declare(self, schema, others)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._clock_topic = self.resolve_topic_name(CLOCK_TOPIC)  # a simulator may have another
        self._clock_check = ClockCheck(self.get_clock(), self._clock_topic)
        # Steady: with use_sim_time, ROS time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._each_second, clock=steady)
        self._own_topics = self._topics()

    @property
    def state(self) -> str:
        """Lifecycle state as rcl reports it; the transition's name during a transition."""
        label: str = self._state_machine.current_state[1]
        return label

    @abstractmethod
    def configure(self, values: Schema) -> None:
        """Build everything that takes time. An exception leaves the node unconfigured."""

    @abstractmethod
    def activate(self) -> None:
        """Subscribe; publishers may publish from now on. An exception leaves the node inactive."""

    def stop(self) -> None:
        """Stop all work; called after unsubscribing, even if nothing is active."""

    def release(self) -> None:
        """Remove the topics and free the rest; called after `stop`, even if there is nothing.

        If one part raises, the others must still be released.
        """

    @abstractmethod
    def diagnosis(self) -> Diagnosis:
        """Return what to report on /diagnostics."""

    def apply(self, values: Schema) -> None:
        """Apply changed live parameters, in any state.

        Raises:
            MagicFuseError: if they are refused; nothing has changed then.
        """

    def subscribe(
        self,
        message_type: Any,
        topic: str,
        callback: Callable[..., None],
        make_qos: Callable[[], QoSProfile],
    ) -> MatchedSubscription:
        """Subscribe until the node is deactivated. Errors: see `MatchedSubscription`."""
        made = MatchedSubscription(self, message_type, topic, callback, make_qos)
        self._subscribed.append(made)
        return made

    def warn_once(self, text: str) -> None:
        """Log a warning, once for each cause."""
        if self._warned.add(text):
            self.get_logger().warning(text)

    def log_problems(self, problems: Collection[str]) -> None:
        """Log what is wrong in a report: when it begins, and again if it comes back later."""
        told = {text: count + 1 for text, count in self._problems_told.items() if count < _GONE}
        for problem in problems:
            if (name := cause(problem)) not in told:
                self.get_logger().warning(one_line(problem, MAX_REPORTED))
            told[name] = 0
        self._problems_told = told

    def topic_complaints(self) -> list[str]:
        """Return why messages of each subscription do not arrive, or whose they may be."""
        return list(filter(None, (one.complaint() or one.several() for one in self._subscribed)))

    def clock_complaint(self) -> str:
        """Return why the node's clock stands still; empty if it runs."""
        return self._clock_check.complaint(monotonic())

    def create_publisher(self, *args: Any, **kwargs: Any) -> Any:
        """Advertise like any node, without events (see `qos.no_events`).

        rclpy calls it for /parameter_events, too, but not for lifecycle publishers.
        """
        kwargs.setdefault("event_callbacks", qos.no_events())
        return super().create_publisher(*args, **kwargs)

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Callable[..., None], *args: Any, **kwargs: Any
    ) -> Subscription:
        """Subscribe like any node, with a guarded callback."""
        guarded = self.guard.wrapped(f"callback of {topic}", callback)
        return super().create_subscription(msg_type, topic, guarded, *args, **kwargs)

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        """Answer a request for a transition, also for one that the present state does not allow.

        Until Jazzy, rclpy raises instead, so that a lifecycle manager waits for ever. The name is
        that of rclpy's private callback.
        """
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except RuntimeError as error:
            self.get_logger().error(f"transition refused: {error}")
            response.success = False
            return response

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure.

        Returns:
            SUCCESS: the node is inactive. FAILURE: it stays unconfigured; the log and the
            diagnostics say why.
        """

        def configure() -> None:
            self.configure(read(self._schema, self, {}))

        return self._change("configuration", configure, undo=self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate.

        Returns:
            SUCCESS: the node is active. FAILURE: it stays inactive; the log and the diagnostics say
            why.
        """

        def activate() -> None:
            LifecycleNode.on_activate(self, state)  # lets the publishers publish
            self.activate()
            for name in self._parameter_overrides:  # all topics are there now
                if name.startswith("qos_overrides.") and not self.has_parameter(name):
                    self.warn_once(
                        f"parameter '{name}' is not used: this node has no such topic, or cannot "
                        "override that policy; expected qos_overrides.<full topic>.<subscription "
                        "or publisher>.<reliability, depth or history>; if it is meant for another "
                        "node, give that node's name in the parameter file, not /**"
                    )

        return self._change("activation", activate, undo=lambda: self._deactivate(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop. Returns SUCCESS: the node is inactive. ERROR: see `on_error`."""
        return self._change("deactivation", lambda: self._deactivate(state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release. Returns SUCCESS: the node is unconfigured. ERROR: see `on_error`."""
        return self._change("cleanup", self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release. Returns SUCCESS: the node is finalized. ERROR: see `on_error`."""
        return self._change("shutdown", self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release by force after a failed transition. Returns SUCCESS: it is unconfigured."""
        self.guard.run("release", self._release)
        self.guard.run("release by force", self._take_back, self._own_topics)
        return _SUCCESS

    def _change(
        self, what: str, work: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        before = self._topics()
        if not self.retrying:
            self.guard.tell_again(what)  # whoever requests it sees the reason each time
        if self.guard.run(what, work):
            self.guard.reset()
            return _SUCCESS
        if undo is None or not self.guard.run(f"undoing the {what}", undo):
            return TransitionCallbackReturn.ERROR
        self._take_back(before)
        return TransitionCallbackReturn.FAILURE

    def _deactivate(self, state: LifecycleState) -> None:
        self._stop()
        LifecycleNode.on_deactivate(self, state)

    def _stop(self) -> None:
        self._warned = Causes()
        self._problems_told = {}
        try:
            while self._subscribed:
                self._subscribed.pop().destroy()
        finally:
            self.stop()

    def _release(self) -> None:
        try:
            self._stop()
        finally:
            self.release()

    def _topics(self) -> list[Any]:
        return [*self.publishers, *self.subscriptions]

    def _take_back(self, kept: list[Any]) -> None:
        """Destroy all publishers and subscriptions except `kept` and that of the clock."""
        for topic in self._topics():
            if any(topic is one for one in kept) or topic.topic_name == self._clock_topic:
                continue
            if isinstance(topic, Subscription):
                self.destroy_subscription(topic)
            else:
                self.destroy_lifecycle_publisher(topic)

    def _on_set_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        rows = {row.name: row for row in parameters(self._schema)}
        ours = {p.name: p.value for p in changed if p.name in rows}
        if not ours:
            return SetParametersResult(successful=True)
        try:
            values = read(self._schema, self, ours)
            new = (name for name, value in ours.items() if value != self.get_parameter(name).value)
            fixed = sorted(name for name in new if not rows[name].live)
            if "autostart" in fixed:
                raise MagicFuseError("autostart is read at the start: configure and activate now")
            if fixed and self.state != "unconfigured":
                raise MagicFuseError(
                    f"{fixed[0]} can only change while the node is unconfigured; it is "
                    f"{self.state}: clean it up first"
                )
            self.apply(values)
        except MagicFuseError as error:  # an answer, not a failure of the node
            return SetParametersResult(successful=False, reason=str(error))
        except BaseException as error:
            reason = self.guard.failed("setting parameters", error)
            return SetParametersResult(successful=False, reason=reason)
        self.guard.works("setting parameters")
        return SetParametersResult(successful=True)

    def _each_second(self) -> None:
        self.guard.run("matching the publishers' QoS", self._match)
        found = [Diagnosis()]  # if the diagnosis fails, the guard's failure is still reported
        self.guard.run("diagnosis", lambda: found.append(self.diagnosis()))
        self.guard.run("diagnostics", self._publish, found[-1])

    def _match(self) -> None:
        for subscription in self._subscribed:
            subscription.match()

    def _publish(self, diagnosis: Diagnosis) -> None:
        diagnosis = replace(diagnosis, failure=self.guard.failure or diagnosis.failure)
        name, stamp = self.get_fully_qualified_name(), self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(
            diagnostics(name, self._task, self.state, diagnosis, stamp)
        )
