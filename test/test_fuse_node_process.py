# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The node as a process: start and exit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from ros_rig import TIMEOUT_S, Rig, image


@pytest.mark.fault("SIGINT or SIGTERM, even repeated", "ends cleanly with exit code 0")
# 100 signals arrive at every moment of the exit, including the interpreter's own.
@pytest.mark.parametrize("times", [1, 2, 100])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_an_active_node_cleanly(
    tmp_path: Path, tiny_bundle: Path, number: signal.Signals, times: int
) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle)) as rig:
        rig.activate()
        received = rig.subscribe("mag_image")

        def under_way() -> bool:
            rig.camera.publish(image(size=(480, 640)))
            rig.wait(0.01)
            return len(received) >= 3

        assert rig.spin_until(under_way), rig.output()
        assert rig.end(number, times) == 0, rig.output()
        assert "Traceback" not in rig.output()


def test_a_signal_during_configuration_ends_the_node_cleanly(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    with Rig(tmp_path, bundle=str(tiny_bundle)) as rig:
        assert rig.state() == "unconfigured"
        client = rig.node.create_client(ChangeState, f"{rig.name}/change_state")
        assert rig.spin_until(client.service_is_ready)
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        client.call_async(request)
        assert rig.spin_until(lambda: "loading" in rig.output())
        assert rig.end(signal.SIGINT, 2) == 0, rig.output()


@pytest.mark.parametrize(("name", "value"), [("tau", 3.0), ("tau", 1), ("steps", -1)])
def test_a_wrong_start_value_is_named(tmp_path: Path, name: str, value: Any) -> None:
    with Rig(tmp_path, **{name: value}) as rig:
        assert rig.process.wait(TIMEOUT_S) == 1
        assert f"'{name}'" in rig.output() or f": {name}" in rig.output()
        assert "Traceback" not in rig.output()
