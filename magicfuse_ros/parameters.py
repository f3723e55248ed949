# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The parameters of the nodes: one schema per node for its YAML, its docs page and the node itself.

After a change here, `python -m magicfuse_ros.parameters` rewrites these files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from magicfuse_ros.deadline import Mode
from magicfuse_ros.geometry import Fit

Value = bool | int | float | str | list[str]
_LIVE: dict[str, JsonValue] = {"live": True}
_AUTOSTART = (
    "configure and activate at start, and retry until both succeed; the launch files set it"
)
TABLE_BEGIN = "<!-- parameters of {node}: written by python -m magicfuse_ros.parameters -->"
TABLE_END = "<!-- /parameters of {node} -->"


class FuseParameters(BaseModel):
    """Checks the parameters of `fuse_node`; the fuser checks if the bundle has them (steps)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bundle: str = Field(
        "", description="folder of the bundle; empty: the default bundle of the package"
    )
    backend: Literal["auto", "tensorrt_rtx", "tensorrt", "openvino", "onnxruntime"] = Field(
        "auto",
        description="inference library; auto: the first that can run here; a GPU comes first if "
        "its engines are built",
    )
    precision: Literal["auto", "fp32", "fp16", "int8"] = Field(
        "auto",
        description="number format of the networks; auto: fp16 on a GPU; in openvino int8 if "
        "the bundle has it and the CPU runs it faster; else fp32. fp16 needs a GPU, int8 a CPU",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="CPU threads for each frame; 0: all cores, or what a container's limit of CPU "
        "time allows. If the process has several cameras, half of the cores at most",
    )
    fit: Fit = Field(
        "letterbox", description="how the camera image is fitted to the networks' size"
    )
    image_transport: Literal["raw", "compressed"] = Field(
        "raw", description="raw subscribes to image, compressed to image/compressed"
    )
    image_bits: int = Field(
        0, ge=0, le=16,
        description="bits that the camera uses in its 16-bit images; 0: found from the first one "
        "(10, 12, 14 or 16), and raised if later ones need more",
    )  # fmt: skip
    autostart: bool = Field(False, description=_AUTOSTART)
    mode: Mode = Field(
        "fuse",
        description="fuse: all outputs; restore: only the restored image, at two thirds of the "
        "cost; auto: fuse, but restore while fusing cannot meet the deadline",
        json_schema_extra=_LIVE,
    )  # fmt: skip
    steps: int = Field(
        0, ge=0, le=1000,
        description="diffusion steps K per frame, one of the bundle's values; 0: as many as meet "
        "the deadline, up to the bundle's default",
        json_schema_extra=_LIVE,
    )  # fmt: skip
    target_period: float = Field(
        0.0, ge=0.0, le=60.0,
        description="deadline: seconds from one result to the next; 0: the camera's own period",
        json_schema_extra=_LIVE,
    )  # fmt: skip
    tau: float = Field(
        -1.0, ge=-1.0, le=1.0,
        description="how sure the networks must be of a person before MagImg lights it up (tau "
        "of the paper's Eq. 11). Higher values light up fewer people; useful ones are 0.3 to 0.75. "
        "Below 0: the bundle's value (0.75 in the shipped one)",
        json_schema_extra=_LIVE,
    )  # fmt: skip

    @property
    def chosen_tau(self) -> float | None:
        """The cap, 0 to 1; None means the bundle's own."""
        return self.tau if self.tau >= 0 else None


class GroundParameters(BaseModel):
    """The parameters of `ground_cloud_node`; angles are in radians, as everywhere in ROS."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    use_tf: bool = Field(
        True, description="take the camera's pose from TF; false: camera_height, _pitch and _roll"
    )
    base_frame: str = Field(
        "base_footprint",
        min_length=1,
        description="frame of the scan; its plane z = 0 is the ground. Without TF its origin must "
        "lie below the camera",
    )
    transform_timeout: float = Field(
        0.2, ge=0.0, le=10.0,
        description="longest wait of a mask for its transform, seconds of ROS time (never more "
        "than 10 s of real time); later masks queue behind it",
    )  # fmt: skip
    camera_height: float = Field(
        1.5, ge=0.01, le=100.0, description="height of the camera above the ground, metres"
    )
    camera_pitch: float = Field(
        0.0, ge=-1.58, le=1.58, description="tilt of the camera, radians; positive: down"
    )
    camera_roll: float = Field(
        0.0, ge=-3.15, le=3.15, description="roll of the camera, radians; positive: right side down"
    )
    rectified: bool = Field(
        False, description="the images are rectified: use P and R of camera_info, not K and D"
    )
    max_range: float = Field(
        15.0, ge=0.1, le=1000.0,
        description="distance up to which ground is used, metres; the effect of a wrong pitch "
        "grows with the square of the distance",
    )  # fmt: skip
    scan_increment: float = Field(
        0.00873,
        ge=0.0005,
        le=0.1,
        description="angle between beams of the scan, radians; at least that of a pixel",
    )  # fmt: skip
    ground_classes: list[str] = Field(
        ["road", "pavement"], description="classes that lie on the ground"
    )
    passable_classes: list[str] = Field(
        ["sky"],
        description="classes that are neither ground nor obstacles; all others are obstacles",
    )
    autostart: bool = Field(False, description=_AUTOSTART)


SCHEMAS: dict[str, type[BaseModel]] = {
    "fuse_node": FuseParameters,
    "ground_cloud_node": GroundParameters,
}
PAGES = {"fuse_node": "topics.md", "ground_cloud_node": "navigation.md"}  # in docs/


@dataclass(frozen=True)
class Parameter:
    """One parameter of the schema."""

    name: str
    default: Value
    description: str
    choices: tuple[str, ...]
    minimum: int | float | None
    maximum: int | float | None
    live: bool

    @property
    def values(self) -> str:
        """Describe the allowed values in words; empty if all are allowed."""
        if self.choices:
            return ", ".join(self.choices)
        return "" if self.minimum is None else f"{self.minimum} to {self.maximum}"


def parameters(schema: type[BaseModel] = FuseParameters) -> list[Parameter]:
    """Return a schema's parameters in order."""
    rows = []
    for name, field in schema.model_fields.items():
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
                choices=get_args(field.annotation) if isinstance(field.default, str) else (),
                minimum=bounds.get("ge"),
                maximum=bounds.get("le"),
                live=field.json_schema_extra is _LIVE,
            )
        )
    return rows


def yaml(node: str = "fuse_node") -> str:
    """Return the text of a node's file in `config/`: each parameter with default and meaning."""
    rows = parameters(SCHEMAS[node])
    lines = [f"# Parameters of {node}, read when it is configured."]
    if any(row.live for row in rows):
        lines += ["# Those marked live can also change while the node is active."]
    lines += ["/**:", "  ros__parameters:"]
    for row in rows:
        marks = "; ".join(filter(None, (row.values, "live" if row.live else "")))
        lines.append(f"    # {row.description}" + (f" [{marks}]" if marks else ""))
        lines.append(f"    {row.name}: {json.dumps(row.default)}")
    return "\n".join(lines) + "\n"


def table(node: str = "fuse_node") -> str:
    """Return a node's parameter table in Markdown."""
    lines = ["| parameter | default | values | live | meaning |", "|---|---|---|---|---|"]
    for row in parameters(SCHEMAS[node]):
        live = "yes" if row.live else ""
        cells = (f"`{row.name}`", f"`{json.dumps(row.default)}`", row.values, live, row.description)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_table(page: str, node: str) -> str:
    """Return a page with the node's parameter table inserted between its two markers.

    Raises:
        ValueError: if a marker is missing.
    """
    begin, end = TABLE_BEGIN.format(node=node), TABLE_END.format(node=node)
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{table(node)}{end}{after}"


def main() -> None:
    """Write the nodes' files in `config/` and their tables in `docs/` of the source tree."""
    root = Path(__file__).resolve().parents[1]
    for node in SCHEMAS:
        name = node.removesuffix("_node")
        (root / "config" / f"{name}.yaml").write_text(yaml(node), encoding="utf-8")
        page = root / "docs" / PAGES[node]
        page.write_text(with_table(page.read_text(encoding="utf-8"), node), encoding="utf-8")


if __name__ == "__main__":
    main()
