# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Lines on the console."""

from __future__ import annotations

from typing import Literal

from rich.text import Text

from magicfuse_ros.command_line import output_console


def say(line: str, style: Literal["", "yellow", "red"] = "") -> None:
    """Print a line as it is, however long; yellow is for warnings, red for failures."""
    output_console().print(Text(line, style), soft_wrap=True)
