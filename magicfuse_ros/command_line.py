# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Shared code of the command lines `magicfuse` and `magicfuse-train`."""

from __future__ import annotations

import errno
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from magicfuse_ros import __version__
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.printable import printable

INTERRUPTED = 130  # exit code, as in a shell
_UNLIMITED = 10_000  # columns if the output is not a terminal


class CommandLine(typer.Typer):
    """A command line whose commands accept `~` in every path and report errors in one red line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=OneLineErrors, no_args_is_help=True, add_completion=False, **options)
        self.callback()(_start)

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """Register a command; it gets its paths with `~` expanded."""
        register = super().command(name, **options)
        return lambda function: register(_with_home(function))


def _print_version(wanted: bool) -> None:
    if wanted:
        output_console().print(__version__)
        raise typer.Exit


def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


class OneLineErrors(TyperGroup):
    """Prints errors that a user can act on as one red line; bugs keep their traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line on an output that takes any name."""
        escape_output()
        return super().main(*args, **kwargs)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an empty value, such as an unset variable: as a path, it is the current folder."""
        for before, arg in zip(["", *args], args, strict=False):
            if not arg or re.fullmatch(r"--[\w-]+=", arg):
                raise typer.BadParameter(f"the value after '{arg or before}' is empty")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it with exit code 130, an error with 2."""
        try:
            return super().invoke(ctx)
        except MagicFuseError as error:
            _print_error(str(error))
            raise typer.Exit(2) from error
        except OSError as error:  # a file or disk error; not a bug of ours
            if error.errno is None or error.errno == errno.EPIPE:
                raise
            name = f"cannot read or write '{error.filename}': " if error.filename else ""
            _print_error(f"{name}{error.strerror}")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as stop:
            _print_error(str(stop) or "interrupted")
            raise typer.Exit(INTERRUPTED) from stop


def escape_output() -> None:
    """Let an output that is not UTF-8 show any name: escape characters that it lacks."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _print_error(message: str) -> None:
    line = message if message.startswith("interrupted") else f"error: {message}"
    error_console().print(Text(" ".join(line.split()), style="red"), soft_wrap=True)


def _with_home(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that gets every path with `~` expanded: shells do not expand `--out=~/x`.

    As in a shell, a `~name` whose home is unknown stays as it is.
    """

    def expanded(value: Any) -> Any:
        if isinstance(value, Path):
            return Path(os.path.expanduser(value))
        if isinstance(value, list):
            return [expanded(item) for item in value]
        return value

    @functools.wraps(function)
    def command(**values: Any) -> None:
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):  # passes every range check
                raise MagicFuseError(f"{name} is {value}; expected a finite number")
        function(**{name: expanded(value) for name, value in values.items()})

    return command


class _SafeConsole(Console):
    """Shows escape sequences in names, such as those of topics in a bag, as text."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Return the segments of anything that can be printed."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def error_console() -> Console:
    """Return the console for progress and errors on stderr."""
    return _SafeConsole(stderr=True)


def output_console() -> Console:
    """Return the console for results on stdout: as wide as needed if that is not a terminal."""
    console = _SafeConsole()
    wide = not console.is_terminal and "COLUMNS" not in os.environ
    return _SafeConsole(width=_UNLIMITED) if wide else console


def unclipped(table: Table) -> Table:
    """Make a table wrap its cells in a narrow terminal instead of clipping them."""
    for column in table.columns:
        column.overflow = "fold"
    return table


class SeveralValues(TyperCommand):
    """Lets an option take several values: `--backend a b` means `--backend a --backend b`."""

    several: ClassVar[dict[str, str]] = {}  # pattern of a value, by option name

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, the only form that typer understands."""
        expanded: list[str] = []
        option = ""
        for arg in args:
            if option and re.fullmatch(self.several[option], arg):
                if expanded[-1] != option:
                    expanded.append(option)
            else:
                option = arg if arg in self.several else ""
            expanded.append(arg)
        return super().parse_args(ctx, expanded)
