# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse build` for a CPU: compiles a bundle's networks, so that the node loads them sooner."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from rich.console import Console
from rich.text import Text

from magicfuse_ros import backends
from magicfuse_ros.backends.cpu import computes_int8_faster
from magicfuse_ros.backends.engine_cache import AskedPrecision, Precision
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.errors import BackendError
from magicfuse_ros.sampler import Sampler


def fill_cache(
    bundle: Bundle,
    name: str,
    asked: AskedPrecision,
    compute_capabilities: Sequence[str],
    output: Console,
) -> None:
    """Load a bundle as the node does, and print what was compiled and where it is kept.

    Args:
        bundle: the verified bundle.
        name: name of a backend that keeps compiled networks.
        asked: the precision; auto: those that `auto` may choose on this CPU, and fp32.
        compute_capabilities: capabilities of GPUs; must be empty.
        output: where to print.

    Raises:
        BackendError: if the networks cannot be compiled or kept.
    """
    if compute_capabilities:
        raise BackendError(
            f"compute capability is {compute_capabilities[0]}; {name} builds for the CPU of this "
            "machine, which has none"
        )
    int8 = bundle.has_int8 and computes_int8_faster()
    both: tuple[Precision, ...] = ("fp32", "int8") if int8 else ("fp32",)
    for precision in both if asked == "auto" else (asked,):
        start = monotonic()
        backend: Any = backends.select(name, precision=precision)
        Sampler(bundle, backend)
        cache = backend.cache
        if cache.failure:
            raise BackendError(cache.failure)
        line = (
            f"{bundle.manifest.name} for {name} {backend.version} in {precision}: "
            f"{cache.stored} networks compiled, {cache.found} up to date, "
            f"{monotonic() - start:.1f} s"
        )
        output.print(Text(line), soft_wrap=True)
    output.print(Text(f"in {cache.folder}"), soft_wrap=True)
