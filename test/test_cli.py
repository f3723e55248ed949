from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.cli import app


def magicfuse(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", **env})


def test_help_names_every_command() -> None:
    result = magicfuse("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("run", "bench", "info"))


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
    assert "standard deviation, 4 to 255 gray levels" in line
    assert "0.042" in result.stdout  # of all outputs: the uncertainty takes no decoder call


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


def test_the_error_line_is_red_on_a_terminal() -> None:
    result = magicfuse("info", "no/bundle", FORCE_COLOR="1", TERM="xterm")
    assert result.stderr.startswith("\x1b[31merror: ")


def test_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    def defect(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Bundle, "load", defect)
    result = magicfuse("info", str(tiny_bundle))
    assert isinstance(result.exception, ZeroDivisionError)
