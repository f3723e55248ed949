"""The parameters of `fuse_node`: one schema for the node, `config/fuse.yaml` and the README table.

`python -m magicfuse_ros.parameters` writes both files anew after a change here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from magicfuse_ros.deadline import Mode
from magicfuse_ros.geometry import Fit

Scalar = bool | int | float | str
_LIVE: dict[str, JsonValue] = {"live": True}
TABLE_BEGIN = "<!-- parameters: written by python -m magicfuse_ros.parameters -->"
TABLE_END = "<!-- /parameters -->"


class FuseParameters(BaseModel):
    """Values are checked here; whether a bundle has them (steps) is checked by the fuser."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bundle: str = Field("", description="folder of the bundle; empty: the bundle of the package")
    backend: Literal["auto", "tensorrt_rtx", "tensorrt", "openvino", "onnxruntime"] = Field(
        "auto", description="inference library; auto: the first that can run here, GPU before CPU"
    )
    precision: Literal["fp32", "fp16"] = Field(
        "fp32", description="arithmetic of the networks; fp16 on a GPU only"
    )
    threads: int = Field(0, ge=0, le=256, description="CPU threads of a network; 0: all cores")
    fit: Fit = Field(
        "letterbox", description="how the camera image is brought to the networks' size"
    )
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="raw subscribes to image, compressed to image/compressed"
    )
    autostart: bool = Field(
        False, description="configure and activate at the start; the launch files set it"
    )
    mode: Mode = Field(
        "fuse",
        description="restore: only the restored image, at a fraction of the cost; auto: fuse, and "
        "restore while fusing cannot meet the deadline",
        json_schema_extra=_LIVE,
    )  # fmt: skip
    steps: int = Field(
        0, ge=0, le=1000,
        description="diffusion steps K of a frame, one of the bundle's; 0: the most that meet the "
        "deadline",
        json_schema_extra=_LIVE,
    )  # fmt: skip
    target_period: float = Field(
        0.0, ge=0.0, le=60.0,
        description="deadline: seconds from one result to the next; 0: the camera's own period",
        json_schema_extra=_LIVE,
    )  # fmt: skip
    tau: float = Field(
        -1.0, ge=-1.0, le=1.0,
        description="cap on the restored image's weight where a warm class is seen (Eq. 11), "
        "0 to 1; below 0: the bundle's own",
        json_schema_extra=_LIVE,
    )  # fmt: skip

    @property
    def chosen_tau(self) -> float | None:
        """The cap, 0 to 1, or None for the bundle's own."""
        return self.tau if self.tau >= 0 else None


@dataclass(frozen=True)
class Parameter:
    """One row of the schema."""

    name: str
    default: Scalar
    description: str
    choices: tuple[str, ...]
    minimum: int | float | None
    maximum: int | float | None
    live: bool

    @property
    def values(self) -> str:
        """Say in words what is allowed; empty where everything is."""
        if self.choices:
            return ", ".join(self.choices)
        return "" if self.minimum is None else f"{self.minimum} to {self.maximum}"


def parameters() -> list[Parameter]:
    """Return the schema's rows in their order."""
    rows = []
    for name, field in FuseParameters.model_fields.items():
        bounds: dict[str, int | float] = {}
        for constraint in field.metadata:
            bounds |= {
                key: getattr(constraint, key) for key in ("ge", "le") if hasattr(constraint, key)
            }
        rows.append(
            Parameter(
                name=name,
                default=field.default,
                description=field.description or "",
                choices=get_args(field.annotation),
                minimum=bounds.get("ge"),
                maximum=bounds.get("le"),
                live=field.json_schema_extra is _LIVE,
            )
        )
    return rows


def yaml() -> str:
    """Return the text of `config/fuse.yaml`: every parameter with its default and meaning."""
    lines = [
        "# Parameters of fuse_node. Those marked live change while the node is active; the others",
        "# are read when it is configured.",
        "/**:",
        "  ros__parameters:",
    ]
    for row in parameters():
        marks = "; ".join(filter(None, (row.values, "live" if row.live else "")))
        lines.append(f"    # {row.description}" + (f" [{marks}]" if marks else ""))
        lines.append(f"    {row.name}: {json.dumps(row.default)}")
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the README's parameter table in Markdown."""
    lines = ["| parameter | default | values | live | meaning |", "|---|---|---|---|---|"]
    for row in parameters():
        live = "yes" if row.live else ""
        cells = (f"`{row.name}`", f"`{json.dumps(row.default)}`", row.values, live, row.description)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_table(readme: str) -> str:
    """Return a README text with the parameter table put between its two markers.

    Raises:
        ValueError: if a marker is missing.
    """
    before, rest = readme.split(TABLE_BEGIN)
    _, after = rest.split(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{table()}{TABLE_END}{after}"


def main() -> None:
    """Write `config/fuse.yaml` and the README table of the source tree."""
    root = Path(__file__).resolve().parents[1]
    (root / "config" / "fuse.yaml").write_text(yaml(), encoding="utf-8")
    readme = root / "README.md"
    readme.write_text(with_table(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
