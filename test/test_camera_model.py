from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.camera_model import CameraModel
from magicfuse_ros.errors import CalibrationError

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
}


def model(lens: str, k: Sequence[float] = K) -> CameraModel:
    name, coefficients = LENSES[lens]
    return CameraModel.from_camera_info(48, 64, name, coefficients, k, ZERO, NO_P)


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


def _unit(vector: Sequence[float]) -> np.ndarray:
    return np.asarray(np.array(vector) / np.linalg.norm(vector))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": ZERO}, "focal lengths 0 and 0 in K.*is the camera calibrated"),
        ({"k": (np.nan, *K[1:])}, "focal lengths nan"),
        ({"width": 0}, "0x48 pixels"),
        ({"model": "fisheye_62"}, "distortion_model is 'fisheye_62'; known are plumb_bob"),
        ({"model": "equidistant"}, "equidistant has the coefficients .* expected 4 finite"),
        ({"distortion": (np.inf, 0, 0, 0, 0)}, "plumb_bob has the coefficients"),
        ({"rectified": True}, "focal lengths 0 and 0 in P"),
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
