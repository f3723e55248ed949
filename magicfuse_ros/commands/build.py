# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse build`: builds the engines of a bundle, or compiles it, into the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from time import monotonic
from typing import Annotated, ClassVar, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from magicfuse_ros import backends
from magicfuse_ros.backends import interface
from magicfuse_ros.backends.engine_cache import (
    AskedPrecision,
    EngineCache,
    EngineKey,
    Hit,
    Precision,
)
from magicfuse_ros.bundle import NETWORKS, Bundle, NetworkName
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.command_line import (
    INTERRUPTED,
    SeveralValues,
    error_console,
    output_console,
    unclipped,
)
from magicfuse_ros.commands.check import check_engines
from magicfuse_ros.commands.fill_cache import fill_cache
from magicfuse_ros.commands.options import BundleArgument, PrecisionName

_POLL_S = 0.1
_CAPABILITY = "--compute-capability"


class SeveralCapabilities(SeveralValues):
    """Lets --compute-capability take several values: those that look like 8.9."""

    several: ClassVar = {_CAPABILITY: r"\d+\.\d+"}


def build_command(
    backend: Annotated[str, typer.Option(help=", ".join(backends.BUILDERS))],
    bundle: BundleArgument = None,
    precision: PrecisionName = "auto",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            _CAPABILITY,
            metavar="X.Y...",
            help="GPUs to build for, such as 8.6 8.9 12.0; this machine's GPU if omitted.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Then run the engines here and compare their outputs with the CPU's; exit "
            "code 1 if they differ too much.",
        ),
    ] = False,
) -> None:
    """Build a bundle's engines for a backend; engines that are up to date are kept."""
    loaded = Bundle.load(bundle or default_bundle())
    asked = cast(AskedPrecision, precision)
    backends.check_builds(backend)
    kind = backends.resolve(backend, asked, loaded)
    output = output_console()
    try:
        if backends.on_gpu(backend):
            _build_engines(loaded, backend, kind, compute_capability or [], output)
        else:
            fill_cache(loaded, backend, asked, compute_capability or [], output)
    except KeyboardInterrupt:
        line = "interrupted; engines that were already finished are kept"
        error_console().print(Text(line, "red"), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    if check and not check_engines(loaded, backend, kind):
        raise typer.Exit(1)


Row = tuple[str, str, str, str]


def _build_engines(
    bundle: Bundle, name: str, precision: Precision, capabilities: list[str], output: Console
) -> None:
    builder = backends.builder(name, precision)
    devices = builder.devices(capabilities)
    cache = EngineCache()
    console = error_console()
    heading = f"{bundle.manifest.name} for {builder.name} {builder.version} in {precision}"
    console.print(Text(heading, "dim"))
    for device in devices:
        rows = _build_all(bundle, builder, device, precision, cache, console)
        output.print(unclipped(_table(device, rows)))
    output.print(Text(f"in {cache.root}"), soft_wrap=True)


def _build_all(
    bundle: Bundle,
    builder: interface.Builder,
    device: str,
    precision: Precision,
    cache: EngineCache,
    console: Console,
) -> list[Row]:
    """Build a bundle's engines for one device, except those that exist already."""
    columns = (
        TextColumn("{task.fields[network]}"),
        BarColumn(bar_width=None),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        rows = []
        for name in NETWORKS:
            rows.append(_build_one(bundle, name, builder, device, precision, cache, progress))
    return rows


def _build_one(
    bundle: Bundle,
    name: NetworkName,
    builder: interface.Builder,
    device: str,
    precision: Precision,
    cache: EngineCache,
    progress: Progress,
) -> Row:
    """Build one engine unless it exists already; return a row of the table."""
    spec = bundle.manifest.networks[name]
    key = EngineKey.of(spec, builder.name, builder.version, device, precision)

    def waiting() -> None:
        progress.console.print(f"{name}: waiting for another process that builds it", style="dim")

    # First without the lock, whose file only somebody who may write the cache can make.
    if isinstance(found := cache.lookup(key), Hit):
        return _up_to_date(name, found)
    with cache.locked(key, waiting):
        if isinstance(found := cache.lookup(key), Hit):  # another process built it meanwhile
            return _up_to_date(name, found)
        if found.state != "absent":
            reason = Text(f"{name}: rebuilt: {found.reason}", "yellow")
            progress.console.print(reason, soft_wrap=True)
        if not progress.console.is_terminal:
            progress.console.print(f"building {name}, which may take minutes")
        start = monotonic()
        monitor = _Monitor(progress, f"{name} for {device}")
        engine = _interruptible(
            lambda: builder.build(bundle.path(name), spec, device, precision, monitor), monitor
        )
        monitor.end()
        cache.store(key, engine)
    return name, "built", f"{monotonic() - start:.1f}", f"{len(engine) / 1e6:.1f}"


def _up_to_date(name: str, found: Hit) -> Row:
    return name, "up to date", "", f"{len(found.engine) / 1e6:.1f}"


def _table(device: str, rows: list[Row]) -> Table:
    table = Table("network", "result", title=Text(device), title_justify="left")
    for column in ("seconds", "MB"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


class _Monitor:
    """Shows a build's progress; see `BuildMonitor`."""

    def __init__(self, progress: Progress, network: str) -> None:
        self.cancelled = False
        self._progress = progress
        self._task = progress.add_task("", network=network, total=None)

    def step(self, phase: str, done: int, total: int) -> None:
        """Advance the bar."""
        self._progress.update(self._task, description=phase, completed=done, total=total)

    def end(self) -> None:
        """Remove the bar."""
        self._progress.remove_task(self._task)


def _interruptible(build: Callable[[], bytes], monitor: _Monitor) -> bytes:
    """Build in a separate thread, because a busy library does not let Ctrl-C through."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(build)
        try:
            while not wait([future], timeout=_POLL_S).done:
                pass
        except KeyboardInterrupt:
            monitor.cancelled = True
            raise
        return future.result()
