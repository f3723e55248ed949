# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Detects files that are not what their suffix says: failed downloads, pointers, packed files."""

from __future__ import annotations

import re
from pathlib import Path

from magicfuse_ros.errors import MediaError

_KINDS = (
    (
        rb"version https://git-lfs\.github\.com/",
        "a Git LFS pointer, not the file itself; `git lfs pull` fetches it",
    ),
    (rb"(\.\./)*\.git/annex/objects/", "a git-annex pointer; `git annex get` fetches the file"),
    (
        rb"<(!doctype|html|head|body|\?xml)",
        "a web page (or XML); the download failed: download it again",
    ),
    (rb"#ROSBAG V", "a bag of ROS 1; `rosbags-convert` makes a rosbag2 of it"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh\d1AY|\xfd7zXZ", "an archive; unpack it"),
)


def refuse_foreign(path: Path) -> None:
    """Reject a file whose first bytes show that it holds no images.

    Raises:
        MediaError: if it is such a file; the message says what it is and what to do.
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        begin = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, what in _KINDS:
        if re.match(pattern, begin, re.IGNORECASE):
            raise MediaError(f"'{path}' is {what}")
