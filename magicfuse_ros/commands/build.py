"""`magicfuse build`: builds the engines of a bundle into the user's cache."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
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
from magicfuse_ros.command_line import INTERRUPTED, SeveralValues, output_console, unclipped
from magicfuse_ros.commands.check import check_engines
from magicfuse_ros.commands.options import PrecisionName

_POLL_S = 0.1
_CAPABILITY = "--compute-capability"


class SeveralCapabilities(SeveralValues):
    """Lets --compute-capability take several values: those that look like 8.9."""

    several: ClassVar = {_CAPABILITY: r"\d+\.\d+"}


def build_command(
    backend: Annotated[str, typer.Option(help=", ".join(backends.BUILDERS))],
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle folder; the default bundle if omitted.")
    ] = None,
    precision: PrecisionName = "auto",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            _CAPABILITY,
            metavar="X.Y...",
            help="Of the GPUs to build for, such as 8.6 8.9 12.0; this machine's if omitted.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Then run the engines here, compare them with the CPU and print a report; exit "
            "code 1 if they are too far from it.",
        ),
    ] = False,
) -> None:
    """Build a bundle's engines for a backend; what is built already and unchanged is kept."""
    loaded = Bundle.load(bundle or default_bundle())
    asked = cast(AskedPrecision, precision)
    builder = backends.builder(backend, asked, loaded)
    kind = backends.resolve(backend, asked, loaded)
    graphs = loaded.quantized() if kind == "int8" else loaded
    devices = builder.devices(compute_capability or [])
    cache = EngineCache()
    console = Console(stderr=True)
    console.print(
        Text(f"{loaded.manifest.name} for {builder.name} {builder.version} in {kind}", "dim")
    )
    output = output_console()
    try:
        for device in devices:
            rows = _build_all(graphs, builder, device, kind, cache, console)
            output.print(unclipped(_table(device, rows)))
    except KeyboardInterrupt:
        line = "interrupted; the engines that were finished before are kept, and are whole"
        console.print(Text(line, "red"), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    output.print(Text(f"in {cache.root}"), soft_wrap=True)
    if check and not check_engines(loaded, backend, kind):
        raise typer.Exit(1)


Row = tuple[str, str, str, str]


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

    with cache.locked(key, waiting):
        found = cache.lookup(key)
        if isinstance(found, Hit):
            return name, "up to date", "", f"{len(found.engine) / 1e6:.1f}"
        if found.state != "absent":
            reason = Text(f"{name}: built anew: {found.reason}", "yellow")
            progress.console.print(reason, soft_wrap=True)
        start = monotonic()
        monitor = _Monitor(progress, f"{name} for {device}")
        engine = _interruptible(
            lambda: builder.build(bundle.path(name), spec, device, precision, monitor), monitor
        )
        monitor.end()
        cache.store(key, engine)
    return name, "built", f"{monotonic() - start:.1f}", f"{len(engine) / 1e6:.1f}"


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
    """Build in a separate thread, because a library at work does not let Ctrl-C through."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(build)
        try:
            while not wait([future], timeout=_POLL_S).done:
                pass
        except KeyboardInterrupt:
            monitor.cancelled = True
            raise
        return future.result()
