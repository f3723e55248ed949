"""`magicfuse-train cost`: prints what a preset costs."""

from __future__ import annotations

from rich.table import Table

from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_training.networks.cost import gflop_per_call, parameters, shapes_only
from magicfuse_training.preset import load_preset


def cost_command(preset: str = "nano") -> None:
    """Print the parameters and GFLOP of every network, and those of a frame for each trained K."""
    config = load_preset(preset)
    model = shapes_only(config)
    calls = gflop_per_call(model)
    table = Table("network", "parameters", "GFLOP a call", title=f"preset {config.name}")
    for name, gflop in calls.items():
        table.add_row(name, f"{parameters(model.get_submodule(name)):,}", f"{gflop:.2f}")
    table.add_section()
    for k in config.steps:
        frame = sum(g * (k if n in ("ikr", "ckg", "mkf") else 1) for n, g in calls.items())
        shipped = " (default)" if k == config.default_steps else ""
        table.add_row(f"frame, K = {k}{shipped}", f"{parameters(model):,}", f"{frame:.2f}")
    console = output_console()
    console.print(unclipped(table))
    line = "A frame is MagImg and the mask; each further decoded image is one decoder call."
    console.print(line, soft_wrap=True)
