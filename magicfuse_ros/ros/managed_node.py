"""What the lifecycle nodes of this package share: states, refusals, diagnostics once a second."""

from __future__ import annotations

import traceback
from abc import abstractmethod
from typing import Generic

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.parameters import parameters
from magicfuse_ros.ros.node_parameters import Schema, declare, read

_SUCCESS = TransitionCallbackReturn.SUCCESS


class ManagedNode(LifecycleNode, Generic[Schema]):
    """A lifecycle node with the parameters of a schema.

    Attributes:
        state: of the lifecycle.
        failure: why the latest transition failed, empty otherwise.
    """

    def __init__(self, name: str, schema: type[Schema]) -> None:
        super().__init__(name)
        self.state = "unconfigured"
        self.failure = ""
        self._schema = schema
        declare(self, schema)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady: with use_sim_time, ROS time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)

    @abstractmethod
    def configure(self, values: Schema) -> None:
        """Build everything that takes time.

        Raises:
            MagicFuseError: the node stays unconfigured.
        """

    @abstractmethod
    def activate(self) -> None:
        """Subscribe; the publishers publish.

        Raises:
            MagicFuseError: the node stays inactive; `stop` is called.
        """

    @abstractmethod
    def stop(self) -> None:
        """Unsubscribe; may be called when nothing is subscribed."""

    @abstractmethod
    def release(self) -> None:
        """Stop, take the topics back and free the rest; may be called when nothing is there."""

    @abstractmethod
    def diagnosis(self, stamp: Time) -> DiagnosticArray:
        """Return what to say on /diagnostics."""

    def apply(self, values: Schema) -> None:
        """Take over live parameters that were changed, in any state.

        Raises:
            MagicFuseError: if they are refused; nothing has changed then.
        """

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure.

        Returns:
            SUCCESS: the node is inactive. FAILURE: it stays unconfigured; the reason is logged and
            in the diagnostics.
        """
        try:
            self.configure(read(self._schema, self, {}))
        except MagicFuseError as error:
            return self._refuse("configuration", str(error))
        except Exception as error:  # a library's; rclpy would drop it without a word
            self.get_logger().error(traceback.format_exc())
            return self._refuse("configuration", f"{type(error).__name__}: {error}")
        return self._reached("inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate.

        Returns:
            SUCCESS: the node is active. FAILURE: it stays inactive; the reason is logged and in the
            diagnostics.
        """
        super().on_activate(state)  # lets the publishers publish
        try:
            self.activate()
        except MagicFuseError as error:
            self.stop()
            super().on_deactivate(state)
            return self._refuse("activation", str(error))
        return self._reached("active")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop. Returns SUCCESS: the node is inactive."""
        self.stop()
        super().on_deactivate(state)
        self.state = "inactive"
        return _SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release. Returns SUCCESS: the node is unconfigured."""
        self.release()
        self.state = "unconfigured"
        return _SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release. Returns SUCCESS: the node is finalized."""
        self.release()
        self.state = "finalized"
        return _SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release after a failed transition. Returns SUCCESS: the node is unconfigured."""
        self.release()
        self.state = "unconfigured"
        return _SUCCESS

    def _reached(self, state: str) -> TransitionCallbackReturn:
        self.failure = ""
        self.state = state
        return _SUCCESS

    def _refuse(self, what: str, reason: str) -> TransitionCallbackReturn:
        self.failure = reason
        self.get_logger().error(f"{what} failed: {reason}")
        return TransitionCallbackReturn.FAILURE

    def _on_set_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        rows = {row.name: row for row in parameters(self._schema)}
        ours = {p.name: p.value for p in changed if p.name in rows}
        try:
            values = read(self._schema, self, ours)
            fixed = sorted(name for name in ours if not rows[name].live)
            if fixed and self.state != "unconfigured":
                raise MagicFuseError(
                    f"{fixed[0]} is read when the node is configured, which is {self.state}; "
                    "clean it up first"
                )
            self.apply(values)
        except MagicFuseError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        now = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(self.diagnosis(now))
