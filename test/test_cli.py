from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from magicfuse_ros.bundle import Bundle
from magicfuse_ros.cli import app
from magicfuse_ros.commands.bench import machine, measure
from magicfuse_ros.fuser import FusedFrame, Output


def magicfuse(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", **env})


def bench(folder: Path, *arguments: str) -> Result:
    return magicfuse("bench", "--bundle", str(folder), "--frames", "3", *arguments)


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
    ):
        assert expected in result.stdout, expected


def test_info_tells_what_is_int8(tiny_int8_bundle: Path) -> None:
    result = magicfuse("info", str(tiny_int8_bundle))
    assert result.exit_code == 0, result.output
    assert "encoder.int8.onnx: 1 layers in int8" in result.stdout


def test_bench_in_int8(tiny_int8_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = bench(tiny_int8_bundle, "--precision", "int8", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["precision"] == "int8"


def test_bench_writes_what_it_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    options = ("--backend", "onnxruntime", "--steps", "1", "--width", "50", "--height", "40")
    result = bench(tiny_bundle, *options, "--threads", "1", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert "end to end" in result.stdout and "fps" in result.stdout
    report = json.loads(path.read_text())
    assert report["backend"]["name"] == "onnxruntime"
    assert (report["backend"]["asked"], report["backend"]["why"]) == ("onnxruntime", "asked for")
    assert report["precision"] == "fp32"
    assert report["machine"] == machine() and machine()["cores"] == len(os.sched_getaffinity(0))
    assert (report["width"], report["height"], report["steps"]) == (50, 40, 1)
    assert report["fingerprint"] == Bundle.load(tiny_bundle).fingerprint
    assert report["commit"] == "0" * 40
    assert report["gflop_per_frame"] == pytest.approx(0.021)
    default, everything = report["results"]
    assert default["outputs"] == ["mag_image", "mask", "confidence"]
    assert len(everything["outputs"]) == 5
    assert everything["gflop_per_frame"] == pytest.approx(0.021 + 2 * 0.006)
    for measured in (default, everything):
        assert measured["fps"] > 0
        assert "total" not in measured["stages_ms"]
        for quantiles in (measured["end_to_end_ms"], *measured["stages_ms"].values()):
            assert 0 < quantiles["median"] <= quantiles["p95"]


def test_bench_takes_size_and_steps_from_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert bench(tiny_bundle, "--json", str(path)).exit_code == 0
    report = json.loads(path.read_text())
    assert (report["width"], report["height"], report["steps"]) == (96, 64, 2)
    assert report["backend"]["name"] == "openvino"


def test_measure_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = iter([9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0])  # seconds, the first three are warm-up
    now = 0.0
    monkeypatch.setattr("magicfuse_ros.commands.bench.perf_counter", lambda: now)

    def fuse(image: object, outputs: tuple[Output, ...]) -> FusedFrame:
        nonlocal now
        cost = next(costs)
        now += cost
        return FusedFrame(None, None, None, None, None, 1, {"ikr": cost, "total": 0.0})

    result = measure(fuse, np.zeros((1, 1, 3), np.uint8), ("mask",), frames=4)
    assert result["fps"] == pytest.approx(4 / 10)
    assert result["end_to_end_ms"] == {"median": 2500, "p95": 3850}
    assert result["stages_ms"] == {"ikr": {"median": 2.5, "p95": 3.85}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "no/bundle"), "error: bundle 'no/bundle' is not a folder"),
        (("bench", "--bundle", "TINY", "--backend", "cuda"), "error: backend 'cuda' is not known"),
        (("bench", "--bundle", "TINY", "--steps", "9"), "error: steps is 9"),
        (("bench", "--bundle", "TINY", "--frames", "1", "--json", "no/x.json"), "cannot write"),
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


def test_numbers_out_of_range_are_refused(tiny_bundle: Path) -> None:
    for option in ("--frames", "--width", "--height"):
        assert bench(tiny_bundle, option, "0").exit_code == 2
