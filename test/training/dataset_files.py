# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes tiny data sets in their published layouts, file by file."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import cv2
import numpy as np

from magicfuse_training.data.datasets import dataset
from magicfuse_training.data.scenes import Scenes

HEIGHT, WIDTH = 24, 32
GRAY = np.linspace(20, 235, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
COLOR = np.dstack([GRAY, 255 - GRAY, np.full_like(GRAY, 180)])  # RGB
THERMAL = GRAY.T.reshape(HEIGHT, WIDTH)
PERSON_BOX = (8.0, 6.0, 16.0, 18.0)

VOC = "<bndbox><xmin>8</xmin><ymin>6</ymin><xmax>16</xmax><ymax>18</ymax></bndbox>"
XYWH = "<bndbox><x>8</x><y>6</y><w>8</w><h>12</h></bndbox>"
OTHER = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox>"


def picture(path: Path, image: np.ndarray = COLOR) -> Path:
    """Write a picture, RGB, gray or RGBA, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flip = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    code = flip[2 if image.ndim == 2 else image.shape[2]]
    assert cv2.imwrite(str(path), image if code is None else cv2.cvtColor(image, code))
    return path


def label(path: Path, ids: list[int]) -> Path:
    """Write a label image with one column of pixels per id; fill the rest with the last id."""
    image = np.full((HEIGHT, WIDTH), ids[-1], np.uint8)
    image[:, : len(ids)] = ids
    return picture(path, image)


def text(path: Path, content: str) -> Path:
    """Write a text file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def voc(path: Path, *objects: tuple[str, str]) -> Path:
    """Write a box file of (name, bndbox)."""
    body = "".join(f"<object><name>{name}</name>{box}</object>" for name, box in objects)
    return text(path, f"<annotation>{body}</annotation>")


def load(kind: str, root: Path, split: str, height: int = HEIGHT, width: int = WIDTH) -> Scenes:
    """Return the scenes of a split, each fitted into height x width."""
    return Scenes(dataset(kind), root, split, height, width)


def mfnet(root: Path) -> None:
    for name in ("00001D", "00002N", "00003D"):
        picture(root / "images" / f"{name}.png", np.dstack([COLOR, THERMAL]))
        label(root / "labels" / f"{name}.png", [1, 2, 3, 0])
    text(root / "train.txt", "00001D\n00002N\n")
    text(root / "val.txt", "00003D\n")
    text(root / "test.txt", "00003D\n")


def msrs(root: Path) -> None:
    for name in ("00001D", "00002N"):
        picture(root / "train" / "vi" / f"{name}.png")
        picture(root / "train" / "ir" / f"{name}.png", THERMAL)
        label(root / "train" / "Segmentation_labels" / f"{name}.png", [1, 2, 3, 0])


def msrs_repacked(root: Path) -> None:
    for name in ("00001D", "00002N"):
        picture(root / "train" / "vi" / f"{name}.jpg")
        picture(root / "train" / "ir" / f"{name}.jpg", THERMAL)
        label(root / "train" / "pseudo_label" / f"{name}.png", [1, 2, 3, 0])
        boxes = "0 0.375 0.5 0.25 0.5\n2 0.1 0.1 0.1 0.1\n"
        text(root / "train" / "boxes_infrared" / f"{name}.txt", boxes)


def fmb(root: Path) -> None:
    picture(root / "train" / "Visible" / "00001.png")
    picture(root / "train" / "Infrared" / "00001.png", THERMAL)
    label(root / "train" / "Label" / "00001.png", [9, 8, 13, 7])


def llvip(root: Path) -> None:
    for split, name in (("train", "010001"), ("test", "190001")):
        picture(root / "visible" / split / f"{name}.jpg")
        picture(root / "infrared" / split / f"{name}.jpg", THERMAL)
        voc(root / "Annotations" / f"{name}.xml", ("person", VOC))


def m3fd(root: Path) -> None:
    picture(root / "Vis" / "00000.png")
    picture(root / "Ir" / "00000.png", THERMAL)
    voc(root / "Annotation" / "00000.xml", ("People", VOC), ("Lamp", OTHER), ("Car", OTHER))


def roadscene(root: Path) -> None:
    picture(root / "crop_LR_visible" / "FLIR_00006.jpg")
    picture(root / "cropinfrared" / "FLIR_00006.jpg", THERMAL)


def roadscene_repacked(root: Path) -> None:
    picture(root / "train" / "vi" / "FLIR_00006.jpg")
    picture(root / "train" / "ir" / "FLIR_00006.jpg", THERMAL)


def camvid(root: Path) -> None:
    picture(root / "701_StillsRaw_full" / "0001TP_006690.png")
    colors = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)  # sky
    colors[:, :3] = [(64, 0, 128), (192, 128, 64), (192, 0, 192)]  # car, child, motorcycle
    picture(root / "LabeledApproved_full" / "0001TP_006690_L.png", colors)


def camvid_segnet(root: Path) -> None:
    picture(root / "train" / "0001TP_006690.png")
    label(root / "trainannot" / "0001TP_006690.png", [8, 9, 10, 0])


def camvid_repacked(root: Path) -> None:
    picture(root / "train" / "vi" / "0001TP_006690.jpg")
    label(root / "train" / "label" / "0001TP_006690.png", [8, 9, 10, 0])


def cityscapes(root: Path) -> None:
    for city in ("aachen", "bochum"):
        name = f"{city}_000000_000019"
        picture(root / "leftImg8bit" / "train" / city / f"{name}_leftImg8bit.png")
        folder = root / "gtFine" / "train" / city
        label(folder / f"{name}_gtFine_labelIds.png", [26, 24, 25, 23])
        picture(folder / f"{name}_gtFine_color.png")
        text(folder / f"{name}_gtFine_polygons.json", "{}")


def llvip_repacked(root: Path) -> None:
    picture(root / "train" / "vi" / "010001.jpg")
    picture(root / "train" / "ir" / "010001.jpg", THERMAL)


def cityscapes_repacked(root: Path) -> None:
    squeezed = cv2.resize(COLOR, (WIDTH // 2, HEIGHT), interpolation=cv2.INTER_AREA)
    picture(root / "train" / "vi" / "aachen_0001.png", squeezed)
    ids = np.full((HEIGHT, WIDTH // 2), 0, np.uint8)
    ids[:, :2] = [8, 9]
    picture(root / "train" / "label" / "aachen_0001.png", ids)


def idd(root: Path) -> None:
    picture(root / "leftImg8bit" / "train" / "201" / "frame0029_leftImg8bit.png")
    folder = root / "gtFine" / "train" / "201"
    label(folder / "frame0029_gtFine_labellevel3Ids.png", [9, 4, 6, 25])


def idd_lite(root: Path) -> None:
    picture(root / "leftImg8bit" / "train" / "0" / "024541_image.jpg")
    label(root / "gtFine" / "train" / "0" / "024541_label.png", [3, 2, 2, 6])
    picture(root / "gtFine" / "train" / "0" / "024541_inst_label.png")


def idd_repacked(root: Path) -> None:
    picture(root / "train" / "vi" / "000_024541.jpg")
    label(root / "train" / "group" / "000_024541.png", [3, 2, 2, 6])
    label(root / "train" / "teacher_label" / "000_024541.png", [8, 9, 3, 255])


def pennfudan(root: Path) -> None:
    picture(root / "PNGImages" / "FudanPed00001.png")
    label(root / "PedMasks" / "FudanPed00001_mask.png", [0, 1, 2, 0])


def pennfudan_repacked(root: Path) -> None:
    picture(root / "train" / "vi" / "FudanPed00001.jpg")
    label(root / "train" / "label" / "FudanPed00001.png", [255, 9, 9, 255])
    text(root / "train" / "boxes" / "FudanPed00001.txt", "0 0.375 0.5 0.25 0.5\n")


def kaist(root: Path) -> None:
    for video in ("set00/V000", "set03/V001", "set06/V000"):
        picture(root / "images" / video / "visible" / "I00000.jpg")
        picture(root / "images" / video / "lwir" / "I00000.jpg", THERMAL)
        boxes = root / "annotations-xml-new-sanitized" / video / "I00000.xml"
        voc(boxes, ("person", XYWH), ("cyclist", XYWH), ("person?", XYWH))


def folder(root: Path) -> None:
    picture(root / "vi" / "a.jpg")
    picture(root / "ir" / "a.png", THERMAL)
    label(root / "label" / "a.png", [8, 9, 10, 0])


def write_data(root: Path) -> None:
    """Write noise as repacked CamVid and MSRS: two scenes to train on, and two held out."""
    rng = np.random.default_rng(0)
    for name, splits, kinds in (
        ("camvid", ("train", "val"), {"vi": ".jpg", "label": ".png"}),
        ("msrs", ("train", "dev"), {"vi": ".jpg", "ir": ".jpg", "pseudo_label": ".png"}),
    ):
        for split, (kind, suffix), stem in product(splits, kinds.items(), ("1D", "2N")):
            image = rng.integers(0, 11 if kind == "label" else 9, (64, 96), np.uint8)
            picture(root / name / split / kind / f"{stem}{suffix}", image)
            if name == "msrs":
                text(root / name / split / "boxes_infrared" / f"{stem}.txt", "0 0.5 0.5 0.2 0.4\n")


WRITERS = {
    writer.__name__.replace("_", "-"): writer
    for writer in (
        folder, mfnet, msrs, msrs_repacked, fmb, llvip, m3fd, roadscene, roadscene_repacked,
        camvid, camvid_segnet, camvid_repacked, cityscapes, kaist, llvip_repacked,
        cityscapes_repacked, idd, idd_lite, idd_repacked, pennfudan, pennfudan_repacked,
    )
}  # fmt: skip
