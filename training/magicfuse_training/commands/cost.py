# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse-train cost`: prints what a preset costs."""

from __future__ import annotations

from rich.table import Table

from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_training.cost import gflop_per_call, parameters, shapes_only
from magicfuse_training.preset import load_preset


def cost_command(preset: str = "nano") -> None:
    """Print the parameters and GFLOP of every network, and those of a frame for each trained K."""
    config = load_preset(preset)
    model = shapes_only(config)
    calls = gflop_per_call(model)
    table = Table("network", "parameters", "GFLOP a call", title=f"preset {config.name}")
    for name, gflop in calls.items():
        table.add_row(name, f"{parameters(model.get_submodule(name)):,}", f"{gflop:.2f}")
    table.add_section()
    for k in config.steps:
        frame = sum(g * (k if n in ("ikr", "ckg", "mkf") else 1) for n, g in calls.items())
        shipped = " (default)" if k == config.default_steps else ""
        table.add_row(f"frame, K = {k}{shipped}", f"{parameters(model):,}", f"{frame:.2f}")
    console = output_console()
    console.print(unclipped(table))
    line = "A frame is MagImg and the mask; each further decoded image is one decoder call."
    console.print(line, soft_wrap=True)
