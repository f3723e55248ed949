# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The files of a rosbag2, and what its metadata.yaml says about them."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path, PurePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import COMPRESSED_BAG_SUFFIX, bag_files_in
from magicfuse_ros.media.mcap_file import MAX_MESSAGES, Channel

METADATA = "metadata.yaml"
_MAX_BYTES = 1 << 22  # enough for 10,000 files; reading them takes half a minute


def files_of(path: Path) -> tuple[list[Path], Counter[Channel] | None]:
    """Return the files of a bag, and the message counts from its metadata.yaml if that exists.

    A recorder writes metadata.yaml at its end: a killed recorder leaves a folder without it.

    Raises:
        MediaError: if metadata.yaml is damaged or too large, or names a file that is missing.
    """
    if path.is_file():
        return [path], None
    metadata = path / METADATA
    if not metadata.is_file():
        return bag_files_in(path), None
    folder = shlex.quote(str(path))
    mend = f"`ros2 bag reindex {folder}` rebuilds it"
    if any(file.suffix.lower() == COMPRESSED_BAG_SUFFIX for file in bag_files_in(path)):
        mend = f"`zstd -d {folder}/*{COMPRESSED_BAG_SUFFIX}` unpacks its files, and then {mend}"
    try:
        information = _load(metadata)["rosbag2_bagfile_information"]
        # The suffixes give the storage type, because Humble's reindex leaves its name empty.
        names = dict.fromkeys(map(_text, information["relative_file_paths"]))
        files = [path / PurePath(name).name for name in names]
        announced: Counter[Channel] = Counter()
        for topic in information["topics_with_message_count"]:
            channel = topic["topic_metadata"]
            kind = Channel(_text(channel["name"]), _text(channel["type"]))
            announced[kind] += _count(topic["message_count"])
    except OSError as error:
        reason = error.strerror or str(error)
        raise MediaError(f"'{metadata}' cannot be read: {reason}") from error
    except (YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise MediaError(
            f"'{path}' cannot be read as a rosbag2: its {METADATA} is damaged; {mend}, or give its "
            ".mcap or .db3 file itself"
        ) from error
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        what = f"names {missing[0].name!r}, which is missing" if missing else "names no file"
        raise MediaError(f"'{path}' cannot be read as a rosbag2: its {METADATA} {what}; {mend}")
    return files, announced


def _load(metadata: Path) -> Any:
    """Read a YAML file as texts, lists and dicts.

    With other types, a small file could stand for a huge content or number.
    """
    with metadata.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise MediaError(
            f"'{metadata}' is too large; at most {_MAX_BYTES} bytes are read; give the bag's "
            ".mcap or .db3 file itself"
        )
    yaml = YAML(typ="base")
    yaml.allow_duplicate_keys = True  # the error about them would print values of any length
    return yaml.load(content.decode())


def _text(value: Any) -> str:
    """Check that a value is a text: as a text, a list of aliases could be of any length."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    count = int(_text(value))
    if not 0 <= count <= MAX_MESSAGES:
        raise ValueError
    return count
