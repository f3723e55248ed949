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

import re
from math import atan2, cos, hypot, pi, radians, sin, tan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.errors import CalibrationError, FrameError
from magicfuse_ros.navigation import ground
from magicfuse_ros.navigation.camera_model import CameraModel
from magicfuse_ros.navigation.ground import (
    BLOCKING,
    GROUND,
    IGNORED,
    CameraPose,
    GroundProjection,
    roles,
)
from test_camera_model import LENSES, K, model

F, CX, CY = 50.0, 32.0, 24.0
ROWS, COLUMNS = 48, 64
PINHOLE = CameraModel(ROWS, COLUMNS, (F, 0, CX, 0, F, CY, 0, 0, 1))
ROAD, CAR, SKY, UNNAMED = 0, 1, 2, 255
TABLE = roles({ROAD: "road", CAR: "car", SKY: "sky"}, ["road"], ["sky"])
HEIGHT = 1.5
INCREMENT = 0.03  # wider than the spacing of the 64 columns


def projection(
    pose: CameraPose, camera: CameraModel = PINHOLE, max_range: float = 1000.0
) -> GroundProjection:
    return GroundProjection(camera.rays(), pose, max_range=max_range, increment=INCREMENT)


def mask(value: int = ROAD) -> np.ndarray:
    return np.full((ROWS, COLUMNS), value, np.uint8)


def points(found: GroundProjection, content: np.ndarray) -> np.ndarray:
    """Return [H, W, 3] in the optical frame."""
    cloud = found.cloud(found.find(content, TABLE))
    return np.stack([cloud["x"], cloud["y"], cloud["z"]], axis=-1).astype(np.float64)


def on_ground(pose: CameraPose, optical: np.ndarray) -> np.ndarray:
    return np.asarray(optical @ pose.matrix().T + pose.position)


def test_a_level_camera_sees_ground_at_height_times_f_over_rows_below_the_centre() -> None:
    found = points(projection(CameraPose.from_tilt(HEIGHT, 0.0, 0.0)), mask())
    assert np.isnan(found[: int(CY) + 1]).all(), "nothing at the horizon and above"
    for v in range(int(CY) + 1, ROWS):
        depth = HEIGHT * F / (v - CY)
        for u in (0, 32, 63):
            np.testing.assert_allclose(
                found[v, u], [(u - CX) / F * depth, HEIGHT, depth], rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("pitch", [-0.2, 0.15, 0.5, pi / 2])
def test_a_pitched_camera(pitch: float) -> None:
    pose = CameraPose.from_tilt(HEIGHT, pitch, 0.0)
    found = on_ground(pose, points(projection(pose), mask()))
    for v in range(ROWS):
        below = pitch + np.arctan((v - CY) / F)
        if below <= 1e-9:
            assert np.isnan(found[v]).all()
            continue
        forward = HEIGHT / tan(below)
        left = -(10 - CX) / F * (forward * cos(pitch) + HEIGHT * sin(pitch))
        np.testing.assert_allclose(
            found[v, 10], [forward, left, 0], rtol=1e-4, atol=1e-4 * max(1, forward)
        )


def test_a_camera_on_its_side_sees_ground_to_its_right() -> None:
    # right side down: the image's right points down, its up points right
    found = on_ground(
        pose := CameraPose.from_tilt(HEIGHT, 0.0, pi / 2), points(projection(pose), mask())
    )
    assert np.isnan(found[:, : int(CX) + 1]).all()
    for u in range(int(CX) + 1, COLUMNS):
        forward = HEIGHT * F / (u - CX)
        for v in (0, 30):
            np.testing.assert_allclose(
                found[v, u], [forward, (v - CY) / F * forward, 0], rtol=1e-4, atol=1e-5
            )


def test_a_rolled_camera_has_a_slanted_horizon() -> None:
    roll = radians(20)
    found = points(projection(CameraPose.from_tilt(HEIGHT, 0.0, roll)), mask())
    v, u = np.mgrid[:ROWS, :COLUMNS]
    below = (v - CY) * cos(roll) + (u - CX) * sin(roll)
    clear = np.abs(below) > 0.1  # the others are ground beyond max_range
    np.testing.assert_array_equal(np.isfinite(found).all(axis=2)[clear], below[clear] > 0)


def test_the_pose_of_tf_is_that_of_the_tilt() -> None:
    for pitch, roll in ((0.0, 0.0), (0.3, 0.0), (-0.1, 0.7), (1.2, -2.0)):
        tilted = CameraPose.from_tilt(HEIGHT, pitch, roll)
        # base from link (yaw 0, pitch, roll), then link from optical (REP 103)
        quaternion = _product(_rpy(roll, pitch, 0.0), (-0.5, 0.5, -0.5, 0.5))
        found = CameraPose.from_transform((0.0, 0.0, HEIGHT), quaternion)
        np.testing.assert_allclose(found.rotation, tilted.rotation, atol=1e-12)
        scaled = CameraPose.from_transform((0, 0, HEIGHT), tuple(3 * q for q in quaternion))  # type: ignore[arg-type]
        np.testing.assert_allclose(scaled.rotation, tilted.rotation, atol=1e-12)


@settings(deadline=None, max_examples=100)
@given(
    lens=st.sampled_from(list(LENSES)),
    height=st.floats(0.1, 10.0),
    roll=st.floats(-pi, pi),
    pitch=st.floats(-1.4, 1.5),
    yaw=st.floats(-pi, pi),
    v=st.integers(0, ROWS - 1),
    u=st.integers(0, COLUMNS - 1),
)
def test_a_pixels_ground_point_is_seen_at_that_pixel(
    lens: str, height: float, roll: float, pitch: float, yaw: float, v: int, u: int
) -> None:
    camera = model(lens)
    quaternion = _product(_rpy(roll, pitch, yaw), (-0.5, 0.5, -0.5, 0.5))
    pose = CameraPose.from_transform((3.0, -2.0, height), quaternion)
    optical = points(projection(pose, camera, max_range=100.0), mask())
    x, y, z = optical[v, u]
    ray = on_ground(pose, camera.rays()[v, u]) - pose.position
    if not np.isfinite(x):
        assert ray[2] > -1e-6 or height / -ray[2] * hypot(ray[0], ray[1]) > 99.9
        return
    assert ray[2] < 0, "a pixel of the horizon or above has no point"
    place = on_ground(pose, optical[v, u])
    assert abs(place[2]) < 1e-4 * hypot(x, y, z)
    assert hypot(place[0] - 3.0, place[1] + 2.0) < 100.01
    np.testing.assert_allclose(camera.project(optical[v, u][None])[0], [u, v], atol=0.02)


@settings(deadline=None, max_examples=50)
@given(yaw=st.floats(-pi, pi), pitch=st.floats(0.0, 1.0), angle=st.floats(-pi, pi))
def test_points_turn_with_the_camera(yaw: float, pitch: float, angle: float) -> None:
    def places(heading: float) -> np.ndarray:
        quaternion = _product(_rpy(0.0, pitch, heading), (-0.5, 0.5, -0.5, 0.5))
        pose = CameraPose.from_transform((0.0, 0.0, HEIGHT), quaternion)
        return on_ground(pose, points(projection(pose, max_range=30.0), mask()))

    turn = np.array([[cos(angle), -sin(angle), 0], [sin(angle), cos(angle), 0], [0, 0, 1]])
    before, after = places(yaw), places(yaw + angle)
    both = np.isfinite(before) & np.isfinite(after)
    # rounding may drop a pixel just at max_range
    assert both.sum() >= 0.99 * max(np.isfinite(before).sum(), np.isfinite(after).sum())
    np.testing.assert_allclose((before @ turn.T)[both], after[both], atol=1e-4)


@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (0.2, 0.0), (0.15, 0.3), (0.1, -0.8)])
@pytest.mark.parametrize("lens", ["none", "plumb_bob", "equidistant"])
def test_of_an_upright_thing_only_the_foot_is_in_the_cloud(
    lens: str, pitch: float, roll: float
) -> None:
    """A 1.2 m post stands 4 m ahead: drawn through the camera, it is found at its foot."""
    k = (*(10 * value for value in K[:8]), 1.0)
    name, coefficients = LENSES[lens]
    camera = CameraModel.from_camera_info(480, 640, name, coefficients, k, (0,) * 9, (0,) * 12)
    pose = CameraPose.from_tilt(HEIGHT, pitch, roll)
    up, across = np.meshgrid(np.linspace(0, 1.2, 1500), np.linspace(-0.05, 0.05, 60))
    post = np.stack([np.full(up.size, 4.0), across.ravel(), up.ravel()], axis=-1)
    optical = (post - pose.position) @ pose.matrix()
    u, v = np.rint(camera.project(optical)).astype(int).T
    inside = (u >= 0) & (u < 640) & (v >= 0) & (v < 480)
    content = np.full((480, 640), ROAD, np.uint8)
    content[v[inside], u[inside]] = CAR
    assert (content == CAR).sum() > 1000

    found = GroundProjection(camera.rays(), pose, max_range=50.0, increment=0.01)
    seen = found.find(content, TABLE)
    cloud = found.cloud(seen)
    kept = (content == CAR) & np.isfinite(cloud["z"])
    optical = np.stack([cloud[axis][kept] for axis in "xyz"], axis=-1)
    places = on_ground(pose, optical)
    assert kept.sum() > 10
    np.testing.assert_allclose(places[:, 2], 0, atol=1e-4)
    assert places[:, 0].min() > 3.9 and places[:, 0].max() < 4.0 * 1.08
    assert (cloud["label"] == content).all()

    scan = found.scan(seen)
    angles = scan.angle_min + scan.angle_increment * np.arange(len(scan.ranges))
    ahead = np.abs(angles) < 0.05 / 4 - scan.angle_increment
    np.testing.assert_allclose(scan.ranges[ahead], 4.0, rtol=0.03)
    others = scan.ranges[np.abs(angles) > 0.03]
    assert not np.isfinite(others).any() and np.isinf(others).mean() > 0.5


def test_what_is_no_ground_has_no_point() -> None:
    content = mask()
    content[:, :20] = SKY
    content[:, 40:] = UNNAMED
    found = points(projection(CameraPose.from_tilt(HEIGHT, 0.2, 0.0)), content)
    assert np.isnan(found[:, :20]).all() and np.isnan(found[:, 40:]).all()
    assert np.isfinite(found[30:, 20:40]).all()


def test_a_mask_leaves_nothing_of_the_one_before() -> None:
    found = projection(CameraPose.from_tilt(HEIGHT, 0.2, 0.0))
    other = mask(SKY)
    other[30:, 10:20] = CAR
    expected = points(projection(CameraPose.from_tilt(HEIGHT, 0.2, 0.0)), other)
    points(found, mask())
    np.testing.assert_array_equal(points(found, other), expected)
    assert np.isfinite(expected).any()


def test_max_range_is_measured_on_the_ground_from_below_the_camera() -> None:
    pose = CameraPose.from_tilt(HEIGHT, 0.3, 0.1)
    far, near = projection(pose), projection(pose, max_range=3.0)
    everything = on_ground(pose, points(far, mask()))
    distance = np.hypot(everything[..., 0], everything[..., 1])
    kept = np.isfinite(points(near, mask())).all(axis=2)
    np.testing.assert_array_equal(kept, distance <= 3.0)


def test_the_scan_is_in_the_ground_frame_and_counts_from_its_origin() -> None:
    """The camera is 2 m ahead of and 1 m to the left of the origin and looks to the left."""
    quaternion = _product(_rpy(0.0, 0.2, pi / 2), (-0.5, 0.5, -0.5, 0.5))
    pose = CameraPose.from_transform((2.0, 1.0, HEIGHT), quaternion)
    content = mask()
    content[30, 32] = CAR  # straight ahead: u is cx
    found = projection(pose)
    scan = found.scan(found.find(content, TABLE))
    forward = HEIGHT / tan(0.2 + np.arctan((30 - CY) / F))
    (beam,) = np.flatnonzero(np.isfinite(scan.ranges))
    angle = scan.angle_min + beam * scan.angle_increment
    assert abs(angle - atan2(1.0 + forward, 2.0)) <= scan.angle_increment
    assert scan.ranges[beam] == pytest.approx(hypot(2.0, 1.0 + forward), rel=1e-4)
    assert scan.range_max == pytest.approx(1000.0 + hypot(2, 1))
    assert scan.angle_max == scan.angle_min + (len(scan.ranges) - 1) * scan.angle_increment


def test_a_camera_that_looks_back_has_one_scan_without_a_seam() -> None:
    quaternion = _product(_rpy(0.0, 0.2, pi), (-0.5, 0.5, -0.5, 0.5))
    pose = CameraPose.from_transform((0.0, 0.0, HEIGHT), quaternion)
    found = projection(pose)
    scan = found.scan(found.find(mask(), TABLE))
    assert len(scan.ranges) * scan.angle_increment < 2 * np.arctan(CX / F) * 1.3
    middle = (scan.angle_min + scan.angle_max) / 2
    assert abs(abs(middle) - pi) < INCREMENT
    assert (scan.ranges[3:-3] == np.inf).all()


def test_beams_say_what_is_known() -> None:
    content = mask(SKY)
    content[:, 22:43] = ROAD
    content[40:, 43:] = CAR
    content[:40, 43:] = ROAD
    found = projection(CameraPose.from_tilt(HEIGHT, 0.2, 0.0))
    scan = found.scan(found.find(content, TABLE))  # beams run from right to left
    count = len(scan.ranges)
    assert np.isnan(scan.ranges[-count // 5 :]).all(), "only sky: not known"
    assert (scan.ranges[count // 2 - 3 : count // 2 + 3] == np.inf).all(), "ground: free"
    assert np.isfinite(scan.ranges[: count // 5]).all(), "a thing at the lower border blocks"


BODY = CameraPose((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.0, HEIGHT))


@pytest.mark.parametrize(
    ("pose", "max_range", "words"),
    [
        (CameraPose.from_tilt(HEIGHT, -1.5, 0.0), 15.0, "within max_range 15 m.*86 degrees up"),
        (CameraPose.from_tilt(HEIGHT, 0.0, 0.0), 1.0, "max_range 1 m.*1.50 m above it.* 0 degrees"),
        (CameraPose.from_tilt(90.0, 0.5, 0.0), 15.0, "90.00 m above it and looks 29 degrees down"),
        (BODY, 15.0, "looks 90 degrees up"),
    ],
)
def test_a_camera_that_sees_no_ground_knows_nothing_and_says_so(
    pose: CameraPose, max_range: float, words: str
) -> None:
    found = projection(pose, max_range=max_range)
    seen = found.find(mask(CAR), TABLE)
    assert re.search(words, found.blindness()), found.blindness()
    assert np.isnan(found.cloud(seen)["z"]).all()
    scan = found.scan(seen)
    assert np.isnan(scan.ranges).all()
    assert len(scan.ranges) == 1 and scan.angle_min <= scan.angle_max


def test_a_camera_that_sees_ground_is_not_blind() -> None:
    found = projection(CameraPose.from_tilt(HEIGHT, 0.0, 0.0))
    assert not found.blindness()
    nearest, farthest = found.ground_range() or (0.0, 0.0)
    cloud = found.cloud(found.find(mask(), TABLE))
    away = np.hypot(cloud["x"], cloud["z"])  # the camera is level
    assert np.nanmin(away) <= nearest < 1.3 * np.nanmin(away)
    assert 0.7 * np.nanmax(away) < farthest <= np.nanmax(away)


@pytest.mark.parametrize(
    ("focal", "height", "pitch", "roll"),
    [(400, 1.5, 0.0, 0.0), (400, 0.6, 0.5, 0.0), (320, 1.5, 0.35, 0.0), (400, 1.0, 0.3, 0.4)],
)
def test_the_ground_of_a_free_beam_is_in_the_image(
    focal: float, height: float, pitch: float, roll: float
) -> None:
    """A tilted camera sees parts of some beams alone: Nav2 would clear what it does not see."""
    k = (focal, 0.0, 319.5, 0.0, focal, 239.5, 0.0, 0.0, 1.0)
    camera = CameraModel.from_camera_info(480, 640, "", (), k, (0,) * 9, (0,) * 12)
    pose = CameraPose.from_tilt(height, pitch, roll)
    found = GroundProjection(camera.rays(), pose, max_range=15.0, increment=0.01)
    seen = found.find(np.full((480, 640), ROAD, np.uint8), TABLE)
    scan = found.scan(seen)
    free = np.isinf(scan.ranges)
    assert (
        free.mean() > (0.99 if not (pitch or roll) else 0.5) and not np.isfinite(scan.ranges).any()
    )
    nearest, farthest = found.ground_range() or (0.0, 0.0)
    cloud = found.cloud(seen)
    x, y, _ = on_ground(pose, np.stack([cloud[a] for a in "xyz"], axis=-1)).reshape(-1, 3).T
    there = np.isfinite(x)
    beam = (np.arctan2(y, x)[there] - scan.angle_min) / scan.angle_increment
    away, beam = np.hypot(x, y)[there], np.rint(beam).astype(int)
    for number in np.flatnonzero(free):
        some = away[beam == number]
        assert some.min() <= 1.02 * nearest and some.max() >= 0.98 * farthest


def test_rounding_makes_no_other_pose() -> None:
    quaternion = _product(_rpy(0.1, 0.2, 0.3), (-0.5, 0.5, -0.5, 0.5))
    pose = CameraPose.from_transform((1.0, 2.0, HEIGHT), quaternion)
    rounded = tuple(float(np.float32(q)) for q in quaternion)
    assert pose.is_close(CameraPose.from_transform((1.00001, 2.0, HEIGHT), rounded))  # type: ignore[arg-type]
    assert not pose.is_close(CameraPose.from_transform((1.001, 2.0, HEIGHT), quaternion))
    turned = _product(_rpy(0.1, 0.2001, 0.3), (-0.5, 0.5, -0.5, 0.5))
    assert not pose.is_close(CameraPose.from_transform((1.0, 2.0, HEIGHT), turned))


def test_bands_join_to_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    pose = CameraPose.from_tilt(HEIGHT, 0.2, 0.1)
    whole = projection(pose)
    monkeypatch.setattr(ground, "_BAND", 1000)
    content = mask()
    content[30:, 20:30] = CAR
    np.testing.assert_array_equal(points(projection(pose), content), points(whole, content))


@settings(deadline=None, max_examples=50)
@given(
    content=st.binary(min_size=ROWS * COLUMNS, max_size=ROWS * COLUMNS),
    pitch=st.floats(-0.5, 1.5),
    roll=st.floats(-1.0, 1.0),
)
def test_any_mask_gives_points_on_the_ground_and_ranges_in_range(
    content: bytes, pitch: float, roll: float
) -> None:
    pose = CameraPose.from_tilt(HEIGHT, pitch, roll)
    found = projection(pose, max_range=20.0)
    labels = np.frombuffer(content, np.uint8).reshape(ROWS, COLUMNS)
    seen = found.find(labels, TABLE)
    cloud = found.cloud(seen)
    known = np.isfinite(cloud["z"])
    places = on_ground(pose, np.stack([cloud[axis][known] for axis in "xyz"], axis=-1))
    assert np.abs(places[:, 2]).max(initial=0) < 1e-3
    assert np.hypot(places[:, 0], places[:, 1]).max(initial=0) < 20.01
    assert set(np.unique(labels[known])) <= {ROAD, CAR}
    ranges = found.scan(seen).ranges
    assert ((ranges > 0) | np.isnan(ranges)).all()
    assert ranges[np.isfinite(ranges)].max(initial=0) < 20.01


def test_unknown_classes_block_and_ids_without_a_name_do_not() -> None:
    table = roles({0: "road", 7: "fire hydrant", 8: "sky"}, ["road", "grass"], ["sky"])
    assert (table[0], table[7], table[8], table[255], table[1]) == (
        GROUND, BLOCKING, IGNORED, IGNORED, IGNORED,
    )  # fmt: skip


def test_a_mask_of_another_size_is_refused() -> None:
    found = projection(CameraPose.from_tilt(HEIGHT, 0.0, 0.0))
    with pytest.raises(FrameError, match="mask is 32x48; expected the camera_info's 64x48"):
        found.find(np.zeros((48, 32), np.uint8), TABLE)


@pytest.mark.parametrize("z", [0.0, 1e-17, -0.3, float("nan")])
def test_a_camera_that_is_not_above_the_ground_is_refused(z: float) -> None:
    with pytest.raises(CalibrationError, match=r"above the ground|not finite"):
        CameraPose.from_transform((0.0, 0.0, z), (0.0, 0.0, 0.0, 1.0))


def test_a_pose_without_a_direction_is_refused() -> None:
    with pytest.raises(CalibrationError, match="quaternion"):
        CameraPose.from_transform((0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0))


Quaternion = tuple[float, float, float, float]


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    (ax, ay, az, aw), (bx, by, bz, bw) = a, b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _rpy(roll: float, pitch: float, yaw: float) -> Quaternion:
    """Return the quaternion of fixed-axis roll, pitch and yaw, as in URDF and TF."""
    about_x = (sin(roll / 2), 0.0, 0.0, cos(roll / 2))
    about_y = (0.0, sin(pitch / 2), 0.0, cos(pitch / 2))
    about_z = (0.0, 0.0, sin(yaw / 2), cos(yaw / 2))
    return _product(about_z, _product(about_y, about_x))
