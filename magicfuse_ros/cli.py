"""The command line `magicfuse`; every command is a module of its own."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from magicfuse_ros.commands.bench import bench_command
from magicfuse_ros.commands.info import info_command
from magicfuse_ros.commands.run import run_command
from magicfuse_ros.errors import MagicFuseError


class _OneLineErrors(TyperGroup):
    """Prints what a user can act on as one red line; defects keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MagicFuseError as error:
            line = Text(" ".join(f"error: {error}".split()), style="red")
            Console(stderr=True).print(line, soft_wrap=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    name="magicfuse",
    cls=_OneLineErrors,
    help="Fuses one visible camera with what a thermal camera would have added.",
    no_args_is_help=True,
    add_completion=False,
)
app.command("run")(run_command)
app.command("bench")(bench_command)
app.command("info")(info_command)
