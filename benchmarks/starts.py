# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""How long the first start takes, without compiled networks, and how long the second one.

    python benchmarks/starts.py [PRECISION]

Each start is a process of its own, from its beginning to its first fused frame; first and second
starts take turns. The user's own cache is not touched.
"""

from __future__ import annotations

import os
import sys
import tempfile
from statistics import median

from magicfuse_ros.bench.messages import Job
from magicfuse_ros.bench.rounds import TimedProcess
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.commands.bench import DEFAULT_OUTPUTS

ROUNDS = 3


def start(job: Job) -> float:
    """Return the seconds from the start of a process to its first frame."""
    with TimedProcess(job) as process:
        return process.load_to_first_frame_s


def main() -> None:
    """Print the medians and their ratio."""
    job = Job(
        bundle=default_bundle(),
        backend="openvino",
        precision="fp32" if sys.argv[1:] == ["fp32"] else "int8",
        width=640,
        height=480,
        steps=None,
        threads=0,
        outputs=DEFAULT_OUTPUTS,
    )
    seconds: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MAGICFUSE_CACHE"] = folder
            seconds.append((start(job), start(job)))
    first, second = (median(column) for column in zip(*seconds, strict=True))
    print(f"{job.precision}: first {first:.2f} s, second {second:.2f} s: {second / first:.2f}")


if __name__ == "__main__":
    main()
