"""What the command lines `magicfuse` and `magicfuse-train` share."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from magicfuse_ros.errors import MagicFuseError


class OneLineErrors(TyperGroup):
    """Prints what a user can act on as one red line; defects keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MagicFuseError as error:
            line = Text(" ".join(f"error: {error}".split()), style="red")
            Console(stderr=True).print(line, soft_wrap=True)
            raise typer.Exit(2) from error
