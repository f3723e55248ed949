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

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.errors import CalibrationError
from magicfuse_ros.navigation import camera_model
from magicfuse_ros.navigation.camera_model import CameraModel, Window

K = (50.0, 0.0, 31.5, 0.0, 52.0, 23.5, 0.0, 0.0, 1.0)
ZERO = (0.0,) * 9
NO_P = (0.0,) * 12
LENSES: dict[str, tuple[str, tuple[float, ...]]] = {
    "none": ("plumb_bob", ()),
    "zero": ("anything", (0.0, 0.0, 0.0, 0.0)),
    "plumb_bob": ("plumb_bob", (-0.31, 0.11, 0.001, -0.002, -0.01)),
    "rational_polynomial": (
        "rational_polynomial",
        (0.21, -0.1, 0.0005, -0.0007, 0.012, 0.31, -0.05, 0.01),
    ),
    "equidistant": ("equidistant", (-0.02, 0.005, -0.001, 0.0002)),
    "equidistant, zero": ("equidistant", (0.0,) * 4),
}


def model(lens: str) -> CameraModel:
    return CameraModel.from_camera_info(48, 64, *LENSES[lens], K, ZERO, NO_P)


def by_hand(lens: str, point: np.ndarray) -> np.ndarray:
    """Project one point by the formulas of the OpenCV documentation, coefficient by coefficient."""
    name, d = LENSES[lens]
    x, y = point[:2] / point[2]
    r2 = x * x + y * y
    if name == "equidistant":
        r = np.sqrt(r2)
        a = np.arctan(r)
        scale = a * (1 + sum(k * a ** (2 * i) for i, k in enumerate(d, start=1))) / r
        x, y = x * scale, y * scale
    elif any(d):
        k1, k2, p1, p2, k3, *rest = d
        k4, k5, k6 = rest or (0.0, 0.0, 0.0)
        scale = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        x, y = (
            x * scale + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * scale + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    return np.array([K[0] * x + K[2], K[4] * y + K[5]])


def test_a_camera_without_distortion_is_a_pinhole() -> None:
    rays = model("none").rays()
    assert rays.shape == (48, 64, 3)
    v, u = 40, 10
    expected = np.array([(u - 31.5) / 50.0, (v - 23.5) / 52.0, 1.0])
    np.testing.assert_allclose(rays[v, u], expected / np.linalg.norm(expected), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=2), 1.0)


@pytest.mark.parametrize("lens", LENSES)
def test_every_ray_is_imaged_at_its_pixel(lens: str) -> None:
    rays = model(lens).rays()
    assert np.isfinite(rays).all()
    for v, u in ((0, 0), (47, 63), (5, 50), (24, 32), (47, 0)):
        np.testing.assert_allclose(by_hand(lens, rays[v, u]), [u, v], atol=0.01)


@pytest.mark.parametrize("lens", LENSES)
@settings(deadline=None, max_examples=30)
@given(x=st.floats(-0.6, 0.6), y=st.floats(-0.45, 0.45), depth=st.floats(0.1, 100.0))
def test_projection_is_the_documented_formula(lens: str, x: float, y: float, depth: float) -> None:
    point = np.array([x + 1e-6, y, 1.0]) * depth
    np.testing.assert_allclose(model(lens).project(point[None])[0], by_hand(lens, point), atol=1e-6)


def test_pixels_that_no_ray_reaches_have_none() -> None:
    # r (1 - 0.9 r^2) has its top at r = 0.61: 0.41 on the sensor, 20 pixels from the centre
    camera = CameraModel.from_camera_info(48, 64, "plumb_bob", (-0.9, 0, 0, 0, 0), K, ZERO, NO_P)
    rays = camera.rays()
    v, u = np.mgrid[:48, :64]
    radius = np.hypot((u - 31.5) / 50.0, (v - 23.5) / 52.0)
    known: np.ndarray = np.asarray(np.isfinite(rays).all(axis=2))
    assert known[radius < 0.38].all()
    assert not known[radius > 0.42].any()


def test_a_rectified_image_is_described_by_p_and_r() -> None:
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    p = (40.0, 0.0, 30.0, -4.0, 0.0, 40.0, 20.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    name, coefficients = LENSES["plumb_bob"]
    camera = CameraModel.from_camera_info(
        48, 64, name, coefficients, K, tuple(turn.flat), p, rectified=True
    )
    point = np.array([0.2, 0.1, 2.0])
    x, y, z = turn @ point
    pixel = [40 * x / z + 30, 40 * y / z + 20]
    np.testing.assert_allclose(camera.project(point[None])[0], pixel)
    v, u = 20, 30
    np.testing.assert_allclose(camera.rays()[v, u], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(camera.rays()[v, u + 10] @ turn.T, _unit([0.25, 0, 1]), atol=1e-12)


@pytest.mark.parametrize("coefficients", [(), (0.0,), (0.0,) * 4, (0.0,) * 5])
def test_a_fisheye_without_coefficients_is_no_pinhole(coefficients: tuple[float, ...]) -> None:
    camera = CameraModel.from_camera_info(48, 64, "equidistant", coefficients, K, ZERO, NO_P)
    x, _, z = camera.rays()[23, 63]
    assert np.arctan2(x, z) == pytest.approx((63 - 31.5) / 50.0, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("plumb_bob", (-0.3, 0.1), (-0.3, 0.1, 0.0, 0.0)),
        ("plumb_bob", (-0.3, 0.1, 0.01, 0.02, 0.03, 0.0, 0.0, 0.0), (-0.3, 0.1, 0.01, 0.02, 0.03)),
        ("rational_polynomial", (-0.3, 0.1, 0.0, 0.0, 0.02), (-0.3, 0.1, 0.0, 0.0, 0.02, 0, 0, 0)),
        ("rational_polynomial", (-0.1,) + (0.0,) * 13, (-0.1,) + (0.0,) * 7),
        ("plumb_bob", (0.1,) * 6 + (0.0,) * 2, (0.1,) * 6 + (0.0,) * 2),
        ("equidistant", (-0.02, 0.01, 0.0, 0.0, 0.003, 0.001, 0, 0), (-0.02, 0.01, 0.003, 0.001)),
        ("equidistant", (-0.02,), (-0.02, 0.0, 0.0, 0.0)),
        ("equidistant", (-0.02, 0.01, 0.003, 0.001, 0.0), (-0.02, 0.01, 0.003, 0.001)),
    ],
)
def test_drivers_write_fewer_coefficients_or_zeros_behind(
    name: str, written: tuple[float, ...], meant: tuple[float, ...]
) -> None:
    short, full = (
        CameraModel.from_camera_info(48, 64, name, d, K, ZERO, NO_P) for d in (written, meant)
    )
    assert short == full and short.model == name
    assert np.isfinite(short.rays()).all()


@pytest.mark.parametrize("rectified", [False, True])
def test_a_window_of_the_sensor_is_seen_through_the_same_lens(rectified: bool) -> None:
    name, coefficients = LENSES["plumb_bob"]
    p = (*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0)
    window = Window(x_offset=10, y_offset=8, height=31, width=40, binning_x=2, binning_y=3)
    whole, part = (
        CameraModel.from_camera_info(
            48, 64, name, coefficients, K, ZERO, p, rectified=rectified, window=chosen
        )
        for chosen in (Window(), window)
    )
    assert (part.height, part.width) == (31 // 3, 40 // 2)
    np.testing.assert_allclose(part.rays(), whole.rays()[8:38:3, 10:50:2], atol=1e-4)


def test_bands_join_to_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model("plumb_bob").rays()
    monkeypatch.setattr(camera_model, "_BAND", 64 * 7)
    np.testing.assert_allclose(model("plumb_bob").rays(), whole, atol=1e-12)


def _unit(vector: Sequence[float]) -> np.ndarray:
    return np.asarray(np.array(vector) / np.linalg.norm(vector))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": ZERO}, "focal lengths 0 and 0 in K.*is the camera calibrated"),
        ({"k": (np.nan, *K[1:])}, "camera_info has nan, .* in K; expected finite numbers"),
        ({"k": (*K[:2], np.inf, *K[3:])}, "camera_info has .*inf.* in K; expected finite numbers"),
        ({"width": 0}, "0x48 pixels"),
        ({"model": "fisheye_62"}, "distortion_model is 'fisheye_62'; known are plumb_bob"),
        ({"model": "equidistant"}, "equidistant has the coefficients .* expected 4 finite"),
        ({"distortion": (np.inf, 0, 0, 0, 0)}, "plumb_bob has the coefficients"),
        ({"distortion": (0.1,) * 15}, "plumb_bob has the coefficients .* or 12 or 14 finite"),
        ({"model": "fisheye", "distortion": ()}, "distortion_model is 'fisheye'"),
        ({"rectified": True}, "focal lengths 0 and 0 in P"),
        ({"rectified": True, "p": (*K[:3], 0, *K[3:6], 0, *K[6:], 0), "r": (2.0, *ZERO[1:])}, "R "),
        ({"window": Window(60, 0, 10, 10)}, "10x10 at 60, 0; expected one within its 64x48"),
        ({"window": Window(0, 10, 48, 64)}, "64x48 at 0, 10; expected one within"),
        ({"window": Window(4, 4)}, "0x0 at 4, 4 .* at least one pixel"),
        ({"window": Window(binning_x=65)}, "binning 65x1; expected at least one pixel"),
    ],
)
def test_what_is_no_calibration_is_refused(changes: dict[str, object], words: str) -> None:
    name, coefficients = LENSES["plumb_bob"]
    fields = {
        "height": 48, "width": 64, "model": name, "distortion": coefficients,
        "k": K, "r": ZERO, "p": NO_P,
    }  # fmt: skip
    with pytest.raises(CalibrationError, match=words):
        CameraModel.from_camera_info(**{**fields, **changes})  # type: ignore[arg-type]
