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

from collections import Counter
from pathlib import Path, PurePath

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from magicfuse_ros.errors import MediaError
from magicfuse_ros.media import bag_files_in
from magicfuse_ros.media.mcap_file import Channel

METADATA = "metadata.yaml"


def files_of(path: Path) -> tuple[list[Path], Counter[Channel] | None]:
    """Return the files of a bag, and the message counts from its metadata.yaml if that exists.

    A recorder writes metadata.yaml at its end: a killed recorder leaves a folder without it.

    Raises:
        MediaError: if metadata.yaml is damaged, or names a file that is missing.
    """
    if path.is_file():
        return [path], None
    metadata = path / METADATA
    if not metadata.is_file():
        return bag_files_in(path), None
    mend = f"`ros2 bag reindex {path}` rebuilds it"
    try:
        found = YAML(typ="safe").load(metadata.read_text(encoding="utf-8"))
        information = found["rosbag2_bagfile_information"]
        # The suffixes give the storage type, because Humble's reindex leaves its name empty.
        files = [path / PurePath(str(name)).name for name in information["relative_file_paths"]]
        announced: Counter[Channel] = Counter()
        for topic in information["topics_with_message_count"]:
            channel = topic["topic_metadata"]
            announced[Channel(channel["name"], channel["type"])] += int(topic["message_count"])
    except OSError as error:
        reason = error.strerror or str(error)
        raise MediaError(f"'{metadata}' cannot be read: {reason}") from error
    except (YAMLError, KeyError, TypeError, ValueError) as error:
        raise MediaError(
            f"'{path}' cannot be read as a rosbag2: its {METADATA} is damaged; {mend}, or give its "
            ".mcap or .db3 file itself"
        ) from error
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        what = f"names '{missing[0].name}', which is missing" if missing else "names no file"
        raise MediaError(f"'{path}' cannot be read as a rosbag2: its {METADATA} {what}; {mend}")
    return files, announced
