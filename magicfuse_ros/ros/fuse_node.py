"""The lifecycle node: a camera's images in, fused images and segmentation out.

configure   load and verify the bundle, build its networks, warm up; advertise
activate    subscribe, start the worker
deactivate  unsubscribe, finish the frame in work
cleanup     take the topics back, free the networks
"""

from __future__ import annotations

import sys
import traceback
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.parameters import parameters
from magicfuse_ros.ros.camera import Camera, image_topic
from magicfuse_ros.ros.diagnostics import Activity, Diagnostics, Report
from magicfuse_ros.ros.node_parameters import declare, read
from magicfuse_ros.ros.pipeline import Pipeline
from magicfuse_ros.ros.process import Stop, run, spin
from magicfuse_ros.ros.worker import Worker

_NAMES = frozenset(row.name for row in parameters())
_LIVE = frozenset(row.name for row in parameters() if row.live)


class FuseNode(LifecycleNode):
    """See the README for its topics and parameters."""

    def __init__(self) -> None:
        super().__init__("fuse_node")
        self._state = "unconfigured"
        self._failure = ""
        self._pipeline: Pipeline | None = None
        self._worker: Worker | None = None
        self._camera: Camera | None = None
        declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics = Diagnostics(self.get_fully_qualified_name())
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady: with use_sim_time, ROS time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Build everything that takes time.

        Returns:
            SUCCESS: the node is inactive. FAILURE: it stays unconfigured; the reason is logged and
            in the diagnostics.
        """
        try:
            self._pipeline = Pipeline.build(self, read(self, {}))
        except MagicFuseError as error:
            return self._refuse(str(error))
        except Exception as error:  # a library's; rclpy would drop it without a word
            self.get_logger().error(traceback.format_exc())
            return self._refuse(f"{type(error).__name__}: {error}")
        self._failure = ""
        self._state = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe.

        Returns:
            SUCCESS: the node is active. FAILURE: it stays inactive, as a QoS override of a
            subscription cannot be used.
        """
        pipeline = self._pipeline
        assert pipeline is not None  # the state machine configures first
        super().on_activate(state)  # lets the publishers publish
        pipeline.publishers.publish_labels()
        self._worker = Worker(
            pipeline.fuser,
            pipeline.publishers,
            pipeline.debug,
            pipeline.control,
            self.get_clock(),
            self.get_logger(),
        )
        try:
            self._camera = Camera(self, pipeline.values, self._worker)
        except MagicFuseError as error:
            self._stop()
            super().on_deactivate(state)
            return self._refuse(str(error), "activation")
        self._failure = ""
        self.get_logger().info(f"waiting for images on {image_topic(self, pipeline.values)}")
        self._state = "active"
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking images. Returns SUCCESS: the node is inactive."""
        self._stop()
        super().on_deactivate(state)
        self._state = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the networks. Returns SUCCESS: the node is unconfigured."""
        self._release()
        self._state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything. Returns SUCCESS: the node is finalized."""
        self._release()
        self._state = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything after a failed transition. Returns SUCCESS: the node is unconfigured."""
        self._release()
        self._state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """End the worker before the publishers that it uses."""
        self._stop()
        super().destroy_node()

    def _refuse(self, reason: str, what: str = "configuration") -> TransitionCallbackReturn:
        self._failure = reason
        self.get_logger().error(f"{what} failed: {reason}")
        return TransitionCallbackReturn.FAILURE

    def _stop(self) -> None:
        if self._camera is not None:
            self._camera.destroy()
            self._camera = None
        if self._worker is not None:
            self._worker.stop()

    def _release(self) -> None:
        self._stop()
        if self._pipeline is not None:
            self._pipeline.destroy()
        self._pipeline = self._worker = None

    def _on_set_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        ours = {p.name: p.value for p in changed if p.name in _NAMES}
        try:
            values = read(self, ours)
            if self._state != "unconfigured" and (fixed := sorted(ours.keys() - _LIVE)):
                raise MagicFuseError(
                    f"{fixed[0]} is read when the node is configured, which is {self._state}; "
                    "clean it up first"
                )
            if self._pipeline is not None:
                self._pipeline.apply(values)
        except MagicFuseError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        now = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(self._diagnostics.message(self._report(), now))

    def _report(self) -> Report:
        pipeline, worker = self._pipeline, self._worker
        settings: dict[str, str] = {}
        if pipeline is not None:
            settings = pipeline.settings() | {"image_topic": image_topic(self, pipeline.values)}
        if pipeline is None or worker is None:
            return Report(self._state, self._failure, settings, None)
        now = monotonic()
        activity = Activity(
            worker.statistics.snapshot(now),
            pipeline.control.status(),
            worker.checks.latest(now),
            worker.checks.warnings(now),
        )
        return Report(self._state, self._failure or worker.failure, settings, activity)


def serve(node: FuseNode, stop: Stop) -> None:
    """Bring the node to active where `autostart` says so, and serve it until a signal comes."""
    if node.get_parameter("autostart").value:
        success = TransitionCallbackReturn.SUCCESS
        if node.trigger_configure() == success:
            node.trigger_activate()
    spin(node, stop)


def main() -> None:
    """Run the node; the entry point of the executable `fuse_node`."""
    sys.exit(run(FuseNode, serve))


if __name__ == "__main__":
    main()
