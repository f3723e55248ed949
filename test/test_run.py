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

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin
from typer.testing import Result

from bag_files import in_wal, mcap
from cli_run import magicfuse
from magicfuse_ros import backends
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.commands import run
from magicfuse_ros.errors import MediaError
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.image_codec import Pixels, decode_file
from magicfuse_ros.media import open_source
from magicfuse_ros.output_files import write_png
from magicfuse_ros.overlay import overlay
from media_files import SECOND, image_message, picture, write_bag, write_picture, write_video
from tiny_bundle import CLASSES


def magicfuse_run(path: Path, out: Path, *options: str | Path) -> Result:
    return magicfuse("run", path, "--out", out, *options)


def read(path: Path) -> Pixels:
    return decode_file(path.read_bytes())


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of different sizes; the second one is damaged."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, size in enumerate([(64, 96), (1, 1), (50, 70), (120, 160)], start=1):
        write_picture(folder / f"street {i}.png", picture(*size, seed=i))
    (folder / "street 2.png").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("kind", ["tiny_bundle", "tiny_uncertain_bundle"])
def test_everything_is_written_for_every_frame(
    folder: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(kind)
    out = tmp_path / "deep" / "out"
    result = magicfuse_run(folder, out, "--bundle", bundle)
    assert result.exit_code == 0, result.output
    fuser = Fuser(Bundle.load(bundle), backends.select())
    folders = {*fuser.outputs, "overlay"}
    assert ("thermal_uncertainty" in folders) == (kind == "tiny_uncertain_bundle")
    names = ["street 1", "street 3", "street 4"]
    assert {path.name for path in out.iterdir()} == {*folders, "contact_sheet.png", "report.json"}
    for kind in folders:
        assert sorted(path.name for path in (out / kind).iterdir()) == [f"{n}.png" for n in names]

    for frame in open_source(folder):
        fused = fuser(frame.image)
        expected: dict[str, Any] = {kind: getattr(fused, kind) for kind in fuser.outputs}
        expected["overlay"] = overlay(expected["mag_image"], expected["mask"], CLASSES)
        for kind, image in expected.items():
            written = read(out / kind / f"{frame.name}.png")
            if image.ndim == 2:
                image = np.repeat(image[..., np.newaxis], 3, axis=2)
            np.testing.assert_array_equal(written, image, err_msg=kind)


def test_masks_hold_class_ids_in_one_channel(
    folder: Path, tmp_path: Path, tiny_uncertain_bundle: Path
) -> None:
    assert magicfuse_run(folder, tmp_path / "out", "--bundle", tiny_uncertain_bundle).exit_code == 0
    for kind in ("mask", "confidence", "thermal_estimate", "thermal_uncertainty"):
        data = (tmp_path / "out" / kind / "street 1.png").read_bytes()
        assert data[25] == 0, f"{kind} is not a grayscale PNG"  # byte 25: colour type
    mask = read(tmp_path / "out" / "mask" / "street 1.png")
    assert mask.max() < len(CLASSES)


def test_the_report(folder: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    out = tmp_path / "out"
    options = ("--bundle", tiny_bundle, "--steps", "1", "--fit", "stretch")
    result = magicfuse_run(folder, out, *options, "--backend", "onnxruntime")
    assert result.exit_code == 0, result.output
    report = report_of(out)
    bundle, backend = Bundle.load(tiny_bundle), backends.select("onnxruntime")
    assert report["input"] == str(folder)
    assert report["bundle"] == {"name": bundle.manifest.name, "fingerprint": bundle.fingerprint}
    assert report["backend"] == {
        "name": "onnxruntime",
        "version": backend.version,
        "device": backend.device,
        "precision": "fp32",
        "asked": "onnxruntime",
        "why": "asked for",
    }
    assert report["fit"] == "stretch"
    assert report["counts"] == {"read": 4, "fused": 3, "refused": 1}
    (refusal,) = report["refused"]
    assert refusal["name"] == "street 2.png" and "damaged" in refusal["reason"]
    assert "street 2.png" in result.output
    assert [frame["name"] for frame in report["frames"]] == ["street 1", "street 3", "street 4"]
    for frame in report["frames"]:
        assert frame["K"] == 1 and frame["stamp_ns"] == 0
        assert {"encoder", "ikr", "ckg", "mkf", "segmentation", "decoder", "total"} <= {
            *frame["ms"]
        }
    totals = sorted(frame["ms"]["total"] for frame in report["frames"])
    assert report["median_ms"]["total"] == totals[1] > 0


def test_names_that_are_not_utf8_are_kept(tmp_path: Path, tiny_bundle: Path) -> None:
    name = os.fsdecode("straße".encode("latin-1"))
    write_picture(tmp_path / f"{name}.png", picture())
    result = magicfuse_run(tmp_path / f"{name}.png", tmp_path / "out", "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "out/mag_image" / f"{name}.png").shape == picture().shape
    assert report_of(tmp_path / "out")["frames"][0]["name"] == name


def test_the_contact_sheet_has_a_row_for_each_of_eight_frames(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    video = write_video(tmp_path / "v.mp4", range(20))
    out = tmp_path / "out"
    assert magicfuse_run(video, out, "--bundle", tiny_bundle).exit_code == 0
    sheet = read(out / "contact_sheet.png")
    assert sheet.shape[0] > 8 * 240 and sheet.shape[1] > 5 * 320
    for c in CLASSES:  # the legend
        assert (sheet[-60:] == c.color).all(axis=2).any(), c.name


def test_a_video_keeps_its_stamps_and_limit_ends_it(tmp_path: Path, tiny_bundle: Path) -> None:
    video = write_video(tmp_path / "v.mp4", [0, 1, 5, 6])
    out = tmp_path / "out"
    assert magicfuse_run(video, out, "--bundle", tiny_bundle, "--limit", "3").exit_code == 0
    report = report_of(out)
    assert [frame["stamp_ns"] for frame in report["frames"]] == [0, SECOND // 10, SECOND // 2]
    assert report["counts"] == {"read": 3, "fused": 3, "refused": 0}
    assert len(list((out / "mask").iterdir())) == 3


def test_a_bag_by_topic(tmp_path: Path, tiny_bundle: Path) -> None:
    messages = [
        (topic, SECOND * i, image_message(picture(seed=i), SECOND * i, encoding))
        for i, encoding in enumerate(("bgr8", "odd_code", "bgr8"), start=1)
        for topic in ("/left", "/right")
    ]
    bag = write_bag(tmp_path / "bag", messages)
    out = tmp_path / "out"
    result = magicfuse_run(bag, out, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "/left, /right" in result.output
    result = magicfuse_run(bag, out, "--bundle", tiny_bundle, "--topic", "/left")
    assert result.exit_code == 0, result.output
    report = report_of(out)
    assert report["counts"] == {"read": 3, "fused": 2, "refused": 1}
    assert "odd_code" in report["refused"][0]["reason"]
    assert [frame["stamp_ns"] for frame in report["frames"]] == [SECOND, 3 * SECOND]


def test_damage_that_costs_no_image_is_told_and_not_counted(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    messages = [
        ("/image", SECOND * i, image_message(picture(seed=i), SECOND * i)) for i in range(5)
    ]
    bag = tmp_path / "drive.mcap"
    bag.write_bytes(mcap(messages, footer=False))
    out = tmp_path / "out"
    result = magicfuse_run(bag, out, "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    report = report_of(out)
    assert report["counts"] == {"read": 5, "fused": 5, "refused": 0}
    (sentence,) = report["damaged"]
    assert "fused 5 of 5 frames" in result.output and sentence in result.output
    assert "drive.mcap' was not finished" in sentence


def test_images_that_only_the_metadata_knows_are_missing(tmp_path: Path, tiny_bundle: Path) -> None:
    messages = [
        ("/image", SECOND * i, image_message(picture(seed=i), SECOND * i)) for i in range(9)
    ]
    bag = write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    (file,) = bag.glob("*.db3")
    in_wal(file, 3)
    Path(f"{file}-wal").unlink()
    result = magicfuse_run(bag, tmp_path / "out", "--bundle", tiny_bundle)
    assert result.exit_code == 0, result.output
    assert report_of(tmp_path / "out")["counts"] == {
        "read": 7, "fused": 6, "refused": 1, "missing": 2
    }  # fmt: skip
    assert "announces 9 images and holds 6" in result.output


def test_nothing_readable_is_an_error(tmp_path: Path, tiny_bundle: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    out = tmp_path / "out"
    result = magicfuse_run(path, out, "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert "broken.png" in result.output and "damaged" in result.output
    assert report_of(out)["counts"] == {"read": 1, "fused": 0, "refused": 1}
    assert not (out / "contact_sheet.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--backend", "abacus"), "abacus"),
        (("--steps", "7"), "steps is 7"),
        (("--fit", "crop"), "crop"),
        (("--topic", "/image"), "not a rosbag2"),
        (("--limit", "0"), "limit"),
        (("--bundle", "nowhere"), "nowhere"),
    ],
)
def test_bad_options_are_named_and_leave_nothing_behind(
    folder: Path, tmp_path: Path, tiny_bundle: Path, options: tuple[str, str], words: str
) -> None:
    out = tmp_path / "out"
    result = magicfuse_run(folder, out, "--bundle", tiny_bundle, *options)
    assert result.exit_code == 2
    assert words in result.output
    assert not out.exists()


def test_an_output_that_is_a_file_is_named(folder: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    out = tmp_path / "taken"
    out.touch()
    result = magicfuse_run(folder, out, "--bundle", tiny_bundle)
    assert result.exit_code == 2
    assert "cannot make folder" in result.output and "taken" in result.output


def results(out: Path) -> set[str]:
    """Return the images of all frames, by kind/name."""
    return {f"{p.parent.name}/{p.stem}" for p in out.glob("*/*.png")}


def test_several_inputs_are_one_run(folder: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    same_name = write_picture(other / "street 1.png", picture(seed=9))
    (other / "empty.png").touch()
    video = write_video(tmp_path / "v 1.mp4", [0, 1])
    out = tmp_path / "out"
    paths = (same_name, other / "empty.png", video, "--out", out, "--bundle", tiny_bundle)
    result = magicfuse_run(folder / "street 1.png", out, *paths, folder)
    assert result.exit_code == 0, result.output
    report = report_of(out)
    names = [frame["name"] for frame in report["frames"]]
    assert names[:2] == ["street 1", "street 1_2"] and len(names) == len(set(names)) == 7
    assert [name.startswith("v_1_") for name in names] == [False] * 2 + [True] * 2 + [False] * 3
    assert names[4] == "pictures_street 1"
    assert {name for name in results(out) if name.startswith("mask/")} == {
        f"mask/{name}" for name in names
    }
    refused = [refusal["name"] for refusal in report["refused"]]
    assert refused == [str(other / "empty.png"), f"{folder}: street 2.png"]
    assert report["input"][1] == str(same_name) and len(report["input"]) == 5


def test_results_are_never_inputs(folder: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    before = sorted(folder.iterdir())
    result = magicfuse_run(folder, folder, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "the input itself" in result.stderr
    assert sorted(folder.iterdir()) == before

    assert magicfuse_run(folder / "street 1.png", folder, "--bundle", tiny_bundle).exit_code == 0
    out = folder / "fused"
    for _ in range(2):  # a folder inside of the input is separate from it
        result = magicfuse_run(folder, out, "--bundle", tiny_bundle)
        assert result.exit_code == 0 and "contact_sheet.png': it is a result" in result.stderr
        assert report_of(out)["counts"] == {"read": 4, "fused": 3, "refused": 1}
    for taken in (out / "mask", out / "mask" / "street 1.png", out / "contact_sheet.png"):
        data = taken.read_bytes() if taken.is_file() else b""
        result = magicfuse_run(taken, out, "--bundle", tiny_bundle)
        assert result.exit_code == 2 and "where the results" in result.stderr
        assert taken.is_dir() or taken.read_bytes() == data


def test_earlier_results_are_replaced_and_other_files_stay(
    folder: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    out = tmp_path / "out"
    assert magicfuse_run(folder, out, "--bundle", tiny_bundle).exit_code == 0
    (out / "mask" / "mine.png").touch()
    result = magicfuse_run(folder / "street 4.png", out, "--bundle", tiny_bundle)
    assert "replaced the results of an earlier run" in result.stderr
    assert "mask' holds 1 other files" in " ".join(result.stderr.split())
    assert {name.partition("/")[2] for name in results(out)} == {"street 4", "mine"}

    strange = tmp_path / "strange"
    strange.mkdir()
    report = '{"median_ms": {}, "frames": [{"name": "../../precious"}]}'
    (strange / "report.json").write_text(report)
    (strange / ".magicfuse_unfinished").write_text('"../../precious"\n7\n[]\n"cut')
    (tmp_path / "precious.png").touch()
    assert magicfuse_run(folder, strange, "--bundle", tiny_bundle).exit_code == 0
    assert (tmp_path / "precious.png").exists()


def test_a_file_that_no_run_wrote_is_never_overwritten(
    folder: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    label = tmp_path / "mask" / "street 3.png"  # such as a label of a data set
    label.parent.mkdir()
    label.write_bytes(b"label")
    result = magicfuse_run(folder, tmp_path, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and f"'{label}' exists, and no report" in result.stderr
    assert label.read_bytes() == b"label"
    assert [frame["name"] for frame in report_of(tmp_path)["frames"]] == ["street 1"]
    assert results(tmp_path) >= {"mask/street 1", "overlay/street 1"}
    assert not (tmp_path / "overlay" / "street 3.png").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("report.json", b'{"accuracy": 0.93}', "holds '{\"accuracy\": 0.93}'; expected a report"),
        ("report.json", b"[" * 100_000, "holds '[[["),
        ("report.json", b"\xff\xfe", "holds '\ufffd\ufffd'; expected a report that magicfuse run"),
        ("report.json", b"", "holds ''; expected a report"),
        ("contact_sheet.png", b"photo", "exists, and no report of an earlier run is beside it"),
    ],
)
def test_a_report_or_sheet_that_no_run_wrote_is_refused_at_once(
    folder: Path, tmp_path: Path, tiny_bundle: Path, name: str, content: bytes, words: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(content)
    result = magicfuse_run(folder, out, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and f"'{out / name}' {words}" in result.stderr
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_bytes() == content


def test_a_report_that_is_a_folder_is_refused_at_once(
    folder: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    out = tmp_path / "out"
    (out / "report.json").mkdir(parents=True)
    result = magicfuse_run(folder, out, "--bundle", tiny_bundle)
    assert result.exit_code == 2 and f"'{out / 'report.json'}' cannot be read" in result.stderr
    assert [path.name for path in out.iterdir()] == ["report.json"]


def test_a_run_that_was_killed_is_replaced_by_the_next_one(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    """As the kernel ends it where the memory is full."""
    video = write_video(tmp_path / "street\n1.mp4", range(400))
    out = tmp_path / "out"
    options = [str(video), "--out", str(out), "--bundle", str(tiny_bundle)]
    program = "from magicfuse_ros.cli import app; app()"
    process = subprocess.Popen([sys.executable, "-c", program, "run", *options])
    end = time.monotonic() + 120
    while len(results(out)) < 10 and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = {name.partition("/")[2] for name in results(out)}
    assert len(left) > 1 and not (out / "report.json").exists()
    mine = out / "mask" / "mine.png"
    mine.write_bytes(b"label")

    result = magicfuse_run(video, out, "--bundle", tiny_bundle, "--limit", "1")
    assert result.exit_code == 0, result.stderr
    assert f"replaced the results of an earlier run in '{out}'" in result.stderr
    assert {name.partition("/")[2] for name in results(out)} == {"000000", "mine"}
    assert mine.read_bytes() == b"label"
    assert not (out / ".magicfuse_unfinished").exists()


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted: fused 2 of 4 frames"),
        (MediaError("cannot write 'x': No space left on device"), 2, "error: cannot write 'x'"),
    ],
)
def test_what_was_done_is_reported_after_ctrl_c_and_errors(
    folder: Path,
    tmp_path: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
    words: str,
) -> None:
    def fail_late(path: Path, image: Pixels) -> None:
        if path.stem == "street 4" and path.parent.name == "overlay":  # its last image
            raise raised
        write_png(path, image)

    monkeypatch.setattr(run, "write_png", fail_late)
    out = tmp_path / "out"
    result = magicfuse_run(folder, out, "--bundle", tiny_bundle)
    assert result.exit_code == code and words in result.stderr
    report = report_of(out)
    assert report["counts"] == {"read": 3, "fused": 2, "refused": 1}
    assert report["stopped"] == (str(raised) or "interrupted")
    assert {name.partition("/")[2] for name in results(out)} == {"street 1", "street 3"}
    assert (out / "contact_sheet.png").exists()


def test_a_frame_whose_name_is_too_long_for_a_file_ends_the_run_with_a_report(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    for name in ("one", "two"):  # equal names get those of their folders
        (tmp_path / name).mkdir()
        write_picture(tmp_path / name / f"{'x' * 251}.png", picture(48, 80))
    out = tmp_path / "out"
    result = magicfuse_run(tmp_path / "one", out, str(tmp_path / "two"), "--bundle", tiny_bundle)
    assert result.exit_code == 2 and "File name too long" in result.stderr
    assert report_of(out)["counts"]["fused"] == 0
