"""Road scenes, decoded once and held in memory: visible, and thermal, labels, boxes if any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from magicfuse_training.data.classes import MFNET_TO_CAMVID, remap
from magicfuse_training.data.night import night_reference

cv2.setNumThreads(0)  # its thread pool does not survive the fork of a data loader's worker

U8 = npt.NDArray[np.uint8]
PERSON = 0  # in the box files


@dataclass(frozen=True)
class Scene:
    """One scene at a common size; arrays (H, W, 3) or (H, W), uint8.

    `clean` is false for real night images: they are degraded, and no clean image of them exists;
    `target` is then a stand-in (`night_reference`), else the visible image itself. `people` holds
    boxes (N, 4) as x0, y0, x1, y1 in pixels.
    """

    name: str
    visible: U8
    target: U8
    clean: bool
    thermal: U8 | None
    label: U8
    people: npt.NDArray[np.float32]


def read_image(path: Path, gray: bool = False) -> U8:
    """Read an image as RGB (or gray) uint8.

    Raises:
        FileNotFoundError: if it is missing or cannot be decoded.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f"'{path}' is missing or is no image")
    return np.asarray(image if gray else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def read_boxes(
    path: Path, height: int, width: int, kinds: Iterable[int]
) -> npt.NDArray[np.float32]:
    """Read YOLO boxes of the given kinds as (N, 4) x0, y0, x1, y1 in pixels."""
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    wanted = [list(map(float, r[1:5])) for r in rows if int(r[0]) in set(kinds)]
    box = np.array(wanted, np.float32).reshape(-1, 4)
    low, high = box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2
    return np.concatenate([low, high], 1) * np.array([width, height, width, height], np.float32)


def _resize(image: U8, height: int, width: int, label: bool = False) -> U8:
    if image.shape[:2] == (height, width):
        return image
    how = cv2.INTER_NEAREST if label else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def load_camvid(root: Path, split: str, height: int, width: int) -> list[Scene]:
    """Load CamVid (`root/split/{vi,label}`), resized to height x width."""
    scenes = []
    for path in sorted((root / split / "vi").glob("*.jpg")):
        visible = _resize(read_image(path), height, width)
        label = read_image(root / split / "label" / f"{path.stem}.png", gray=True)
        label = _resize(label, height, width, label=True)
        nobody = np.zeros((0, 4), np.float32)
        scenes.append(Scene(path.stem, visible, visible, True, None, label, nobody))
    return _not_empty(scenes, root / split)


def load_msrs(root: Path, split: str, height: int, width: int) -> list[Scene]:
    """Load MSRS (`root/split/{vi,ir,pseudo_label,boxes_infrared}`), resized to height x width."""
    scenes = []
    for path in sorted((root / split / "vi").glob("*.jpg")):
        visible = _resize(read_image(path), height, width)
        clean = not path.stem.endswith("N")
        thermal = read_image(root / split / "ir" / path.name, gray=True)
        label = read_image(root / split / "pseudo_label" / f"{path.stem}.png", gray=True)
        boxes = root / split / "boxes_infrared" / f"{path.stem}.txt"
        scenes.append(
            Scene(
                path.stem,
                visible,
                visible if clean else night_reference(visible),
                clean,
                _resize(thermal, height, width),
                _resize(remap(label, MFNET_TO_CAMVID), height, width, label=True),
                read_boxes(boxes, height, width, [PERSON]),
            )
        )
    return _not_empty(scenes, root / split)


def _not_empty(scenes: list[Scene], folder: Path) -> list[Scene]:
    if not scenes:
        raise FileNotFoundError(f"'{folder}' holds no scene; expected vi/*.jpg and its companions")
    return scenes
