"""Shows an ablation study: a table, and a plot of it beside the tau sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # there may be no display
from matplotlib import pyplot as plt

METRICS = ("EN", "SD", "SF", "VIF", "person contrast", "mIoU clean", "mIoU dark")
_PLOTTED = ("VIF", "person contrast", "mIoU dark")


def write_table(result: dict[str, Any], path: Path) -> None:
    """Write models and tau sweep as Markdown tables."""
    lines = [
        f"Preset `{result['preset']}`, {result['minutes']:g} minutes a stage and model; MagImg on "
        f"MSRS dev, masks on CamVid val, one frame in {result['every']}; K of the preset.",
        "",
    ]
    lines += _table(["model", "without", *METRICS], result["models"], ["what"])
    lines += ["", *_table(["tau", *METRICS], result["tau"], [])]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(heading: list[str], rows: dict[str, Any], texts: list[str]) -> list[str]:
    lines = [heading, ["---"] * len(heading)]
    for name, row in rows.items():
        values = ["" if row[m] is None else f"{row[m]:.3g}" for m in METRICS]
        lines.append([name, *[row[t] for t in texts], *values])
    return [f"| {' | '.join(line)} |" for line in lines]


def draw_plot(result: dict[str, Any], path: Path) -> None:
    """Draw a bar for each model and a line over tau, one column a metric, as PNG."""
    figure, axes = plt.subplots(2, len(_PLOTTED), figsize=(11, 6), layout="constrained")
    models, sweep = result["models"], result["tau"]
    for metric, (above, below) in zip(_PLOTTED, axes.T, strict=True):
        values = [models[name][metric] for name in models]
        bars = above.bar(list(models), [v or 0.0 for v in values], color="0.6")
        bars[0].set_color("tab:orange")
        above.bar_label(bars, ["no masks" if v is None else f"{v:.3g}" for v in values], size=8)
        above.set_title(metric)
        above.margins(y=0.15)
        below.plot([float(t) for t in sweep], [sweep[t][metric] for t in sweep], "o-")
        below.set_xlabel("tau")
        below.grid(alpha=0.3)
    axes[0, 0].set_ylabel("model")
    axes[1, 0].set_ylabel("full model")
    figure.savefig(path, dpi=120)
    plt.close(figure)
