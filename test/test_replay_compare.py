# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Two bags of results compared."""

from __future__ import annotations

import json
import sys
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from cli_run import magicfuse
from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.mcap_file import McapFile
from magicfuse_ros.replay.compare import compare
from magicfuse_ros.replay.comparison import ComparisonLimits
from replay_bags import drive, results, stamps

STAMPS = stamps(4)


def gray(value: int) -> Pixels:
    return np.full((10, 20), value, np.uint8)


def rgb(value: int) -> Pixels:
    return np.full((10, 20, 3), value, np.uint8)


def masks(*values: int) -> list[tuple[int, Pixels]]:
    return [(stamp, gray(value)) for stamp, value in zip(STAMPS, values, strict=False)]


def test_equal_bags(tmp_path: Path) -> None:
    outputs = {"segmentation/mask": masks(1, 2, 3), "mag_image": [(s, rgb(9)) for s in STAMPS[:3]]}
    first, second = (results(tmp_path / name, outputs) for name in ("a", "b"))
    found = compare(first, second)
    assert [d.stamp_ns for d in found.differences] == STAMPS[:3]
    assert {d.mask_agreement for d in found.differences} == {100.0}
    assert [d.psnr_db for d in found.differences] == [{"mag_image": None}] * 3
    assert found.failures(ComparisonLimits(100, 99, 0)) == []
    assert found.summary()["frames"] == {"compared": 3, "missing": 0, "extra": 0}


def test_agreement_and_psnr_are_those_of_the_textbook(tmp_path: Path) -> None:
    mask = gray(1)
    mask[0, :5] = 2  # 5 of 200 pixels
    image = rgb(100)
    image[0, 0, 0] = 103  # 9 / 600
    new = results(
        tmp_path / "new",
        {"segmentation/mask": [(STAMPS[0], mask)], "mag_image": [(STAMPS[0], image)]},
    )
    reference = results(
        tmp_path / "reference",
        {"segmentation/mask": masks(1), "mag_image": [(STAMPS[0], rgb(100))]},
    )
    (difference,) = compare(new, reference).differences
    assert difference.mask_agreement == 97.5
    assert difference.psnr_db["mag_image"] == pytest.approx(
        10 * log10(255**2 / (9 / 600)), abs=1e-3
    )
    found = compare(new, reference)
    assert found.failures(ComparisonLimits(97.5, 66, 0)) == []
    assert (
        "mask agreement is below 97.6 % in 1 of 1"
        in found.failures(ComparisonLimits(97.6, 66, 0))[0]
    )
    assert "1700000000.000000000" in found.failures(ComparisonLimits(97.6, 66, 0))[0]
    assert "PSNR of mag_image is below 67 dB" in found.failures(ComparisonLimits(97.5, 67, 0))[0]


def test_flicker_is_told_for_both_bags(tmp_path: Path) -> None:
    def outputs(*values: int) -> dict[str, list[tuple[int, Pixels]]]:
        pictures = [(s, rgb(v)) for s, v in zip(STAMPS, values, strict=False)]
        return {"segmentation/mask": masks(*values), "mag_image": pictures}

    new = results(tmp_path / "new", outputs(10, 14, 10))
    steady = results(tmp_path / "steady", outputs(10, 10, 10))
    first, second, third = compare(new, steady).differences
    assert not first.flicker
    for difference in (second, third):
        assert (difference.flicker["mag_image"].new, difference.flicker["mag_image"].reference) == (
            4,
            0,
        )
        assert difference.flicker["segmentation/mask"].new == 100
    assert compare(new, steady).summary()["flicker"]["mag_image"] == {"new": 4, "reference": 0}


def test_frames_meet_by_their_stamps(tmp_path: Path) -> None:
    new = results(tmp_path / "new", {"segmentation/mask": [*masks(1, 2, 3)[1:], (7, gray(0))]})
    reference = results(tmp_path / "reference", {"segmentation/mask": masks(1, 2, 3, 4)})
    found = compare(new, reference)
    assert [d.stamp_ns for d in found.differences] == STAMPS[1:3]
    assert {d.mask_agreement for d in found.differences} == {100.0}
    assert (found.missing, found.extra) == ([STAMPS[0], STAMPS[3]], [7])
    assert found.failures(ComparisonLimits(max_missing=2)) == []
    (failure,) = found.failures(ComparisonLimits(max_missing=1))
    assert "frames missing: 2" in failure and "1700000000.300000000" in failure


def test_bags_without_a_common_frame_fail(tmp_path: Path) -> None:
    new = results(tmp_path / "new", {"segmentation/mask": [(7, gray(0))]})
    reference = results(tmp_path / "reference", {"segmentation/mask": masks(1, 2)})
    found = compare(new, reference)
    assert found.failures(ComparisonLimits(max_missing=9)) == ["no frame is in both bags"]
    assert found.summary()["frames"] == {"compared": 0, "missing": 2, "extra": 1}


def test_the_order_does_not_matter_and_stamps_may_come_again(tmp_path: Path) -> None:
    loops = [*masks(1, 2, 3), *masks(4, 5, 6)]
    mixed = [loops[i] for i in (0, 2, 1, 4, 3, 5)]
    new = results(tmp_path / "new", {"segmentation/mask": mixed})
    reference = results(tmp_path / "reference", {"segmentation/mask": loops})
    found = compare(new, reference)
    assert [d.stamp_ns for d in found.differences] == [*STAMPS[:3], *STAMPS[:3]]
    assert {d.mask_agreement for d in found.differences} == {100.0}
    assert not found.missing and not found.extra


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    large = np.zeros((30, 20), np.uint8)
    new = results(tmp_path / "new", {"segmentation/mask": [(STAMPS[0], large)]})
    reference = results(tmp_path / "reference", {"segmentation/mask": masks(1)})
    with pytest.raises(MediaError, match=f"stamp {STAMPS[0]} ns is 20x30 in .* and 20x10 in"):
        compare(new, reference)
    other = results(tmp_path / "other", {"mag_image": [(STAMPS[0], rgb(1))]})
    with pytest.raises(MediaError, match="different outputs"):
        compare(new, other)
    with pytest.raises(MediaError, match="none of the outputs"):
        compare(new, drive(tmp_path / "camera", 1))


def test_a_bag_is_read_twice_however_many_outputs_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {"segmentation/mask": masks(1, 2)}
    outputs |= {name: [(s, rgb(9)) for s in STAMPS[:2]] for name in ("mag_image", "restored_image")}
    first, second = (results(tmp_path / name, outputs) for name in ("a", "b"))
    readings = []

    def messages(file: McapFile, *given: Any) -> Any:
        readings.append(file)
        return read(file, *given)

    read = McapFile.messages
    monkeypatch.setattr(McapFile, "messages", messages)
    (one, two) = compare(first, second).differences
    assert one.psnr_db == two.psnr_db == {"mag_image": None, "restored_image": None}
    assert len(readings) == 4


def test_a_bag_that_lacks_images_is_not_compared(tmp_path: Path) -> None:
    reference = results(tmp_path / "reference", {"segmentation/mask": masks(1, 2)})
    new = results(tmp_path / "new", {"segmentation/mask": masks(1, 2)})
    metadata = reference / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 2", "message_count: 3"))
    for bags in ((new, reference), (reference, new)):
        with pytest.raises(MediaError, match="reference' announces 3 images and holds 2"):
            compare(*bags)


def test_an_output_that_is_gone_is_a_failure(tmp_path: Path) -> None:
    new = results(tmp_path / "new", {"segmentation/mask": masks(1)})
    both = {"segmentation/mask": masks(1), "mag_image": [(STAMPS[0], rgb(1))]}
    reference = results(tmp_path / "reference", both)
    assert compare(new, reference).failures(ComparisonLimits()) == [
        "mag_image is in the reference only"
    ]
    assert compare(reference, new).failures(ComparisonLimits()) == []


def replay(*arguments: str | Path) -> Result:
    return magicfuse("replay", "--offline", *arguments)


def test_the_exit_code_is_that_of_a_regression_test(tmp_path: Path, tiny_bundle: Path) -> None:
    pytest.importorskip("matplotlib")
    bag = drive(tmp_path / "in", 4)
    golden = tmp_path / "golden"
    bundle = ("--bundle", tiny_bundle)
    assert replay(bag, "--out", golden, *bundle, "--steps", "2").exit_code == 0

    same = tmp_path / "same"
    strict = ("--min-agreement", "100", "--min-psnr", "99")
    result = replay(bag, "--out", same, *bundle, "--compare", golden / "bag", *strict, "--plot")
    assert result.exit_code == 0, result.output
    assert "4 compared, 0 missing" in result.output
    report = json.loads((same / "comparison.json").read_text())
    assert report["passed"] and len(report["per_frame"]) == 4
    assert (same / "comparison.png").read_bytes().startswith(b"\x89PNG")

    other = tmp_path / "other"
    options = (*bundle, "--steps", "1", "--compare", golden / "bag", "--min-psnr", "60")
    result = replay(bag, "--out", other, *options)
    assert result.exit_code == 1, result.output
    assert "regression: PSNR of" in result.output
    report = json.loads((other / "comparison.json").read_text())
    assert not report["passed"] and report["failures"]
    assert report["psnr_db"]["mag_image"]["worst"] < 60

    part = ("--duration", "0.25", "--compare", golden / "bag")
    result = replay(bag, "--out", tmp_path / "part", *bundle, *part)
    assert result.exit_code == 1 and "frames missing: 1" in result.output
    result = replay(bag, "--out", tmp_path / "fine", *bundle, *part, "--max-missing", "1")
    assert result.exit_code == 0, result.output


def test_a_plot_without_matplotlib_is_an_error_before_the_work(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = tmp_path / "out"
    result = replay(drive(tmp_path / "in", 1), "--out", out, "--bundle", tiny_bundle, "--plot")
    assert result.exit_code == 2 and "pip install matplotlib" in result.output
    assert not out.exists()
