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

import pytest

from magicfuse_ros.percentiles import percentiles
from magicfuse_ros.ros.statistics import WINDOW_S, Statistics


def test_rates_and_ages_are_of_the_latest_seconds() -> None:
    statistics = Statistics(now=0.0)
    for tenth in range(300):  # 10 images a second; the age grows by 1 ms per image
        statistics.received(tenth / 10)
        statistics.fused(
            tenth / 10, delay_s=tenth / 2000, age_s=tenth / 1000, steps=2, stages_ms={"total": 50.0}
        )
    snapshot = statistics.snapshot(30.0)
    assert snapshot.fused == snapshot.received == 300
    assert snapshot.fps == pytest.approx(10.0)
    assert snapshot.age_ms["p50"] == pytest.approx(249.5)
    assert snapshot.age_ms["p95"] == pytest.approx(294.05)
    assert snapshot.stages_ms == {"total": 50.0}
    assert snapshot.last_received_s == pytest.approx(0.1)
    later = statistics.snapshot(30.0 + WINDOW_S)
    assert (later.fps, later.age_ms, later.fused) == (0.0, {}, 300)


def test_the_first_seconds_are_not_diluted() -> None:
    statistics = Statistics(now=100.0)
    for tenth in range(20):
        statistics.fused(100.0 + tenth / 10, 0.01, None, 1, {})
    assert statistics.snapshot(102.0).fps == pytest.approx(10.0)


def test_images_without_a_stamp_have_no_age() -> None:
    statistics = Statistics(now=0.0)
    statistics.fused(0.5, 0.01, None, 1, {})
    assert statistics.snapshot(1.0).age_ms == {}


def test_stamps_may_be_ahead() -> None:
    statistics = Statistics(now=0.0)
    for age_s in (-2.0, -3.0, 0.1):
        statistics.fused(0.5, 0.01, age_s, 1, {})
    snapshot = statistics.snapshot(1.0)
    assert snapshot.ahead_s == 2.0
    assert snapshot.age_ms["p50"] == pytest.approx(100)


def test_most_stamps_decide_whether_they_are_of_another_clock() -> None:
    for ages_s, other in (([4000.0, -4000.0, 0.1], True), ([4000.0, 0.1, 0.1], False), ([], False)):
        statistics = Statistics(now=0.0)
        for age_s in [*ages_s, None]:
            statistics.fused(0.5, 0.01, age_s, 1, {})
        snapshot = statistics.snapshot(1.0)
        assert snapshot.other_clock == other
        assert snapshot.age_ms == {} or snapshot.age_ms["p99"] == pytest.approx(100)


def test_images_that_never_arrived_are_not_among_the_received() -> None:
    statistics = Statistics(now=0.0)
    for count in (0, 3, 0, 2):
        statistics.lost(count)
        statistics.received(0.1)
    snapshot = statistics.snapshot(1.0)
    assert (snapshot.lost, snapshot.received) == (5, 4)


def test_a_slow_camera_whose_images_give_nothing_is_no_silent_one() -> None:
    statistics = Statistics(now=0.0)
    for number in range(5):
        statistics.received(2.5 * number)
    assert statistics.snapshot(10.0).unanswered_s == 7.5, "from the second image on"
    statistics.received(60.0)  # it was away
    assert statistics.snapshot(61.0).unanswered_s == 1.0


def test_refusals_are_counted_by_kind() -> None:
    statistics = Statistics(now=0.0)
    told = [statistics.refused(f"data is {length} bytes long") for length in range(100)]
    assert told == [True] + [False] * 99
    snapshot = statistics.snapshot(1.0)
    assert snapshot.refused == {"data is # bytes long": 100}
    assert snapshot.last_refusal == "data is 99 bytes long"


def test_percentiles() -> None:
    assert percentiles([]) == {}
    assert percentiles([4.0]) == {"p50": 4.0, "p95": 4.0, "p99": 4.0}
