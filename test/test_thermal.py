# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reading the decoded image of the thermal stream, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from magicfuse_ros.bundle import ThermalUncertainty
from magicfuse_ros.outputs import Output
from magicfuse_ros.thermal import ThermalReader, standard_deviations

BOTH: tuple[Output, ...] = ("thermal_estimate", "thermal_uncertainty")


@pytest.mark.parametrize(
    ("code", "deviation"),
    [
        (0, 3),  # b = 0.01: 255 x 1.25331 x 0.01 = 3.196
        (51, 8),  # a fifth of the way: b = 0.01 x 100^0.2 = 0.025119: 8.03
        (102, 20),  # 0.063096: 20.17
        (153, 51),  # 0.158489: 50.65
        (204, 127),  # 0.398107: 127.23
        (242, 253),  # 0.790727: 252.71
        (243, 255),  # 257.32 exceeds the range of an image
        (255, 255),  # 1: 319.60
    ],
)
def test_the_standard_deviation_of_a_code(code: int, deviation: int) -> None:
    table = standard_deviations(ThermalUncertainty(lowest=0.01, highest=1.0))
    assert table.dtype == np.uint8 and table.shape == (256,)
    assert table[code] == deviation


def test_another_range_gives_another_table() -> None:
    table = standard_deviations(ThermalUncertainty(lowest=0.02, highest=0.32))
    # b = 0.02, 0.02 x 16^0.4 = 0.060629 and 0.32: 6.39, 19.38 and 102.27
    assert [table[code] for code in (0, 102, 255)] == [6, 19, 102]
    assert (np.diff(table.astype(int)) >= 0).all()


@pytest.fixture
def image() -> npt.NDArray[np.uint8]:
    """Red, green and blue all differ; the blue values are codes from the table above."""
    rows = [[[10, 200, 0], [250, 0, 51]], [[128, 7, 204], [0, 255, 255]]]
    return np.array(rows, np.uint8)


def test_with_a_code_red_is_the_estimate_and_blue_says_how_sure_it_is(
    image: npt.NDArray[np.uint8],
) -> None:
    read = ThermalReader(ThermalUncertainty(lowest=0.01, highest=1.0))
    found = read(image, BOTH)
    np.testing.assert_array_equal(found["thermal_estimate"], [[10, 250], [128, 0]])
    np.testing.assert_array_equal(found["thermal_uncertainty"], [[3, 8], [127, 255]])
    for array in found.values():
        assert array.dtype == np.uint8 and array.flags.c_contiguous
        assert not np.shares_memory(array, image)
    for name in BOTH:
        assert list(read(image, [name, "mask"])) == [name]


def test_without_a_code_the_luma_is_the_estimate(image: npt.NDArray[np.uint8]) -> None:
    found = ThermalReader(None)(image, ["thermal_estimate"])
    luma = image @ [0.299, 0.587, 0.114]
    np.testing.assert_array_equal(found["thermal_estimate"], np.rint(luma))
