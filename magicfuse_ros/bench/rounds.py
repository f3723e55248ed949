# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Runs the timed processes in turn, so that other load on the machine affects them all alike."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from time import perf_counter
from typing import TypeVar

from pydantic import ValidationError

from magicfuse_ros.bench.messages import Failure, Job, Ready, Round
from magicfuse_ros.child_process import module_command
from magicfuse_ros.errors import BackendError

_Reply = TypeVar("_Reply", Ready, Round)


class TimedProcess:
    """The process of one combination, and what it has measured.

    No other work should run while the process starts.

    Attributes:
        ready: the backend, precision and GPU that the combination uses.
        load_to_first_frame_s: seconds from the start of the process to its first fused frame.
        rounds: the results of all rounds so far.
    """

    def __init__(self, job: Job) -> None:
        """Start the process and wait for its first frame.

        Raises:
            BackendError: if the combination cannot run here, with the reason.
        """
        self.job = job
        self.rounds: list[Round] = []
        start = perf_counter()
        command = [*module_command("magicfuse_ros.bench.timed_process"), job.model_dump_json()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.ready = self._receive(Ready)
        except BackendError:
            self.close()
            raise
        self.load_to_first_frame_s = perf_counter() - start

    def run(self, frames: int) -> None:
        """Time some frames and add them to `rounds`.

        Raises:
            BackendError: if the process failed or ended.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and `_receive` says how
            self._process.stdin.write(f"{frames}\n")
            self._process.stdin.flush()
        self.rounds.append(self._receive(Round))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()  # closes its stdin

    def __enter__(self) -> TimedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, expected: type[_Reply]) -> _Reply:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise BackendError(f"the process of {self.job} ended with exit status {code}")
        try:
            return expected.model_validate_json(line)
        except ValidationError:
            raise BackendError(Failure.model_validate_json(line).error) from None
