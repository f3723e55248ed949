# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""From pixels to rays: the camera model that `sensor_msgs/CameraInfo` describes, without ROS.

Frames follow REP 103: in the camera's optical frame x is right, y is down and z is forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.errors import CalibrationError

Array = npt.NDArray[np.float64]

# Numbers of coefficients that OpenCV accepts, rising. Drivers write fewer, or append zeros.
_COEFFICIENTS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5, 8, 12, 14),  # some drivers (Orbbec) have no other name for more than 5
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
# Parts of driver names for lenses that are not pinholes even if all coefficients are 0.
_WIDE = ("fisheye", "equi", "kannala", "kb4", "omni", "mei", "ucm", "double_sphere", "ftheta")
_BAND = 2**17  # pixels whose rays are computed at once: limits the memory for intermediate results
_ITERATIONS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-4)  # last: pixels
_MISS = 0.1  # pixels


class Window(NamedTuple):
    """The part of the sensor that the driver reads out, as in `sensor_msgs/CameraInfo`.

    Attributes:
        x_offset: first column, in pixels of the sensor.
        y_offset: first row.
        height: rows of the region. If the first four are all 0, it is the whole sensor.
        width: columns of the region.
        binning_x: sensor columns per image column; 0 means 1.
        binning_y: sensor rows per image row; 0 means 1.
    """

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    binning_x: int = 0
    binning_y: int = 0


@dataclass(frozen=True)
class CameraModel:
    """A calibrated camera.

    Attributes:
        height: rows of its image.
        width: columns of its image.
        matrix: fx, 0, cx, 0, fy, cy, 0, 0, 1, in pixels of the image.
        model: distortion model of the lens; "" for a pinhole.
        distortion: the model's coefficients, as many as OpenCV accepts.
        rotation: 3x3 in row order, from the camera's optical frame to the frame that `matrix`
            projects from: the rectification of a stereo camera, else the identity.
    """

    height: int
    width: int
    matrix: tuple[float, ...]
    model: str = ""
    distortion: tuple[float, ...] = ()
    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def from_camera_info(
        cls,
        height: int,
        width: int,
        model: str,
        distortion: Sequence[float],
        k: Sequence[float],
        r: Sequence[float],
        p: Sequence[float],
        *,
        rectified: bool = False,
        window: Window = Window(),  # noqa: B008 - immutable
    ) -> CameraModel:
        """Make a camera from the fields of a `sensor_msgs/CameraInfo`.

        Sizes and matrices describe the whole sensor; `window` says which part the image shows.

        Args:
            height: rows of the sensor.
            width: columns of the sensor.
            model: the field `distortion_model`.
            distortion: the field `d`.
            k: 9 numbers in row order.
            r: 9 numbers in row order; all zero: the identity.
            p: 12 numbers in row order.
            rectified: the image is rectified, so `p` and `r` describe it, not `k` and `d`.
            window: the fields `roi`, `binning_x` and `binning_y`.

        Raises:
            CalibrationError: if the camera is not calibrated, or its calibration is of an unknown
                kind.
        """
        if height < 1 or width < 1:
            raise CalibrationError(f"camera_info is for {width}x{height} pixels; not calibrated?")
        name = "P" if rectified else "K"
        matrix = tuple(map(float, np.reshape(p, (3, 4))[:, :3].flat if rectified else k))
        if not np.isfinite(matrix).all():
            numbers = ", ".join(f"{value:g}" for value in matrix)
            raise CalibrationError(f"camera_info has {numbers} in {name}; expected finite numbers")
        if not (matrix[0] > 0 and matrix[4] > 0):
            raise CalibrationError(
                f"camera_info has focal lengths {matrix[0]:g} and {matrix[4]:g} in {name}; "
                "expected both above 0: is the camera calibrated?"
            )
        rows, columns, matrix = _windowed(height, width, matrix, window)
        if rectified:
            return cls(rows, columns, matrix, rotation=_rotation(r))
        return cls(rows, columns, matrix, *_lens(model, distortion))

    def project(self, points: Array) -> Array:
        """Return the pixels [N, 2] (u, v) of points [N, 3] in the optical frame, z > 0."""
        points = points @ np.reshape(self.rotation, (3, 3)).T
        return self._project(points)

    def _project(self, points: Array) -> Array:
        zero, matrix, coefficients = np.zeros(3), self._matrix(), np.array(self.distortion)
        if self.model == "equidistant":
            pixels, _ = cv2.fisheye.projectPoints(points[None], zero, zero, matrix, coefficients)
        else:
            pixels, _ = cv2.projectPoints(points[None], zero, zero, matrix, coefficients)
        return np.asarray(pixels, np.float64).reshape(-1, 2)

    def rays(self) -> Array:
        """Return the ray of every pixel.

        Returns:
            [H, W, 3] float64, unit vectors in the optical frame; NaN for a pixel that no ray in
            front of the camera reaches, as in the corners of a strongly distorted image.
        """
        found = np.empty((self.height, self.width, 3))
        band = max(1, _BAND // self.width)
        for first in range(0, self.height, band):
            rows = np.arange(first, min(first + band, self.height))
            found[rows[0] : rows[-1] + 1] = self._rays_of(rows)
        return found

    def _rays_of(self, rows: npt.NDArray[np.intp]) -> Array:
        """Return the rays of some rows of the image: [rows, W, 3]."""
        grid = np.stack(np.meshgrid(np.arange(self.width), rows), axis=-1)
        pixels = grid.reshape(-1, 1, 2).astype(np.float64)
        rays = np.ones((pixels.shape[0], 3))
        rays[:, :2] = self._undistort(pixels).reshape(-1, 2)
        if self.model:
            # The iteration that inverts the distortion may diverge; projecting back shows it.
            miss = np.abs(self._project(rays) - pixels[:, 0]).max(axis=1)
            rays[~(miss < _MISS)] = np.nan
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        # The rays are row vectors: multiplying by the rotation from the right applies its inverse.
        rays = rays @ np.reshape(self.rotation, (3, 3))
        return np.asarray(rays.reshape(len(rows), self.width, 3))

    def _undistort(self, pixels: Array) -> Array:
        matrix, coefficients = self._matrix(), np.array(self.distortion)
        if self.model == "equidistant":
            plane = cv2.fisheye.undistortPoints(pixels, matrix, coefficients)
        elif hasattr(cv2, "undistortPointsIter"):  # OpenCV 4
            same = np.eye(3)
            plane = cv2.undistortPointsIter(pixels, matrix, coefficients, same, same, _ITERATIONS)
        else:
            plane = cv2.undistortPoints(pixels, matrix, coefficients, criteria=_ITERATIONS)
        return np.asarray(plane, np.float64)

    def _matrix(self) -> Array:
        return np.reshape(np.array(self.matrix, np.float64), (3, 3))


def _windowed(
    height: int, width: int, matrix: tuple[float, ...], window: Window
) -> tuple[int, int, tuple[float, ...]]:
    """Return the rows, columns and matrix of the image that shows a window of the sensor.

    As in image_geometry's PinholeCameraModel, the offset comes first, then the binning.

    Raises:
        CalibrationError: if the window is not within the sensor, or holds no pixel.
    """
    x, y, rows, columns, *binning = window
    if not any((x, y, rows, columns)):
        rows, columns = height, width
    if x < 0 or y < 0 or x + columns > width or y + rows > height:
        raise CalibrationError(
            f"camera_info has the region of interest {columns}x{rows} at {x}, {y}; expected one "
            f"within its {width}x{height} pixels"
        )
    step_x, step_y = (max(1, step) for step in binning)
    if columns < step_x or rows < step_y:
        raise CalibrationError(
            f"camera_info has the region of interest {columns}x{rows} at {x}, {y} and the binning "
            f"{step_x}x{step_y}; expected at least one pixel"
        )
    fx, skew, cx, _, fy, cy, *rest = matrix
    moved = (fx / step_x, skew / step_x, (cx - x) / step_x, 0.0, fy / step_y, (cy - y) / step_y)
    return rows // step_y, columns // step_x, (*moved, *rest)


def _lens(model: str, distortion: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """Return the model and its coefficients, as many as OpenCV accepts; ("", ()) for a pinhole.

    Raises:
        CalibrationError: if the model is unknown, or cannot have these coefficients.
    """
    coefficients = tuple(map(float, distortion))
    while coefficients and coefficients[-1] == 0:
        coefficients = coefficients[:-1]
    if model not in _COEFFICIENTS:
        if not coefficients and not any(part in model.lower() for part in _WIDE):
            return "", ()
        raise CalibrationError(
            f"distortion_model is '{model}'; known are {', '.join(_COEFFICIENTS)}. "
            "Rectify the image and set rectified"
        )
    if not coefficients and model != "equidistant":  # without coefficients it is r = f theta
        return "", ()
    if model == "equidistant" and len(coefficients) in (5, 6) and not any(coefficients[2:4]):
        coefficients = coefficients[:2] + coefficients[4:]  # Orbbec leaves room for p1 and p2
    allowed = _COEFFICIENTS[model]
    if len(coefficients) > allowed[-1] or not np.isfinite(coefficients).all():
        raise CalibrationError(
            f"distortion_model {model} has the coefficients {coefficients}; expected "
            f"{' or '.join(map(str, allowed))} finite numbers, or fewer, or zeros behind them"
        )
    count = next(number for number in allowed if number >= len(coefficients))
    return model, coefficients + (0.0,) * (count - len(coefficients))


def _rotation(r: Sequence[float]) -> tuple[float, ...]:
    """Return the rectification; all zeros mean the identity.

    Raises:
        CalibrationError: if the matrix is not a rotation.
    """
    if not any(r):
        return CameraModel.rotation
    turn = np.reshape(np.array(r, np.float64), (3, 3))
    if not (np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) and np.linalg.det(turn) > 0):
        raise CalibrationError(f"camera_info has R {list(map(float, r))}; expected a rotation")
    return tuple(map(float, r))
