"""Reading one file of a data set: a picture, a label image, boxes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from magicfuse_training.data.classes import U8, LabelMap
from magicfuse_training.data.errors import DataError

Boxes = npt.NDArray[np.float32]

cv2.setNumThreads(0)  # its thread pool does not survive the fork of a data loader's worker


def read_image(path: Path, gray: bool = False) -> U8:
    """Read an image as RGB (or gray) uint8, without a fourth channel or the low byte of 16 bits.

    Raises:
        DataError: if it is missing or cannot be decoded.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"'{path}' is missing or is no image")
    return np.asarray(image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_fourth_channel(path: Path) -> U8:
    """Read the fourth channel of an image, (H, W) uint8: where MFNet keeps the thermal image.

    Raises:
        DataError: if it is missing, cannot be decoded, or does not have four channels.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError(f"'{path}' is missing or is no image")
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        raise DataError(f"'{path}' is {image.dtype} {image.shape}; expected uint8 (H, W, 4)")
    return np.ascontiguousarray(image[..., 3])


def read_label(path: Path, labels: LabelMap) -> U8:
    """Read a label image as the set's own ids, (H, W) uint8.

    Pillow reads it and not OpenCV, which turns the indices of a palette PNG into gray levels.

    Raises:
        DataError: if it cannot be read, or holds colours where ids are expected.
    """
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB") if labels.colors else file)
    except (OSError, SyntaxError, ValueError) as error:
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
    """Read the boxes of an image of that size: YOLO text, or the XML of Pascal VOC or of KAIST.

    Returns:
        Their names in lower case (YOLO: the numbers), and (N, 4) x0, y0, x1, y1 in pixels.

    Raises:
        DataError: if the file is missing or is not of the format of its suffix.
    """
    try:
        if path.suffix == ".xml":
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


def read_boxes(path: Path, height: int, width: int, kinds: Iterable[int]) -> Boxes:
    """Read YOLO boxes of the given kinds as (N, 4) x0, y0, x1, y1 in pixels."""
    wanted = {str(kind) for kind in kinds}
    names, boxes = read_objects(path, height, width)
    return boxes[[name in wanted for name in names]].reshape(-1, 4)
