# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The guard around a lifecycle node: errors of any type, in every method that ROS calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from pydantic import BaseModel, ConfigDict, Field
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import String

from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.ros import qos
from magicfuse_ros.ros.diagnostics import Diagnosis
from magicfuse_ros.ros.managed_node import ManagedNode
from ros_rig import Domain

SUCCESS, FAILURE, ERROR = (
    getattr(TransitionCallbackReturn, name) for name in ("SUCCESS", "FAILURE", "ERROR")
)
ERRORS = [
    MagicFuseError("the bundle is damaged"),
    RuntimeError("no memory"),
    SystemExit("of a library"),
    RecursionError("too deep"),
]


class Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    names: list[str] = Field(["road"], description="a list")
    height: float = Field(1.5, ge=0.0, le=9.0, description="a number")


class Faulty(ManagedNode[Values]):
    """Raises `error` in the method that `where` names, after half of its work."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.where, self.error = "", RuntimeError("unset")
        self.values: Values | None = None
        self.made: list[Any] = []
        super().__init__("faulty", "test", Values, arguments)
        self.reports: list[DiagnosticArray] = []
        self.create_subscription(DiagnosticArray, "/diagnostics", self.reports.append, 10)
        self._own_topics = self._topics()

    def fail(self, where: str) -> None:
        if where == self.where:
            raise self.error

    def configure(self, values: Values) -> None:
        self.values = values
        self.made = [self.create_lifecycle_publisher(String, "~/out", 1)]
        self.create_subscription(String, "/tf", self.take, 1)
        self.fail("configure")

    def activate(self) -> None:
        self.subscribe(String, "/in", self.take, qos.newest)
        self.fail("activate")

    def take(self, message: String) -> None:
        self.fail("take")

    def stop(self) -> None:
        self.fail("stop")

    def release(self) -> None:
        self.fail("release")
        for publisher in self.made:
            self.destroy_lifecycle_publisher(publisher)
        self.made = []

    def apply(self, values: Values) -> None:
        self.fail("apply")

    def diagnosis(self) -> Diagnosis:
        self.fail("diagnosis")
        return Diagnosis()

    def topics(self) -> set[str]:
        return {topic.topic_name for topic in self._topics()} & {"/faulty/out", "/tf", "/in"}


@pytest.fixture(scope="module")
def domain() -> Iterator[None]:
    claimed = Domain()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        rclpy.init(domain_id=claimed.number)
        yield
        rclpy.shutdown()
    claimed.free()


@pytest.fixture
def node(domain: None) -> Iterator[Faulty]:
    made = Faulty()
    yield made
    made.where = ""
    made.destroy_node()


def logged(capfd: pytest.CaptureFixture[str]) -> str:
    return "".join(capfd.readouterr())


@pytest.mark.fault(
    "an error of any type in configure, activate, deactivate, cleanup or shutdown",
    "logged with file and line; ERROR; a failed transition removes its topics; "
    "the state is the one that the lifecycle standard prescribes",
)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("where", "before", "transition", "result", "state"),
    [
        ("configure", "", "configure", FAILURE, "unconfigured"),
        ("activate", "configure", "activate", FAILURE, "inactive"),
        ("stop", "configure activate", "deactivate", ERROR, "unconfigured"),
        ("release", "configure", "cleanup", ERROR, "unconfigured"),
        ("release", "configure activate", "shutdown", ERROR, "unconfigured"),
    ],
)
def test_failing_transitions(
    node: Faulty, error: BaseException, where: str, before: str, transition: str, result: Any,
    state: str, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for step in before.split():
        assert getattr(node, f"trigger_{step}")() == SUCCESS
    node.where, node.error = where, error  # type: ignore[assignment]
    assert getattr(node, f"trigger_{transition}")() == result
    assert node.state == state
    assert node.topics() == ({"/faulty/out", "/tf"} if state == "inactive" else set())
    assert str(error) in node.guard.failure
    text = logged(capfd)
    assert str(error) in text
    assert ("test_managed_node.py:" in text) == (not isinstance(error, MagicFuseError))
    node.where = ""
    for step in ("configure", "activate"):
        if node.state != "inactive" or step == "activate":
            assert getattr(node, f"trigger_{step}")() == SUCCESS
    assert node.state == "active" and node.guard.failure == ""
    assert node.topics() == {"/faulty/out", "/tf", "/in"}


def test_a_failed_transition_leaves_a_remapped_clock(domain: None) -> None:
    node = Faulty(["--ros-args", "-r", "/clock:=/sim/clock"])
    try:
        node.set_parameters([Parameter("use_sim_time", value=True)])
        node.where = "stop"
        assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
        assert node.trigger_deactivate() == ERROR
        assert "/sim/clock" in {one.topic_name for one in node.subscriptions}
        assert node.clock_complaint() == ""
        said = "use_sim_time is true, but nothing arrives on /sim/clock"
        assert node._clock_check.complaint(monotonic() + 10) == said
    finally:
        node.where = ""
        node.destroy_node()


@pytest.fixture
def spin(node: Faulty) -> Iterator[Callable[[Callable[[], bool]], bool]]:
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin_until(done: Callable[[], bool]) -> bool:
        for _ in range(500):
            executor.spin_once(timeout_sec=0.02)
            if done():
                return True
        return False

    yield spin_until
    executor.shutdown()


@pytest.mark.fault(
    "an error of any type in a callback of a topic, a timer or the parameters",
    "logged once with file and line; ERROR until that callback works again; the node continues",
)
def test_failing_callbacks(
    node: Faulty, spin: Callable[[Callable[[], bool]], bool], capfd: pytest.CaptureFixture[str]
) -> None:
    node.trigger_configure()
    node.trigger_activate()
    publisher = node.create_publisher(String, "/in", 1)

    def publishes(done: Callable[[], bool]) -> bool:
        publisher.publish(String())
        return done()

    assert spin(lambda: publisher.get_subscription_count() > 0)
    logged(capfd)
    for error in ERRORS:
        node.where, node.error = "take", error  # type: ignore[assignment]
        assert spin(lambda: publishes(lambda: str(node.error) in node.guard.failure))
        for _ in range(3):
            publisher.publish(String())
            spin(lambda: True)
    text = logged(capfd)
    assert text.count("callback of /in failed: RuntimeError: no memory (test_managed_node") == 1
    node.where = ""
    assert spin(lambda: publishes(lambda: not node.guard.failure))

    node.where, node.error = "diagnosis", RuntimeError("no memory")
    node.reports.clear()
    assert spin(lambda: bool(node.reports))
    (status,) = node.reports[0].status
    assert status.level == DiagnosticStatus.ERROR and "no memory" in status.message
    assert status.name == "faulty: test"  # the same as without an error

    node.where = "apply"
    (answer,) = node.set_parameters([Parameter("height", value=2.0)])
    assert not answer.successful
    node.trigger_deactivate()
    node.trigger_cleanup()
    (answer,) = node.set_parameters([Parameter("height", value=2.0)])
    assert not answer.successful and "RuntimeError: no memory" in answer.reason
    assert "setting parameters failed" in node.guard.failure
    node.where = ""
    (answer,) = node.set_parameters([Parameter("height", value=2.0)])
    assert answer.successful and node.guard.failure == ""


@pytest.mark.parametrize(
    "empty",
    [Parameter.Type.STRING_ARRAY, Parameter.Type.BOOL_ARRAY, Parameter.Type.INTEGER_ARRAY,
     Parameter.Type.DOUBLE_ARRAY, Parameter.Type.BYTE_ARRAY],
)  # fmt: skip
def test_an_empty_list_of_any_type_is_an_empty_list(node: Faulty, empty: Parameter.Type) -> None:
    (answer,) = node.set_parameters([Parameter("names", empty, [])])
    assert answer.successful, answer.reason
    assert node.trigger_configure() == SUCCESS
    assert node.values is not None and node.values.names == []
    node.trigger_cleanup()


@pytest.mark.parametrize("value", [[1, 2], [True], "road", None, [0.5]])
def test_a_list_of_a_wrong_type_is_refused(node: Faulty, value: Any) -> None:
    (answer,) = node.set_parameters([Parameter("names", value=value)])
    assert not answer.successful
    assert answer.reason.startswith("names")
    assert node.trigger_configure() == SUCCESS
    assert node.values is not None and node.values.names == ["road"]
