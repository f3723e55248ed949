# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads one file of a data set: a picture, a label image, or boxes."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import decode_picture, png, to_rgb
from magicfuse_ros.image_codec.bit_depth import BitDepth, scaled
from magicfuse_training.arrays import F32, U8
from magicfuse_training.data.classes import LabelMap
from magicfuse_training.data.errors import DataError

Boxes = F32
_JUDGED = 32  # pictures of a folder from which its bit depth is found
STRETCH = (1.0, 99.0)  # percentiles of a thermal picture with more than 8 bits: black and white
_GRAY_SPREAD = 12  # of 255 between the channels: JPEG colours in a gray picture are weaker
_COLORED_SHARE = 0.02  # share of the pixels: a logo or a scale at the edge takes less

cv2.setNumThreads(0)  # its thread pool does not survive the fork of a data loader's worker


def read_picture(path: Path) -> npt.NDArray[Any]:
    """Read a picture as `magicfuse run` does; see `decode_picture`.

    Raises:
        DataError: if it is missing, truncated or damaged, or no picture.
    """
    try:
        return decode_picture(path.read_bytes())
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    except FrameError as error:
        raise DataError(f"'{path}': {error}") from error


def read_image(path: Path, gray: bool = False) -> U8:
    """Read a picture as RGB (or gray) uint8, upright, without a fourth channel.

    Raises:
        DataError: if it is missing, truncated or damaged, or no picture.
    """
    return rgb_of(read_picture(path), path, gray)


def rgb_of(picture: npt.NDArray[Any], path: Path, gray: bool = False) -> U8:
    """Convert the result of `read_picture` to RGB (or gray) uint8.

    16-bit pictures of one folder come from one camera and have one scale.

    Raises:
        DataError: names the file, for a float picture outside 0 to 1.
    """
    depth = BitDepth(intact=True)
    if picture.dtype == np.uint16:
        depth.bits = _bits_of(path.parent, path.suffix)
    try:
        image = to_rgb(picture, depth)
    except FrameError as error:
        raise DataError(f"'{path}': {error}") from error
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) if gray else image


@cache
def _bits_of(folder: Path, suffix: str) -> int:
    """Return how many of 16 bits the pictures in a folder use: see `BitDepth`."""
    depth = BitDepth(intact=True)
    paths = sorted(folder.glob(f"*{suffix}"))
    for path in paths[:: max(1, len(paths) // _JUDGED)]:
        with suppress(DataError):  # the error is reported when that picture is read
            if (picture := read_picture(path)).dtype == np.uint16:
                depth.to_8_bits(picture[..., :3] if picture.ndim == 3 else picture)
    return depth.bits


def read_thermal(path: Path, in_alpha: bool = False) -> tuple[U8, bool]:
    """Read a thermal picture as gray levels, (H, W) uint8, and return whether they were stretched.

    No file says whether its 16-bit or float values are sensor counts or a temperature. They are
    stretched between two percentiles of each picture, as a camera with automatic gain does. The
    levels then carry no absolute meaning; they only tell what is warmer within the picture.

    Args:
        path: the file.
        in_alpha: the thermal picture is the fourth channel, as in MFNet.

    Raises:
        DataError: if it is missing, truncated or damaged, a colour picture, or has no fourth
        channel.
    """
    return thermal_of(read_picture(path), path, in_alpha)


def thermal_of(picture: npt.NDArray[Any], path: Path, in_alpha: bool = False) -> tuple[U8, bool]:
    """Convert the result of `read_picture` for a thermal picture; see `read_thermal`."""
    if in_alpha:
        if picture.dtype != np.uint8 or picture.shape[2:] != (4,):
            raise DataError(
                f"'{path}' is {picture.dtype} {picture.shape}; expected uint8 (H, W, 4)"
            )
        return np.ascontiguousarray(picture[..., 3]), False
    if picture.ndim == 3:
        colors = picture[..., :3].astype(np.float32)
        difference = (colors.max(2) - colors.min(2)) / (1 if picture.dtype == np.uint8 else 256)
        if (share := float((difference > _GRAY_SPREAD).mean())) > _COLORED_SHARE:
            raise DataError(
                f"thermal picture '{path}' is in colours ({share:.0%} of its pixels); expected "
                "gray, as the colours of a palette do not get brighter with the temperature"
            )
        picture = cv2.cvtColor(np.ascontiguousarray(picture[..., :3]), cv2.COLOR_RGB2GRAY)
    if picture.dtype == np.uint8:
        return np.ascontiguousarray(picture), False
    values = picture[np.isfinite(picture)]
    if not values.size:
        raise DataError(f"thermal picture '{path}' holds no number")
    low, high = np.percentile(values, STRETCH)
    return scaled(np.nan_to_num(picture, nan=low), float(low), float(high)), True


def read_label(path: Path, labels: LabelMap) -> U8:
    """Read a label image, upright, as the set's own ids, (H, W) uint8.

    This uses Pillow because OpenCV turns the indices of a palette PNG into gray levels.

    Raises:
        DataError: if it cannot be read, is a JPEG, or holds colours instead of ids.
    """
    try:
        data = path.read_bytes()
        if data.startswith(png.MAGIC):
            png.check(data)
        with Image.open(io.BytesIO(data)) as file:
            if file.format == "JPEG":
                raise DataError(f"label '{path}' is a JPEG, which changes ids; expected a PNG")
            upright = ImageOps.exif_transpose(file)
            pixels = np.asarray(upright.convert("RGB") if labels.colors else upright)
    except (OSError, SyntaxError, ValueError, FrameError) as error:
        raise DataError(f"label '{path}' is missing or damaged: {error}") from error
    if labels.colors:
        return labels.from_colors(pixels, path)
    if pixels.ndim == 3:
        if (pixels[..., 1:3] != pixels[..., :1]).any():
            raise DataError(f"label '{path}' is a colour picture; expected ids of {labels.name}")
        pixels = pixels[..., 0]
    if pixels.max() > 255:
        raise DataError(f"label '{path}' holds id {pixels.max()}; expected 0 to 255")
    return pixels.astype(np.uint8)


def read_objects(path: Path, height: int, width: int) -> tuple[list[str], Boxes]:
    """Read the boxes of an image of the given size: YOLO text, or XML of Pascal VOC or KAIST.

    Returns:
        The names in lower case (YOLO: the numbers), and (N, 4) x0, y0, x1, y1 in pixels.

    Raises:
        DataError: if the file is missing or its content does not match its suffix.
    """
    try:
        if path.suffix.lower() == ".xml":
            return _read_xml(path)
        return _read_yolo(path, height, width)
    except OSError as error:
        raise DataError(f"box file '{path}' cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, ValueError, IndexError) as error:
        raise DataError(f"box file '{path}' is damaged: {error}") from error


def _read_yolo(path: Path, height: int, width: int) -> tuple[list[str], Boxes]:
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    names = [str(int(row[0])) for row in rows]
    box = np.array([list(map(float, row[1:5])) for row in rows], np.float32).reshape(-1, 4)
    if len(box) != len(names):
        raise ValueError("expected lines of 'kind x y width height'")
    low, high = box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2
    size = np.array([width, height, width, height], np.float32)
    return names, np.concatenate([low, high], 1) * size


def _read_xml(path: Path) -> tuple[list[str], Boxes]:
    names, boxes = [], []
    for item in ElementTree.parse(path).getroot().iter("object"):
        box = item.find("bndbox")
        name = item.findtext("name")
        if box is None or name is None:
            raise ValueError("an object has no name or no bndbox")
        values = {child.tag: float(child.text or "") for child in box}
        if "xmin" in values:
            corners = [values.get(key, np.nan) for key in ("xmin", "ymin", "xmax", "ymax")]
        else:  # KAIST
            x, y, w, h = (values.get(key, np.nan) for key in ("x", "y", "w", "h"))
            corners = [x, y, x + w, y + h]
        if np.isnan(corners).any():
            raise ValueError(f"a bndbox has {', '.join(values)}")
        names.append(name.strip().lower())
        boxes.append(corners)
    return names, np.array(boxes, np.float32).reshape(-1, 4)
