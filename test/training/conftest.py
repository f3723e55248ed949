# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Fixtures for the training package; its tests are skipped without torch.

Tests marked slow run if MAGICFUSE_SLOW_TESTS=1 is set.
"""

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# The suite's workers share the cores. With a thread for each core, torch's threads of one worker
# wait for a core that another holds, and a test takes three times as long.
os.environ["OMP_NUM_THREADS"] = "1"
torch = pytest.importorskip("torch", reason="the training package needs torch")

from magicfuse_ros.bundle import Bundle  # noqa: E402
from magicfuse_training.data.crops import Batch  # noqa: E402
from magicfuse_training.export.bundle import export_bundle, provenance  # noqa: E402
from magicfuse_training.export.weights import load_weights  # noqa: E402
from magicfuse_training.model import MagicFuse  # noqa: E402
from magicfuse_training.preset import Preset, load_preset  # noqa: E402
from magicfuse_training.stages.stage import to_device  # noqa: E402


def _build_operator_table_once() -> None:
    """Cache torch's table of ONNX operators, which torch otherwise rebuilds for every graph.

    Rebuilding it takes a fifth of an export.

    The table is private to torch: with a version that has none at this place, tests take longer.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        build = functools.cache(ONNXRegistry.from_torchlib)
    except (ImportError, AttributeError):
        return
    # torch calls it on the class and on an instance.
    ONNXRegistry.from_torchlib = lambda _=None, **options: build(**options)


_build_operator_table_once()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: runs only if MAGICFUSE_SLOW_TESTS=1 is set")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "MAGICFUSE_SLOW_TESTS" in os.environ:
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: set MAGICFUSE_SLOW_TESTS=1"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Take back what a test or a command has set."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_preset() -> Preset:
    """Return nano's kinds of layers, few of each and narrow, for 64 x 96 pixels.

    Every layer costs a tenth of a second in an export.
    """
    nano = load_preset("nano")
    unet = {"widths": [8, 16], "heads": 2, "time_channels": 8}
    mkf = {
        "widths": [8, 16, 8],
        "scales": [1, 2, 1],
        "attention": [False, True, False],
        "time_channels": 8,
    }
    return nano.model_copy(
        update={
            "name": "small",
            "height": 64,
            "width": 96,
            "autoencoder": nano.autoencoder.model_copy(
                update={
                    "latent_channels": 4,
                    "condition_channels": 8,
                    "detail_channels": 8,
                    "stem_channels": 8,
                    "context_channels": [8, 16],
                    "context_blocks": [1, 2],
                    "condition_blocks": 1,
                    "decoder_channels": (8, 8),
                }
            ),
            "ikr": nano.ikr.model_copy(update=unet),
            "ckg": nano.ckg.model_copy(update=unet),
            "mkf": nano.mkf.model_copy(update=mkf),
            "segmentation_width": 8,
        }
    )


@pytest.fixture(scope="session")
def least_preset(small_preset: Preset) -> Preset:
    """Return a model with the fewest layers possible, because every exported layer takes time."""
    unet = small_preset.ikr.model_copy(update={"widths": [8], "heads": 0})
    mkf = {"widths": [8], "scales": [1], "attention": [False]}
    return small_preset.model_copy(
        update={"ikr": unet, "ckg": unet, "mkf": small_preset.mkf.model_copy(update=mkf)}
    )


@pytest.fixture(scope="session")
def build_model(small_preset: Preset) -> Callable[[], MagicFuse]:
    """Return a maker of models in which every layer has an effect: none is left at zero."""
    return lambda: _alive(small_preset)


@pytest.fixture(scope="session")
def exported(
    build_model: Callable[[], MagicFuse], tmp_path_factory: pytest.TempPathFactory
) -> tuple[MagicFuse, Path]:
    """Return such a model and the folder of its bundle; tests do not change them.

    An export takes many seconds, so it is done once for all workers of the suite. It leaves the
    model with its weights rounded as in the bundle.
    """
    model = build_model()
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small"
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            load_weights(model, Bundle.load(folder))
        else:
            made = provenance({"ikr": 1.0}, "abc", ["three scenes"], "your own")
            export_bundle(model, folder, made)
    return model, folder


@pytest.fixture(scope="session")
def small_paper() -> MagicFuse:
    """Return the published structure at a fraction of its size: 128 x 160 pixels, few layers."""
    paper = load_preset("paper")
    unet = {
        "widths": [32, 32, 64],
        "attention": [False, True, False],
        "blocks": 1,
        "up_blocks": 2,
        "heads": 2,
        "time_channels": 128,
    }
    narrow = {"condition_channels": 8, "detail_channels": 8, "noise_channels": 4}
    preset = paper.model_copy(
        update={
            "height": 128,
            "width": 160,
            "steps": [2],
            "default_steps": 2,
            "autoencoder": paper.autoencoder.model_copy(
                update={**narrow, "decoder_channels": (8, 8, 8), "encoder_blocks": 1}
            ),
            "ikr": paper.ikr.model_copy(update=unet),
            "ckg": paper.ckg.model_copy(update=unet),
            "mkf": paper.mkf.model_copy(
                update={
                    "widths": [32, 32],
                    "scales": [1, 1],
                    "attention": [True, True],
                    "time_channels": 128,
                    "estimate_channels": 32,
                }
            ),
        }
    )
    return _alive(preset)


def _alive(preset: Preset) -> MagicFuse:
    from training_process import enliven

    torch.manual_seed(0)
    model = MagicFuse(preset).eval()
    enliven(model)
    if model.segmentation.refined:
        model.segmentation.temperature.fill_(0.2)
    return model


@pytest.fixture
def least_model(least_preset: Preset) -> MagicFuse:
    """Return a model of the fewest layers that the test may change."""
    return _alive(least_preset)


@pytest.fixture
def small_model(build_model: Callable[[], MagicFuse]) -> MagicFuse:
    """Return a model that the test may change."""
    return build_model()


@pytest.fixture
def batch() -> Batch:
    """Return three crops of three scenes: plain, with thermal, at night."""
    from training_process import small_crops

    return to_device(next(iter(small_crops())), torch.device("cpu"))


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that runs git in its own folder, even if a git hook runs the tests."""
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")

    def run(*arguments: object, folder: Path = tmp_path) -> str:
        command = ["git", "-C", str(folder), *who, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return run
