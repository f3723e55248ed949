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
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli_run import magicfuse
from magicfuse_ros import __version__
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.cli import app
from media_files import picture, write_picture

PACKAGE = Path(__file__).resolve().parents[1]


def test_help_names_every_command() -> None:
    result = magicfuse("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("run", "bench", "info"))


def test_the_version_is_that_of_the_package() -> None:
    result = magicfuse("--version")
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")
    assert f"<version>{__version__}</version>" in (PACKAGE / "package.xml").read_text()


def test_info_explains_the_bundle(tiny_bundle: Path) -> None:
    result = magicfuse("info", str(tiny_bundle))
    assert result.exit_code == 0, result.output
    bundle = Bundle.load(tiny_bundle)
    for expected in (
        bundle.fingerprint,
        "tiny (preset tiny, float32)",
        *(spec.file for spec in bundle.manifest.networks.values()),
        "210",  # parameters of all networks
        "2 (default)",
        "0.030",  # GFLOP of a frame with K = 2
        "0.042",  # with three decoder calls
        "64 x 96",
        "zero terminal SNR",
        "[999, 499]",
        *(c.name for c in bundle.manifest.classes),
        "#dc143c",
        "Apache-2.0",
        "0" * 40,
        "restored.psnr",
        "12.35",
        "Backends on this machine",
        "openvino (auto; tensorrt_rtx ",
        "can run",
        "none: this bundle does not estimate it",
    ):
        assert expected in result.stdout, expected


def test_info_tells_whether_the_thermal_uncertainty_is_there(tiny_uncertain_bundle: Path) -> None:
    result = magicfuse("info", str(tiny_uncertain_bundle))
    assert result.exit_code == 0, result.output
    (line,) = (row for row in result.stdout.splitlines() if "thermal uncertainty" in row)
    assert "standard deviation, 3 to 255 gray levels" in line
    assert "0.042" in result.stdout  # of all outputs: the uncertainty needs no extra decoder call


def test_info_tells_what_is_int8(tiny_int8_bundle: Path) -> None:
    result = magicfuse("info", str(tiny_int8_bundle))
    assert result.exit_code == 0, result.output
    assert "encoder.int8.onnx: 1 layers in int8" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "no/bundle"), "error: bundle 'no/bundle' is not a folder"),
        (("run", "no/video", "--out", "out"), "error: 'no/video'"),
    ],
)
def test_an_error_is_one_line_without_a_traceback(
    tiny_bundle: Path, arguments: tuple[str, ...], message: str
) -> None:
    command = [str(tiny_bundle) if a == "TINY" else a for a in arguments]
    result = magicfuse(*command, COLUMNS="40")
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "before"),
    [(("", "--out", "out"), "run"), (("in", "--out", ""), "--out"), (("in", "--out="), "--out=")],
)
def test_an_empty_path_is_not_the_current_folder(arguments: tuple[str, ...], before: str) -> None:
    result = magicfuse("run", *arguments)
    assert result.exit_code == 2
    assert f"the value after '{before}' is empty" in result.stderr


def test_the_error_line_is_red_on_a_terminal() -> None:
    result = magicfuse("info", "no/bundle", FORCE_COLOR="1", TERM="xterm")
    assert result.stderr.startswith("\x1b[31merror: ")


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    def defect(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Bundle, "load", defect)
    with pytest.raises(ZeroDivisionError):
        magicfuse("info", tiny_bundle)


def test_paths_have_their_tilde_expanded(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shells do not expand --out=~/x, nor '~/x' in quotes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny_bundle)
    write_picture(tmp_path / "a.png", picture())
    result = magicfuse("run", "~/a.png", "--out=~/out", "--bundle=~/tiny")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "report.json").is_file() and not (tmp_path / "~").exists()
    assert magicfuse("info", "~/tiny").exit_code == 0
    assert "'~nobody_of_that_name'" in magicfuse("info", "~nobody_of_that_name").stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("columns", ["30", None])
def test_tables_are_whole_in_any_encoding_and_width(
    tiny_bundle: Path, encoding: str, columns: str | None
) -> None:
    if columns is None:  # a pipe: as wide as necessary
        found = CliRunner(charset=encoding).invoke(app, ["info", str(tiny_bundle)])
        assert "tiny/segmentation.onnx"[5:] in found.stdout
    else:
        arguments = ["info", str(tiny_bundle)]
        found = CliRunner(charset=encoding).invoke(app, arguments, env={"COLUMNS": columns})
    assert found.exit_code == 0, found.exception
    cells = "".join(c for c in found.stdout if c.isalnum() or c in "._")
    assert "…" not in found.stdout and "\\u" not in found.stdout
    if columns is None:
        assert "restored.psnr" in cells


def test_a_name_that_the_output_cannot_show_is_escaped(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "夜"
    bundle.symlink_to(tiny_bundle)
    result = CliRunner(charset="latin-1").invoke(app, ["info", str(bundle)])
    assert result.exit_code == 0 and "\\u591c" in result.stdout


def test_escape_sequences_in_names_reach_no_terminal(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "\x1b[2J"
    assert r"'\x1b[2J'" in magicfuse("info", bundle.name).stderr
    bundle.symlink_to(tiny_bundle)
    result = magicfuse("info", str(bundle))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout and r"\x1b[2J" in result.stdout


def test_info_as_json(tiny_bundle: Path) -> None:
    result = magicfuse("info", str(tiny_bundle), "--json")
    info, bundle = json.loads(result.stdout), Bundle.load(tiny_bundle)
    assert info["fingerprint"] == bundle.fingerprint
    assert info["bundle"] == bundle.manifest.model_dump(mode="json")
    assert info["gflop_of_a_frame"]["MagImg, mask"]["2"] == pytest.approx(0.03, abs=1e-3)
    assert info["backends"]["openvino"] == "can run"


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 2, "error: No space left on device"),
        (
            OSError(30, "Read-only file system", "/x/y"),
            2,
            "error: cannot read or write '/x/y': Read-only file system",
        ),
    ],
)
def test_ctrl_c_and_a_full_disk_are_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, line: str
) -> None:
    def fail(_: object) -> None:
        raise raised

    monkeypatch.setattr(Bundle, "load", fail)
    result = magicfuse("info", ".")
    assert result.exit_code == code and result.stderr == f"{line}\n"
