from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from magicfuse_ros import backends
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.cli import app
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.image_codec import Image, decode_file
from magicfuse_ros.media import open_source
from magicfuse_ros.overlay import overlay
from media_files import SECOND, image_message, picture, write_bag, write_picture, write_video
from tiny_bundle import CLASSES


def magicfuse_run(path: Path, out: Path, *options: str | Path) -> Result:
    command = ["run", path, "--out", out, *options]
    return CliRunner().invoke(app, [str(part) for part in command])


def read(path: Path) -> Image:
    return decode_file(path.read_bytes())


def report_of(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of different sizes, the second of which is damaged."""
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
        for i, encoding in enumerate(("bgr8", "yuv422", "bgr8"), start=1)
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
    assert "yuv422" in report["refused"][0]["reason"]
    assert [frame["stamp_ns"] for frame in report["frames"]] == [SECOND, 3 * SECOND]


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
