# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The command line `magicfuse`; every command has its own module."""

from __future__ import annotations

from magicfuse_ros.command_line import CommandLine
from magicfuse_ros.commands.bench import SeveralCombinations, bench_command
from magicfuse_ros.commands.build import SeveralCapabilities, build_command
from magicfuse_ros.commands.doctor import doctor_command
from magicfuse_ros.commands.info import info_command
from magicfuse_ros.commands.replay import replay_command
from magicfuse_ros.commands.run import run_command

app = CommandLine(
    name="magicfuse",
    help="Makes a fused image, a segmentation mask and a thermal estimate from one visible camera.",
)
app.command("run")(run_command)
app.command("bench", cls=SeveralCombinations)(bench_command)
app.command("build", cls=SeveralCapabilities)(build_command)
app.command("replay")(replay_command)
app.command("info")(info_command)
app.command("doctor")(doctor_command)
