# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse bench`, with real processes on the tiny bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pytest import MonkeyPatch
from typer.testing import Result

from cli_run import magicfuse
from magicfuse_ros.backends.engine_cache import Precision
from magicfuse_ros.bench import timed_process
from magicfuse_ros.bench.conv_peak import ConvolutionPeak
from magicfuse_ros.bench.gpu import Gpu
from magicfuse_ros.bench.messages import Job, Ready, Round
from magicfuse_ros.bench.report import make_report, summarise
from magicfuse_ros.bench.rounds import TimedProcess
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.commands import bench as bench_module
from magicfuse_ros.errors import BackendError
from magicfuse_ros.fuser import FusedFrame


def bench(folder: Path, *arguments: str) -> Result:
    return magicfuse("bench", "--bundle", folder, "--frames", "2", *arguments)


def job(folder: Path, backend: str, precision: Precision = "fp32") -> Job:
    return Job(
        bundle=folder, backend=backend, precision=precision, width=50, height=40, steps=1,
        threads=1, outputs=("mask",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two backends at two sizes, and a precision that the tiny bundle lacks."""
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    result = bench(
        tiny_bundle, "--backend", "openvino", "onnxruntime", "--precision", "fp32", "fp16",
        "--size", "50x40", "200x100", "--rounds", "3", "--threads", "1", "--json", str(path),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "skipped openvino fp16, 50x40: backend 'openvino' computes in" in result.output
    assert "efficiency" in result.output and "segmentation" in result.output
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_the_report_has_the_documented_form(report: dict[str, Any], tiny_bundle: Path) -> None:
    machine = report["machine"]
    assert machine["cores"] == len(os.sched_getaffinity(0)) and machine["cpu"]
    assert machine["conv_peak_gflops"] > 0
    assert report["bundle_sha256"] == Bundle.load(tiny_bundle).fingerprint
    assert report["gflop_per_frame"] == pytest.approx(0.030)  # K = 2
    assert report["commit"]
    assert [(r["backend"], r["width"], r["height"]) for r in report["results"]] == [
        ("openvino", 50, 40), ("openvino", 200, 100),
        ("onnxruntime", 50, 40), ("onnxruntime", 200, 100),
    ]  # fmt: skip
    for result in report["results"]:
        assert (result["precision"], result["steps"]) == ("fp32", 2)
        assert 0 < result["median_ms"] <= result["p95_ms"]
        assert {"prepare", "encoder", "mkf", "finish"} < result["stages_ms"].keys()
        assert all(0 < s["median"] <= s["p95"] for s in result["stages_ms"].values())
        assert 20 < result["rss_mb"] < 1000
        assert 0 < result["load_to_first_frame_s"] < 60
    assert len(report["skipped"]) == 4


def test_the_ratios_follow_from_time_and_peak(report: dict[str, Any]) -> None:
    for r in report["results"]:
        seconds, peak = r["median_ms"] / 1e3, r["conv_peak_gflops"]
        assert r["peak_ratio"] == pytest.approx(seconds * peak / 10, rel=0.1, abs=1e-3)
        assert r["efficiency"] == pytest.approx(0.030 / seconds / peak, rel=0.1, abs=1e-3)


@pytest.mark.parametrize("kind", ["tiny_bundle", "tiny_uncertain_bundle"])
def test_all_outputs_are_those_that_the_bundle_has(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "bench.json"
    options = ("--all-outputs", "--backend", "onnxruntime", "--rounds", "1", "--json", str(path))
    result = bench(request.getfixturevalue(kind), *options)
    assert result.exit_code == 0, result.output
    (timed,) = json.loads(path.read_text())["results"]
    assert timed["gflop"] == pytest.approx(0.042)  # K = 2 with three decoder calls


def test_the_first_round_alone_tells_the_memory(tiny_bundle: Path) -> None:
    with TimedProcess(job(tiny_bundle, "onnxruntime")) as process:
        for _ in range(2):
            process.run(1)
        first, second = process.rounds
        assert first.rss_mb < second.rss_mb  # OpenVINO and the convolutions are loaded now
        assert summarise(process).rss_mb == pytest.approx(first.rss_mb, abs=0.1)


def test_a_process_that_cannot_run_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="backend 'tensorrt' "):
        TimedProcess(job(tiny_bundle, "tensorrt", "int8"))
    with pytest.raises(BackendError, match=r"nowhere' is not a folder"):
        TimedProcess(job(tmp_path / "nowhere", "openvino"))


@pytest.mark.parametrize("when", ["in a round", "between its rounds"])
def test_a_process_that_dies_is_an_error_with_its_exit_status(tiny_bundle: Path, when: str) -> None:
    process = TimedProcess(job(tiny_bundle, "openvino"))
    process._process.kill()
    if when == "between its rounds":
        process._process.wait()
    with pytest.raises(BackendError, match="openvino fp32, 50x40, K = 1 ended with exit status -9"):
        process.run(1)
    process.close()


def test_warm_up_frames_are_not_timed(monkeypatch: MonkeyPatch) -> None:
    costs = iter([9.0, 9.0, 9.0, 1.0, 2.0])  # seconds; the first three are warm-up
    now = 0.0
    monkeypatch.setattr(timed_process, "perf_counter", lambda: now)

    def fuse() -> FusedFrame:
        nonlocal now
        cost = next(costs)
        now += cost
        return FusedFrame(None, None, None, None, None, None, 1, {"ikr": cost, "total": 0.0})

    assert timed_process.time_frames(fuse, 2) == ([1000.0, 2000.0], {"ikr": [1.0, 2.0]})


def test_without_openvino_times_are_reported_and_the_peak_is_not(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('no openvino')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = tmp_path / "bench.json"
    result = bench(tiny_bundle, "--rounds", "1", "--json", str(path))
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    (timed,) = report["results"]
    assert timed["backend"] == "onnxruntime" and timed["median_ms"] > 0
    assert timed["conv_peak_gflops"] is timed["efficiency"] is timed["peak_ratio"] is None
    assert report["machine"]["conv_peak_gflops"] is None
    assert "not measured" in result.output


def test_a_gpu_has_a_peak_of_its_own_and_is_named_in_the_report(tiny_bundle: Path) -> None:
    card = Gpu(
        name="Orin", compute_capability="8.7", memory_mb=7600, module="Orin Nano", jetpack="",
        driver="540.4.0", driver_cuda="12.6", runtime="12.6", power_mode="MODE_15W",
    )  # fmt: skip

    def timed(peak: float, gpu: Gpu | None) -> Any:
        turns: Any = Turns(job(tiny_bundle, "auto"), fails_in=0, error=BackendError())
        turns.ready = turns.ready.model_copy(update={"gpu": gpu, "precision": "fp16"})
        turns.rounds = [
            Round(end_to_end_ms=[10], stages_ms={"mkf": [1]}, rss_mb=1, conv_peak_gflops=peak)
        ]
        return turns

    processes = [timed(9000.0, card), timed(100.0, None)]
    made = make_report(Bundle.load(tiny_bundle), processes, [], 1)
    assert made.machine.gpu == card and made.machine.conv_peak_gflops == 100
    assert [r.conv_peak_gflops for r in made.results] == [9000, 100]
    assert made.results[0].precision == "fp16"


def test_the_peak_is_one_that_a_cpu_can_have() -> None:
    gflops = ConvolutionPeak(threads=1).measure(repeats=1)
    assert 0.05 < gflops < 500  # a current core: at most 2 x 2 x 16 flop at 5 GHz


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "cuda"), "error: no combination can run here: backend 'cuda' is not known"),
        (("--steps", "9"), "error: no combination can run here: steps is 9"),
        (("--precision", "fp31"), "error: precision is 'fp31'"),
        (("--size", "640"), "error: size is '640'; expected WIDTHxHEIGHT, such as 1280x720"),
        (("--size", "0x480"), "error: size is '0x480'"),
        (("--size", "60000x60000"), "size is '60000x60000'; expected at most 67108864 pixels"),
    ],
)
def test_what_cannot_be_timed_is_one_line(
    tiny_bundle: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = bench(tiny_bundle, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.output
    assert result.stderr.count("\n") == 1


def test_numbers_out_of_range_are_refused(tiny_bundle: Path) -> None:
    for option in ("--frames", "--rounds"):
        assert bench(tiny_bundle, option, "0").exit_code == 2


class Turns:
    """A substitute for a `TimedProcess` whose process fails in a given round."""

    def __init__(self, tiny: Job, fails_in: int, error: BaseException) -> None:
        self.job, self.fails_in, self.error = tiny, fails_in, error
        self.ready = Ready(
            backend="onnxruntime", version="1", why="", precision="fp32", steps=1, gflop=0.1
        )
        self.load_to_first_frame_s = 1.0
        self.rounds: list[Round] = []

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, frames: int) -> None:
        """Time a round."""
        if len(self.rounds) + 1 == self.fails_in:
            raise self.error
        times, stages = [1.0] * frames, {"mkf": [0.5] * frames}
        self.rounds.append(
            Round(end_to_end_ms=times, stages_ms=stages, rss_mb=1, conv_peak_gflops=9)
        )


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted after 2 of 5 rounds"),
        (BackendError("it ended with -9"), 2, "it ended with -9 after 2 of 5 rounds"),
    ],
)
def test_what_was_measured_is_reported_after_ctrl_c_and_errors(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: MonkeyPatch,
    error: BaseException,
    code: int,
    words: str,
) -> None:
    turns = iter([Turns(job(tiny_bundle, "auto"), fails_in, error) for fails_in in (9, 3)])
    monkeypatch.setattr(bench_module, "TimedProcess", lambda _: next(turns))
    path = tmp_path / "bench.json"
    options = ("--backend", "openvino", "onnxruntime", "--rounds", "5", "--json", str(path))
    result = bench(tiny_bundle, *options)
    assert result.exit_code == code and words in result.output
    report = json.loads(path.read_text())
    assert report["rounds"] == 2 and len(report["results"]) == 2 and report["stopped"] in words


def test_a_result_that_could_not_be_written_is_not_measured(
    tiny_bundle: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_module, "TimedProcess", lambda _: pytest.fail("it began"))
    result = bench(tiny_bundle, "--json", "no/folder/x.json")
    assert result.exit_code == 2 and "cannot write 'no/folder/x.json'" in result.stderr
