# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Runs nodes of this package as child processes, and isolates their ROS domain."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from magicfuse_ros.bundle.default import share_folders
from magicfuse_ros.child_process import module_command
from magicfuse_ros.errors import MagicFuseError

END_S = 10.0
_LOG_LINES = 15
_DOMAINS = 100  # outgoing connections may occupy the ports of higher domains
_SHARED_MEMORY = Path("/dev/shm")
# If one of these is set, Fast DDS also talks to what it names, whatever the domain.
_DISCOVERY = ("ROS_DISCOVERY_SERVER", "ROS_SUPER_CLIENT", "ROS_STATIC_PEERS", "ROS2_EASY_MODE")
_SEGMENTS = 3 * 64 * 2**20  # bytes that the profile takes for fuse_node, player and recorder

Process = subprocess.Popen[str]
_claims: list[socket.socket] = []  # of this process, until it ends


def isolate(log: Path) -> None:
    """Restrict this process and its children to this machine, separate from any other ROS nodes.

    Args:
        log: folder for ROS's own log files.
    """
    for name in _DISCOVERY:
        os.environ.pop(name, None)
    os.environ.update(
        ROS_DOMAIN_ID=str(_free_domain()),
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
        ROS_LOG_DIR=str(log),
    )
    profile = "fastdds.xml"
    if os.environ.get("ROS_DISTRO") == "humble":  # Humble does not know the range yet
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
        profile = "fastdds_localhost.xml"  # the variable does not restrict a profile's transports
    if not _has_shared_memory():
        return  # without its segments, the profile would leave only UDP, which loses images
    for path in (folder / "config" / profile for folder in share_folders()):
        if path.is_file():
            os.environ[profile_variable()] = str(path)
            return


def profile_variable() -> str:
    """Return the variable that names the profile; from Kilted on, the older one brings a warning.

    `ROS_DISTRO` is not set where ROS comes as wheels, so a module that came with Kilted tells.
    """
    rclpy = find_spec("rclpy")  # not of the module itself: that would import rclpy, if it can
    folders = (rclpy.submodule_search_locations if rclpy else None) or []
    name = "subscription_content_filter_options.py"
    kilted = any((Path(folder) / name).is_file() for folder in folders)
    return f"{'FASTDDS' if kilted else 'FASTRTPS'}_DEFAULT_PROFILES_FILE"


def _has_shared_memory() -> bool:
    try:
        return shutil.disk_usage(_SHARED_MEMORY).free >= _SEGMENTS
    except OSError:
        return False


def _free_domain() -> int:
    """Return a ROS domain that is not the caller's and seems unused on this machine."""
    caller = os.environ.get("ROS_DOMAIN_ID", "").strip() or "0"
    numbers = [1 + (os.getpid() + i) % _DOMAINS for i in range(_DOMAINS)]
    others = [number for number in numbers if str(number) != caller.lstrip("0")]
    for number in others:
        if claimed := claim_domain(number):
            _claims.append(claimed)
            return number
    return others[0]


def claim_domain(domain: int) -> socket.socket | None:
    """Claim a ROS domain on this machine until the socket is closed; None if it is in use.

    A domain counts as in use from its claim on: its first node needs seconds until it has a port.
    """
    first = 7410 + 250 * domain  # the port of a domain's first DDS participant
    probe = _bound(first)
    if probe is None:
        return None
    probe.close()
    return _bound(first + 2 * 119, "127.0.0.1")  # the port of its last one


def _bound(port: int, address: str = "") -> socket.socket | None:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind((address, port))
    except OSError:
        bound.close()
        return None
    return bound


@contextmanager
def child(node: str, arguments: list[str], log: Path) -> Iterator[Process]:
    """Run a module of `magicfuse_ros.ros` as a separate process that ends with the block.

    It does not get the terminal's Ctrl-C: the caller ends its children in the right order.
    """
    with log.open("w") as file:
        process = subprocess.Popen(
            [*module_command(f"magicfuse_ros.ros.{node}"), "--ros-args", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end(process)


def end(process: Process) -> int:
    """Ask a process to end, kill it if it does not, and return its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def parameter_file(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a ROS parameter file for any node; JSON values are valid YAML.

    Characters are not escaped: ROS's parser refuses JSON's escapes of two surrogates.

    Raises:
        MagicFuseError: for a text that is not Unicode, such as a path in another encoding.
    """
    lines = [
        f"    {name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()
    ]
    text = "\n".join(["/**:", "  ros__parameters:", *lines]) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except UnicodeEncodeError as error:
        wrong = next(repr(v) for v in values.values() if not _is_unicode(str(v)))
        raise MagicFuseError(f"{wrong} is not UTF-8, which ROS parameters must be") from error
    return path


def _is_unicode(text: str) -> bool:
    """Return whether a text has no bytes that Python could not decode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def last_object(log: Path) -> dict[str, Any]:
    """Return the last JSON object that a player has printed; a library may have printed more.

    Raises:
        MagicFuseError: if there is none.
    """
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            with suppress(ValueError):
                found: dict[str, Any] = json.loads(line)
                return found
    raise MagicFuseError(f"the player has printed no result:\n{tail(log)}")


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
