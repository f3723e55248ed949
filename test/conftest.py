# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest import MonkeyPatch

from cuda_stand_in import Library
from magicfuse_ros.backends import cudart
from magicfuse_ros.backends.cuda import Device, missing_device
from tiny_bundle import UNCERTAINTY, add_int8, build


def pytest_configure() -> None:
    """Let Ctrl-C reach the tests' child processes: background jobs of a shell ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A worker runs a whole file: if a long one began late, that worker would end alone with it.
LONG = (
    "test_train_commands", "test_replay_live", "test_processes", "test_adapt", "test_export",
    "test_downstream", "test_deadline_node", "test_fuse_node", "test_faults", "test_fuse_cameras",
    "test_fuse_node_process", "test_ground_cloud_node", "test_process_end", "test_replay",
    "test_demo", "test_bench",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files, then those of training."""
    rank = {name: i for i, name in enumerate(LONG)}
    items.sort(
        key=lambda item: (rank.get(item.path.stem, len(LONG)), "training" not in item.path.parts)
    )


@pytest.fixture(scope="session", autouse=True)
def _shared_engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests from using the user's built engines; compile each network once in a worker."""
    with MonkeyPatch.context() as patch:
        patch.setenv("MAGICFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: MonkeyPatch) -> None:
    """Give a test an engine cache that is empty."""
    monkeypatch.setenv("MAGICFUSE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny bundle; tests that modify it copy it first."""
    return build(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_uncertain_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny bundle with `thermal_uncertainty`; tests that modify it copy it first."""
    return build(tmp_path_factory.mktemp("bundles") / "uncertain", UNCERTAINTY)


@pytest.fixture(scope="session")
def tiny_int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny bundle with int8 graphs; tests that modify it copy it first."""
    return add_int8(build(tmp_path_factory.mktemp("bundles") / "int8"))


@pytest.fixture
def runtime(monkeypatch: MonkeyPatch) -> Library:
    """Install the stand-in instead of libcudart; return it."""
    library = Library()
    load = ctypes.CDLL

    def stand_in(path: str) -> Any:
        return library if "libcudart" in path else load(path)

    monkeypatch.setattr("magicfuse_ros.backends.cudart.ctypes.CDLL", stand_in)
    monkeypatch.setattr(cudart, "device_name", lambda index: "Test GPU")
    monkeypatch.setattr(cudart, "_loaded", [])
    return library


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """Return both kinds of device, in turn."""
    if request.param == "stand-in":
        request.getfixturevalue("runtime")
    elif reason := missing_device():
        pytest.skip(f"no GPU: {reason}")
    return Device()


@pytest.fixture
def press_ctrl_c() -> Iterator[Callable[[], None]]:
    """Yield a function that does what Python does at Ctrl-C.

    A real signal would end the test process if ROS left a handler of its own.
    """
    old = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press() -> None:
        handler = signal.getsignal(signal.SIGINT)
        assert callable(handler)
        handler(signal.SIGINT, None)

    yield press
    signal.signal(signal.SIGINT, old or signal.SIG_DFL)
