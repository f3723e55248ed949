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

from magicfuse_ros.ros.sequence import Sequence


def numbers(*stamps: float) -> list[int]:
    sequence = Sequence()
    return [sequence.number(round(stamp * 1e9)) for stamp in stamps]


@pytest.mark.parametrize("images", [1, 2, 4, 20])
def test_each_round_of_a_loop_starts_a_new_sequence(images: int) -> None:
    rounds = [100 + tenth / 10 for tenth in range(images)] * 3
    assert numbers(*rounds) == [1 + number // images for number in range(3 * images)]


def test_a_loop_that_was_joined_in_the_middle() -> None:
    assert numbers(100.2, 100.3, *[100.0, 100.1, 100.2, 100.3] * 2) == [1] * 6 + [2] * 4


def test_late_and_repeated_images_do_not_start_a_new_sequence() -> None:
    assert numbers(100.0, 100.2, 100.1, 100.2, 100.3, 99.9, 100.4) == [1] * 7


def test_half_a_second_back_does() -> None:
    assert numbers(100.0, 101.0, 100.5, 100.6, 100.4, 200.0, 100.7) == [1, 1, 2, 2, 2, 2, 3]


def test_images_without_a_stamp_have_no_order() -> None:
    assert numbers(100.0, 0.0, -3.0, 0.0, 100.1) == [1] * 5
