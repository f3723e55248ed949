# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Runs the commands as a shell would, but in the process of the test."""

from __future__ import annotations

from typer import Typer
from typer.testing import CliRunner, Result

from magicfuse_ros import cli


def magicfuse(*arguments: object, **env: str) -> Result:
    """Run `magicfuse` with these arguments, in these environment variables."""
    return _run(cli.app, arguments, env)


def train(*arguments: object) -> tuple[int, str]:
    """Run `magicfuse-train`; return its exit code and its output with single spaces."""
    from magicfuse_training.cli import app  # needs torch, which the vehicle's tests do without

    result = _run(app, arguments, {})
    return result.exit_code, " ".join(result.output.split())


def _run(app: Typer, arguments: tuple[object, ...], env: dict[str, str]) -> Result:
    """Run a command on a wide terminal; raise an exception that the command did not expect."""
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "250", **env})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
