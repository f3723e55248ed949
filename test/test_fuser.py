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

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import NETWORKS, Bundle
from magicfuse_ros.errors import BundleError, FrameError, MagicFuseError
from magicfuse_ros.fuser import OUTPUTS, FusedFrame, Fuser, Output
from magicfuse_ros.geometry import FITS, Fit, Geometry
from magicfuse_ros.sampler import Sampler

STAGES = ["prepare", "encoder", "ikr", "ckg", "mkf", "segmentation", "decoder", "finish", "total"]
SIZE = (64, 96)


@pytest.fixture(scope="module")
def bundle(tiny_uncertain_bundle: Path) -> Bundle:
    return Bundle.load(tiny_uncertain_bundle)


@pytest.fixture(scope="module", params=FITS)
def fit(request: pytest.FixtureRequest) -> Fit:
    chosen: Fit = request.param
    return chosen


@pytest.fixture(scope="module")
def fuser(bundle: Bundle, fit: Fit) -> Fuser:
    return Fuser(bundle, select(), fit=fit)


def scene(rows: int, columns: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def arrays(frame: FusedFrame) -> dict[str, npt.NDArray[np.uint8]]:
    return {name: array for name in OUTPUTS if (array := getattr(frame, name)) is not None}


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 300), columns=st.integers(1, 300))
def test_every_output_has_the_size_of_its_input(fuser: Fuser, rows: int, columns: int) -> None:
    image = scene(rows, columns)
    before = image.copy()
    frame = fuser(image)
    for name, array in arrays(frame).items():
        colour = (3,) if name in ("mag_image", "restored") else ()
        assert array.shape == (rows, columns, *colour)
        assert array.dtype == np.uint8 and array.flags.c_contiguous and array.flags.writeable
    assert frame.mask is not None and frame.mask.max() < 3
    np.testing.assert_array_equal(image, before)


def test_outputs_are_the_sample_brought_back(bundle: Bundle, fuser: Fuser, fit: Fit) -> None:
    geometry = Geometry.fit((150, 290), SIZE, fit)
    image = scene(150, 290)
    prepared = geometry.forward(image)[np.newaxis]
    sample = Sampler(bundle, select()).sample(prepared, frozenset(OUTPUTS), 2, 0.4)
    for name, array in arrays(fuser(image)).items():
        labels = name in ("mask", "confidence")
        back = geometry.labels_back if labels else geometry.image_back
        np.testing.assert_array_equal(array, back(getattr(sample, name)), err_msg=name)


def test_frames_belong_to_the_caller(fuser: Fuser) -> None:
    image = scene(*SIZE)
    frame = fuser(image)
    kept = {name: array.copy() for name, array in arrays(frame).items()}
    for seed in (1, 2):
        fuser(scene(*SIZE, seed))
    for name, array in arrays(frame).items():
        np.testing.assert_array_equal(array, kept[name])
        assert not np.shares_memory(array, image)
        array[:] = 0
    for name, array in arrays(fuser(image)).items():
        np.testing.assert_array_equal(array, kept[name])


def test_layouts_of_the_same_image_give_the_same_frame(fuser: Fuser) -> None:
    image = scene(*SIZE)
    expected = arrays(fuser(image))
    padded = np.zeros((SIZE[0], SIZE[1] + 5, 3), np.uint8)
    padded[:, : SIZE[1]] = image
    frozen = image.copy()
    frozen.setflags(write=False)
    bgr = np.ascontiguousarray(image[..., ::-1])
    for same in (padded[:, : SIZE[1]], frozen, bgr[..., ::-1], np.asfortranarray(image)):
        for name, array in arrays(fuser(same)).items():
            np.testing.assert_array_equal(array, expected[name])


def test_only_what_is_wanted_comes_back(fuser: Fuser) -> None:
    frame = fuser(scene(30, 40), ["restored", "restored"])
    assert list(arrays(frame)) == ["restored"]
    assert frame.stages_ms["ckg"] == frame.stages_ms["mkf"] == frame.stages_ms["segmentation"] == 0
    assert arrays(fuser(scene(30, 40), ())) == {}


def test_the_uncertainty_comes_with_the_estimate_or_alone(fuser: Fuser) -> None:
    names: tuple[Output, ...] = ("thermal_estimate", "thermal_uncertainty")
    both = arrays(fuser(scene(30, 40), names))
    assert list(both) == list(names)
    assert not np.array_equal(both["thermal_estimate"], both["thermal_uncertainty"])
    for name in names:
        alone = arrays(fuser(scene(30, 40), [name]))
        assert list(alone) == [name]
        np.testing.assert_array_equal(alone[name], both[name])


def test_a_bundle_without_the_uncertainty(tiny_bundle: Path, bundle: Bundle) -> None:
    certain, uncertain = Fuser(Bundle.load(tiny_bundle), select()), Fuser(bundle, select())
    assert uncertain.outputs == OUTPUTS
    assert set(OUTPUTS) - set(certain.outputs) == {"thermal_uncertainty"}
    image = scene(30, 40)
    with pytest.raises(
        BundleError, match=r"bundle 'tiny' has no output 'thermal_uncertainty': its"
    ):
        certain(image, ["mask", "thermal_uncertainty"])
    ours, theirs = arrays(certain(image)), arrays(uncertain(image))
    assert tuple(ours) == certain.outputs and tuple(theirs) == OUTPUTS
    for name in ("mag_image", "restored", "mask", "confidence"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert not np.array_equal(ours["thermal_estimate"], theirs["thermal_estimate"])


def test_stages_are_timed(fuser: Fuser) -> None:
    frame = fuser(scene(200, 300))
    assert list(frame.stages_ms) == STAGES
    assert all(ms > 0 for ms in frame.stages_ms.values())
    parts = sum(ms for stage, ms in frame.stages_ms.items() if stage != "total")
    assert parts <= frame.stages_ms["total"]


def test_steps_and_tau_change_live(bundle: Bundle) -> None:
    fuser = Fuser(bundle, select())
    assert (fuser.steps, fuser.tau) == (2, 0.4)
    image = scene(*SIZE)
    default = fuser(image)
    fuser.steps = 1
    assert fuser(image).steps == 1 and default.steps == 2
    assert not np.array_equal(fuser(image).restored, default.restored)  # type: ignore[arg-type]
    fuser.steps, fuser.tau = 2, 0.0
    assert not np.array_equal(fuser(image).mag_image, default.mag_image)  # type: ignore[arg-type]
    other = Fuser(bundle, select(), steps=1, tau=1.0)
    assert (other.steps, other.tau) == (1, 1.0)


def test_refused_settings_name_the_limit_and_change_nothing(bundle: Bundle) -> None:
    fuser = Fuser(bundle, select())
    with pytest.raises(BundleError, match=r"steps is 7; .* trained for \[1, 2\]"):
        fuser.steps = 7
    for tau in (-0.1, 1.1, float("nan")):
        with pytest.raises(MagicFuseError, match=f"tau is {tau}; expected 0 to 1"):
            fuser.tau = tau
    assert (fuser.steps, fuser.tau) == (2, 0.4)
    with pytest.raises(BundleError, match="steps is 7"):
        Fuser(bundle, select(), steps=7)
    with pytest.raises(MagicFuseError, match="tau is 2"):
        Fuser(bundle, select(), tau=2)
    with pytest.raises(MagicFuseError, match="fit is 'crop'; expected one of letterbox, stretch"):
        Fuser(bundle, select(), fit="crop")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[1]], "image is a list; expected a numpy array"),
        (None, "image is a NoneType"),
        (np.zeros((4, 4, 3), np.float32), "dtype float32; expected uint8"),
        (np.zeros((4, 4, 3), np.uint16), "dtype uint16"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\); expected \(rows, columns, 3\)"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape \(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (np.zeros((4, 0, 3), np.uint8), "at least one pixel"),
    ],
)
def test_images_that_cannot_be_fused(fuser: Fuser, image: Any, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        fuser(image)


def test_unknown_output(fuser: Fuser) -> None:
    with pytest.raises(MagicFuseError, match="output 'depth' is not known; expected mag_image,"):
        fuser(scene(4, 4), ["mask", "depth"])  # type: ignore[list-item]


def test_warm_up_runs_every_network(bundle: Bundle) -> None:
    frames: list[FusedFrame] = []

    class Recording(Fuser):
        def __call__(self, *args: Any, **kwargs: Any) -> FusedFrame:
            frames.append(super().__call__(*args, **kwargs))
            return frames[-1]

    Recording(bundle, select()).warm_up()
    assert len(frames) == 1
    assert all(frames[0].stages_ms[network] > 0 for network in NETWORKS)
    frames.clear()
    backend = select()
    backend.records = True
    fuser = Recording(bundle, backend)
    fuser.warm_up()
    assert {frame.steps for frame in frames} == {*bundle.manifest.step_grids}
    assert fuser.steps == bundle.manifest.default_steps
    asked = {(f.steps, *(n for n in OUTPUTS if getattr(f, n) is not None)) for f in frames}
    for steps in bundle.manifest.step_grids:
        assert {(steps, "restored"), (steps, "mag_image", "mask", "confidence")} <= asked
