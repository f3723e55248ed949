"""What the command lines `magicfuse` and `magicfuse-train` share."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

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


class SeveralValues(TyperCommand):
    """Lets an option have several values: `--backend a b` is `--backend a --backend b`."""

    several: ClassVar[dict[str, str]] = {}  # pattern of a value by the option's name

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, which is what typer understands."""
        spread: list[str] = []
        option = ""
        for arg in args:
            if option and re.fullmatch(self.several[option], arg):
                if spread[-1] != option:
                    spread.append(option)
            else:
                option = arg if arg in self.several else ""
            spread.append(arg)
        return super().parse_args(ctx, spread)
