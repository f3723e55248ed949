"""The processes of the demo: camera, `fuse_node`, and this one, which records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from sensor_msgs.msg import Image
from std_msgs.msg import String

from magicfuse_ros.demo.report import CAMERA, DIAGNOSTICS, MAG_IMAGE, NODE
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.ros.recorder import Recorder
from magicfuse_ros.ros.session import Session

CONFIG = Path(__file__).resolve().parents[2] / "config"
IMAGES = (
    "mag_image",
    "restored_image",
    "thermal_estimate",
    "segmentation/mask",
    "segmentation/confidence",
    "segmentation/overlay",
)
TOPICS: dict[str, Any] = {
    CAMERA: Image,
    **{f"{NODE}/{name}": Image for name in IMAGES},
    f"{NODE}/segmentation/label_info": String,
    DIAGNOSTICS: DiagnosticArray,
}
BRING_UP_S = 60.0
QUIET_S = 2.0  # after the camera's end: so long without a result, and all are there
END_S = 10.0
_LOG_LINES = 15

Process = subprocess.Popen[str]


def play_and_record(
    camera: Mapping[str, Any], frames: int, bundle: Path, out: Path, console: Console
) -> int:
    """Play a source into `fuse_node` and record everything into `out`/bag.

    Args:
        camera: parameters of `play_node`.
        frames: how many frames are expected, for the progress bar.
        bundle: the folder that the node loads.
        out: a folder with an empty folder log.
        console: for the progress.

    Returns:
        The number of frames sent.

    Raises:
        MagicFuseError: if the node or the camera fails; the message has the end of its log.
    """
    isolate(out)
    log = out / "log"
    with ExitStack() as stack:
        # The arguments that launch makes of fuse.launch.py.
        namespace, _, name = NODE.rpartition("/")
        node_log = log / "fuse_node.txt"
        overrides = parameter_file(log / "fuse_node.yaml", {"bundle": str(bundle)})
        arguments = ["-r", f"__node:={name}", "-r", f"__ns:={namespace or '/'}"]
        arguments += ["--params-file", str(CONFIG / "fuse.yaml"), "--params-file", str(overrides)]
        arguments += ["-r", f"image:={CAMERA}"]
        node = stack.enter_context(child("fuse_node", arguments, node_log))
        session = stack.enter_context(Session("demo"))
        recorder = Recorder(session.node, out / "bag", TOPICS)
        stack.callback(recorder.close)
        console.print("starting fuse_node ...")
        if not session.bring_up(NODE, lambda: node.poll() is None, BRING_UP_S):
            raise MagicFuseError(f"fuse_node did not become active:\n{tail(node_log)}")

        camera_log = log / "play_node.txt"
        values = {**camera, "wait_for": 2}  # the node and the recorder
        parameters = parameter_file(log / "play_node.yaml", values)
        arguments = ["--params-file", str(parameters), "-r", f"image:={CAMERA}"]
        player = stack.enter_context(child("play_node", arguments, camera_log))
        with bar(console, frames) as show:
            while player.poll() is None and node.poll() is None:
                session.spin_until(lambda: False, 0.2)
                show(recorder.counts[CAMERA])
        if node.poll() is not None:
            raise MagicFuseError(f"fuse_node ended while it was in use:\n{tail(node_log)}")
        if player.returncode != 0:
            raise MagicFuseError(f"the camera failed:\n{tail(camera_log)}")
        wait_for_quiet(session, lambda: recorder.counts[MAG_IMAGE])
        if (code := end(node)) != 0:
            raise MagicFuseError(f"fuse_node ended with code {code}:\n{tail(node_log)}")
    return sent_frames(camera_log)


def isolate(out: Path) -> None:
    """Let this process and its children meet on this machine only, apart from any other ROS."""
    os.environ.update(
        ROS_DOMAIN_ID=str(1 + os.getpid() % 100),
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
        ROS_LOG_DIR=str(out / "log"),
        RMW_IMPLEMENTATION="rmw_fastrtps_cpp",
        FASTDDS_DEFAULT_PROFILES_FILE=str(CONFIG / "fastdds.xml"),
    )


@contextmanager
def child(module: str, arguments: list[str], log: Path) -> Iterator[Process]:
    """Run a node of this package in a process of its own, which ends with the block."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"magicfuse_ros.ros.{module}", "--ros-args", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            end(process)


def end(process: Process) -> int:
    """Ask a process to end, make it end if it does not, and return its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextmanager
def bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yields a function that takes what is done."""
    columns = (TextColumn("playing"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


def wait_for_quiet(session: Session, count: Callable[[], int]) -> None:
    """Serve the session until `count` has stood still for `QUIET_S`."""
    grown = True
    while grown:
        seen = count()
        grown = session.spin_until(partial(_above, count, seen), QUIET_S)


def _above(count: Callable[[], int], limit: int) -> bool:
    return count() > limit


def parameter_file(path: Path, values: Mapping[str, Any]) -> Path:
    """Write ROS parameters for any node; JSON values are YAML."""
    lines = [f"    {name}: {json.dumps(value)}" for name, value in values.items()]
    path.write_text("\n".join(["/**:", "  ros__parameters:", *lines]) + "\n", encoding="utf-8")
    return path


def sent_frames(log: Path) -> int:
    """Return what `play_node` printed as its last line."""
    return int(json.loads(log.read_text().splitlines()[-1])["sent"])


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
