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

import numpy as np
import pytest

from magicfuse_ros.printable import printable
from magicfuse_ros.ros.causes import MAX_CAUSES, Causes, cause, one_line


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("34835 bytes of image data are damaged", "# bytes of image data are damaged"),
        ("mask is 32x48; expected 64x48", "mask is #; expected #"),
        ("camera is -0.512 m above the ground", "camera is # m above the ground"),
        ("time 1700000000.125, but the latest is 1.5e-3.", "time #, but the latest is #."),
        (
            "encoding is 'bayer_rggb8'; supported: 8UC1",
            "encoding is 'bayer_rggb8'; supported: 8UC1",
        ),
        ("frame 'cam_2' of /cam3/image", "frame 'cam_2' of /cam3/image"),
        ("<Node object at 0x7f3a12bc>", "<Node object at #>"),
    ],
)
def test_a_cause_has_no_figures_but_names(text: str, kind: str) -> None:
    assert cause(text) == kind


def test_texts_of_messages_are_cut() -> None:
    for quote in ("'", '"', "["):
        text = one_line(f"encoding is {quote}{'x' * 10**6}{quote}; supported are mono8")
        assert text.endswith("; supported are mono8") and len(text) < 180
    text = one_line(f"frame '{'y' * 1000}' is not known\n to TF")
    assert text.endswith("…' is not known to TF") and len(text) < 180
    assert len(one_line("word " * 1000)) <= 300


def test_control_characters_of_messages_are_escaped() -> None:
    assert one_line("frame '\x1b[2Jcam\x07'") == r"frame '\x1b[2Jcam\x07'"
    assert printable("one\ntwo\tthree") == "one\ntwo\tthree"
    assert printable("stra\xdfe \udcff \x9b1m") == r"straße \udcff \x9b1m"


def test_one_kind_is_one_cause_and_told_once() -> None:
    causes = Causes()
    told = [causes.add(f"{length} bytes are damaged") for length in range(100)]
    assert told == [True] + [False] * 99
    assert causes.counts == {"# bytes are damaged": 100}
    assert causes.latest == "99 bytes are damaged"


def test_the_table_never_fills_up() -> None:
    causes = Causes()
    names = np.random.default_rng(0).permutation(1000)
    told = sum(causes.add(f"encoding is 'x{name}'") for name in names)
    assert told < 100
    assert causes.total == 1000
    assert len(causes.counts) == MAX_CAUSES + 1
    causes.add("image is 0x0")
    causes.add("image is 0x0")
    assert causes.counts["image is #"] == 2
    assert len(causes.counts) == MAX_CAUSES + 1
    assert causes.total == 1002
