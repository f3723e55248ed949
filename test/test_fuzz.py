# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Fuzzed camera messages through the node's own code: an image, or a reason."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import CompressedImage, Image

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import ENCODINGS, decode_message
from media_files import picture

FAULT = (
    "fuzzed messages: 2,000 through the node's code, 200 over DDS",
    "refused with a reason, or fused; every one is counted",
)
UINT32 = st.one_of(st.integers(0, 70), st.integers(0, 2**32 - 1))
NAMES = st.one_of(
    st.sampled_from([*ENCODINGS, "bayer_rggb8", "32FC1", "yuv422_yuy2", "jpeg", "png"]),
    st.text(st.characters(codec="utf-8"), max_size=12),
)
FUZZ = settings(
    max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
PIXELS = picture(24, 32)
FILES = [cv2.imencode(suffix, PIXELS)[1].tobytes() for suffix in (".jpg", ".png")]


def check(message: Image | CompressedImage) -> None:
    """Accept an RGB image, or the one error that the node counts as a refusal."""
    try:
        rgb = decode_message(message)
    except FrameError as error:
        assert str(error)
        return
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size > 0
    assert rgb.flags.c_contiguous
    if isinstance(message, Image):
        assert rgb.shape[:2] == (message.height, message.width)


@pytest.mark.fault(*FAULT)
@FUZZ
@given(
    encoding=NAMES,
    height=UINT32,
    width=UINT32,
    step=UINT32,
    big=st.integers(0, 255),
    length=st.integers(0, 5000),
    fits=st.booleans(),
)
def test_images(
    encoding: str, height: int, width: int, step: int, big: int, length: int, fits: bool
) -> None:
    if fits and height * step < 10**6:
        length = height * step
    message = Image(encoding=encoding, height=height, width=width, step=step, is_bigendian=big)
    message.data.frombytes(bytes(length))
    check(message)


@pytest.mark.fault(*FAULT)
@FUZZ
@given(
    format=NAMES,
    file=st.sampled_from(FILES),
    cut=st.integers(0, 5000),
    changes=st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), max_size=8),
)
def test_compressed_images(
    format: str, file: bytes, cut: int, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(file[: cut or None])
    for place, value in changes:
        content[place % len(content)] = value
    message = CompressedImage(format=format)
    message.data.frombytes(bytes(content))
    check(message)
