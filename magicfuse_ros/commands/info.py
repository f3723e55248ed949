# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse info`: explains a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from magicfuse_ros import backends
from magicfuse_ros.bundle import NETWORKS, Bundle, Manifest
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.command_line import output_console, unclipped
from magicfuse_ros.commands.options import BundleArgument
from magicfuse_ros.errors import BackendError
from magicfuse_ros.outputs import Output, available_outputs, frame_gflop
from magicfuse_ros.thermal import standard_deviations


def info_command(
    bundle: BundleArgument = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the same as one JSON object, for scripts.")
    ] = False,
) -> None:
    """Explain a bundle: networks, cost, schedule, classes, provenance and scores."""
    loaded = Bundle.load(bundle or default_bundle())
    manifest = loaded.manifest
    if as_json:
        print(json.dumps(_as_json(loaded), indent=2))  # ASCII, which every output can show
        return
    console = output_console()
    console.print(Text(f"{manifest.name} (preset {manifest.preset}, {manifest.precision})", "bold"))
    console.print(Text(f"{loaded.root}\nfingerprint {loaded.fingerprint}"), soft_wrap=True)
    for table in (
        _networks(manifest),
        _cost(loaded),
        _pairs("Sampling", _sampling(manifest)),
        _pairs("Backends on this machine", _backends(loaded)),
        _classes(manifest),
        _pairs("Quantization", _quantization(manifest)),
        _pairs("Provenance", _provenance(manifest)),
        _pairs("Scores", dict(_flat(manifest.provenance.scores))),
    ):
        console.print(unclipped(table))


def _as_json(bundle: Bundle) -> dict[str, Any]:
    """Return all of `bundle.json`, and what follows from it or is found on this machine."""
    grids = sorted(bundle.manifest.step_grids)
    gflop = {
        name: {str(k): round(frame_gflop(bundle, wanted, k), 6) for k in grids}
        for name, wanted in _wanted(bundle).items()
    }
    return {
        "root": str(bundle.root),
        "fingerprint": bundle.fingerprint,
        "gflop_of_a_frame": gflop,
        "backends": _backends(bundle),
        "bundle": bundle.manifest.model_dump(mode="json"),
    }


def _networks(manifest: Manifest) -> Table:
    table = Table("network", "file", title="Networks", title_justify="left")
    for column in ("parameters", "GFLOP a call"):
        table.add_column(column, justify="right")
    specs = [manifest.networks[name] for name in NETWORKS]
    for name, spec in zip(NETWORKS, specs, strict=True):
        table.add_row(name, spec.file, f"{spec.parameters:,}", f"{spec.gflop:.3f}")
    table.add_section()
    table.add_row("all", "", f"{sum(spec.parameters for spec in specs):,}", "")
    return table


def _cost(bundle: Bundle) -> Table:
    table = Table("steps K", title="GFLOP of a frame", title_justify="left")
    frames = _wanted(bundle)
    for name in frames:
        table.add_column(name, justify="right")
    for steps in sorted(bundle.manifest.step_grids):
        default = " (default)" if steps == bundle.manifest.default_steps else ""
        cells = [f"{frame_gflop(bundle, outputs, steps):.3f}" for outputs in frames.values()]
        table.add_row(f"{steps}{default}", *cells)
    return table


def _wanted(bundle: Bundle) -> dict[str, tuple[Output, ...]]:
    return {
        "MagImg, mask": ("mag_image", "mask", "confidence"),
        "all outputs": available_outputs(bundle.manifest),
        "restored only": ("restored",),
    }


def _sampling(manifest: Manifest) -> dict[str, str]:
    schedule = manifest.schedule
    terminal = "zero terminal SNR" if schedule.zero_terminal_snr else "as is"
    latent = (manifest.latent_channels, *(s // manifest.latent_scale for s in _size(manifest)))
    return {
        "image": "{} x {} (rows x columns)".format(*_size(manifest)),
        "latent": "{} x {} x {}".format(*latent),
        "schedule": f"{schedule.train_steps} levels, beta {schedule.beta_start} to "
        f"{schedule.beta_end}, {terminal}",
        "prediction": schedule.prediction,
        **{f"grid K = {k}": str(grid) for k, grid in sorted(manifest.step_grids.items())},
        "tau": str(manifest.tau),
        "seed": str(manifest.seed),
        "thermal uncertainty": _uncertainty(manifest),
    }


def _uncertainty(manifest: Manifest) -> str:
    coding = manifest.thermal_uncertainty
    if coding is None:
        return "none: this bundle does not estimate it"
    deviations = standard_deviations(coding)
    return f"standard deviation, {deviations[0]} to {deviations[-1]} gray levels"


def _backends(bundle: Bundle) -> dict[str, str]:
    """Say for each backend whether it can run a bundle here, and which one `auto` takes."""
    try:
        choice = backends.choose("auto", "auto", bundle)
        found = {"auto": f"{choice.used} ({choice.why})"}
    except BackendError as error:
        found = {"auto": str(error)}
    names = (name for name in backends.BACKENDS if name != "auto")
    return found | {name: backends.obstacle(name, bundle) or "can run" for name in names}


def _size(manifest: Manifest) -> tuple[int, int]:
    return manifest.height, manifest.width


def _classes(manifest: Manifest) -> Table:
    table = Table("id", "name", "colour", "thermal", "drivable", title="Classes")
    table.title_justify = "left"
    for c in manifest.classes:
        swatch = Text("    ", style=f"on rgb({','.join(map(str, c.color))})")
        swatch.append(" #{:02x}{:02x}{:02x}".format(*c.color), style="default on default")
        yes = ["yes" if flag else "" for flag in (c.thermal, c.drivable)]
        table.add_row(str(c.id), Text(c.name), swatch, *yes)
    return table


def _provenance(manifest: Manifest) -> dict[str, str]:
    origin = manifest.provenance
    minutes = origin.training_minutes
    return {
        "data": "\n".join(origin.data),
        "licence of the weights": origin.weights_license,
        "commit": origin.commit,
        "created": origin.created,
        "training": "\n".join(f"{stage}: {value:g} min" for stage, value in minutes.items()),
        **({"recipe": origin.recipe} if origin.recipe else {}),
    }


def _quantization(manifest: Manifest) -> dict[str, str]:
    """Say which part of each network is int8, and what accuracy that costs."""
    if manifest.quantization is None:
        return {}
    rows = {"tool": manifest.quantization.tool}
    for name in NETWORKS:
        if graph := manifest.networks[name].int8:
            kept = f"; float32: {', '.join(graph.float32_layers)}" if graph.float32_layers else ""
            rows[name] = f"{graph.file}: {graph.layers} layers in int8{kept}"
    return rows | dict(_flat(manifest.quantization.losses))


def _pairs(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for key, value in rows.items():
        table.add_row(Text(key), Text(value))
    if not rows:
        table.add_row("none recorded")
    return table


def _flat(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", f"{value:.4g}" if isinstance(value, float) else str(value)
