"""From pixels to rays: the camera model that `sensor_msgs/CameraInfo` describes, free of ROS.

Frames follow REP 103: in the camera's optical frame x is right, y is down and z is forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_ros.errors import CalibrationError

Array = npt.NDArray[np.float64]

# Numbers of coefficients, as ROS's calibrators write them; none or all zero: no distortion.
_COEFFICIENTS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
DISTORTION_MODELS: tuple[str, ...] = tuple(_COEFFICIENTS)
_ITERATIONS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-4)  # the last in pixels
_MISS = 0.1  # pixels


@dataclass(frozen=True)
class CameraModel:
    """A calibrated camera.

    Attributes:
        height: rows of its image.
        width: columns.
        matrix: fx, 0, cx, 0, fy, cy, 0, 0, 1, in pixels.
        model: how the lens distorts; "" where it does not.
        distortion: the model's coefficients.
        rotation: 3x3 by rows, from the camera's optical frame to the frame that `matrix` projects
            from: the rectification of a stereo camera, else the identity.
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
    ) -> CameraModel:
        """Take the fields of a `sensor_msgs/CameraInfo`.

        Args:
            height: rows.
            width: columns.
            model: the field `distortion_model`.
            distortion: the field `d`.
            k: 9 numbers by rows.
            r: 9 numbers by rows; all zero: the identity.
            p: 12 numbers by rows.
            rectified: the image is rectified, so `p` and `r` describe it, not `k` and `d`.

        Raises:
            CalibrationError: if the camera is not calibrated, or in a way that is not known here.
        """
        matrix = tuple(map(float, np.reshape(p, (3, 4))[:, :3].flat if rectified else k))
        name = "P" if rectified else "K"
        if height < 1 or width < 1:
            raise CalibrationError(f"camera_info is for {width}x{height} pixels; not calibrated?")
        if not (np.isfinite(matrix).all() and matrix[0] > 0 and matrix[4] > 0):
            raise CalibrationError(
                f"camera_info has focal lengths {matrix[0]:g} and {matrix[4]:g} in {name}; "
                "expected both above 0: is the camera calibrated?"
            )
        coefficients = tuple(map(float, distortion))
        if rectified or not any(coefficients):
            model, coefficients = "", ()
        elif model not in _COEFFICIENTS:
            raise CalibrationError(
                f"distortion_model is '{model}'; known are {', '.join(DISTORTION_MODELS)}. "
                "Rectify the image and set rectified"
            )
        elif len(coefficients) not in _COEFFICIENTS[model] or not np.isfinite(coefficients).all():
            raise CalibrationError(
                f"distortion_model {model} has the coefficients {coefficients}; expected "
                f"{' or '.join(map(str, _COEFFICIENTS[model]))} finite numbers"
            )
        rotation = tuple(map(float, r)) if rectified and any(r) else cls.rotation
        return cls(height, width, matrix, model, coefficients, rotation)

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
            [H, W, 3] float64, unit vectors in the optical frame; NaN where no ray in front of the
            camera is imaged at that pixel, as in the corners of a strongly distorted image.
        """
        columns, rows = np.meshgrid(np.arange(self.width), np.arange(self.height))
        pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2).astype(np.float64)
        rays = np.ones((pixels.shape[0], 3))
        rays[:, :2] = self._undistort(pixels).reshape(-1, 2)
        if self.model:
            # The iteration that inverts the distortion may go astray; the model itself tells.
            miss = np.abs(self._project(rays) - pixels[:, 0]).max(axis=1)
            rays[~(miss < _MISS)] = np.nan
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        # Row vectors: multiplying from the right by the rotation applies its inverse.
        rays = rays @ np.reshape(self.rotation, (3, 3))
        return np.asarray(rays.reshape(self.height, self.width, 3))

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
