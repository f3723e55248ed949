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

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from magicfuse_ros.errors import FrameError
from magicfuse_ros.image_codec import BitDepth, decode_message
from magicfuse_ros.ros.images import ImageMessage, to_message


def picture(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)


def test_a_message_that_is_filled_again_has_all_of_the_new_image() -> None:
    messages = ImageMessage()
    for seed, size in enumerate([(4, 6), (4, 6), (9, 2), (1, 1), (4, 6)]):
        rgb = picture(*size, seed)
        header = Header(frame_id=f"camera{seed}")
        message = messages.fill(rgb, header)
        assert (message.encoding, message.step) == ("bgr8", 3 * size[1])
        assert message.header == header
        assert np.array_equal(decode_message(message), rgb)
        mask = messages.fill(rgb[:, ::2, 0], header)  # not contiguous
        assert (mask.encoding, mask.height) == ("mono8", size[0])
        assert mask.step == mask.width == len(mask.data) // mask.height
        assert np.array_equal(decode_message(mask)[..., 0], rgb[:, ::2, 0])


def test_images_of_one_size_share_memory() -> None:
    messages = ImageMessage()
    first = messages.fill(picture(4, 6), Header()).data.buffer_info()
    assert messages.fill(picture(4, 6, seed=1), Header()).data.buffer_info() == first


def test_a_new_message_is_nobody_elses() -> None:
    rgb = picture(4, 6)
    first, second = to_message(rgb, Header()), to_message(rgb, Header())
    second.data[0] ^= 255
    assert np.array_equal(decode_message(first), rgb)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (4, 4, 4), (4,)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError, match="expected uint8"):
        ImageMessage().fill(np.zeros(shape, np.uint8), Header())


def test_a_camera_keeps_its_scale_of_16_bits() -> None:
    depth = BitDepth()
    for highest, brightest in ((4000, 250), (400, 25)):
        message = Image(height=4, width=4, step=8, encoding="mono16")
        message.data.frombytes(np.full((4, 4), highest, "<u2").tobytes())
        assert decode_message(message, depth).max() == brightest
