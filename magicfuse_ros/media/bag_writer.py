# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes a rosbag2 (MCAP) without ROS that Humble and all later distributions can read."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from magicfuse_ros.errors import MediaError

LABEL_INFO = "vision_msgs/msg/LabelInfo"
# Humble knows bag metadata up to version 5, but reads version 8, because it skips unknown fields.
# It cannot read version 9, in which the QoS profiles are no longer a string.
_METADATA_VERSION: Literal[8] = 8
_VISION_MSGS = {
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    LABEL_INFO: "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
}
_UNSPECIFIED = QosTime(0, 0)
_LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _UNSPECIFIED,
    _UNSPECIFIED,
    QosLiveliness.AUTOMATIC,
    _UNSPECIFIED,
    False,
)


@lru_cache(maxsize=1)  # takes a tenth of a second
def message_types() -> Typestore:
    """Return the message types that our bags may hold."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in _VISION_MSGS.items():
        store.register(get_types_from_msg(definition, name))
    return store


class BagWriter:
    """Writes a bag; a context manager. After an error the bag has no metadata.yaml.

    Attributes:
        types: the message types that can be written.
    """

    def __init__(self, path: Path, *, compress: bool = False) -> None:
        """Make the bag.

        Args:
            path: the folder to make.
            compress: compress chunks with zstd; it costs CPU time, so do not use it in real time.

        Raises:
            MediaError: if the folder exists or cannot be made.
        """
        self.types = message_types()
        self._path = path
        try:
            self._writer = Writer(
                path, version=_METADATA_VERSION, storage_plugin=StoragePlugin.MCAP
            )
            if compress:
                self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except (WriterError, OSError) as error:
            raise self._error(error) from error
        self._connections: dict[str, Connection] = {}

    def add_topic(self, topic: str, msgtype: str, *, latched: bool = False) -> None:
        """Announce a topic; if `latched`, `ros2 bag play` latches it again.

        Raises:
            MediaError: if the file cannot be written, or the type is not in `types`.
        """
        qos = [_LATCHED] if latched else []
        try:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=self.types, offered_qos_profiles=qos
            )
        except KeyError as error:
            raise MediaError(f"messages of the type {msgtype} cannot be recorded") from error
        except OSError as error:
            raise self._error(error) from error

    def write_cdr(self, topic: str, time_ns: int, cdr: bytes | memoryview) -> None:
        """Write a serialized message of a topic that was added, received at `time_ns`.

        Raises:
            MediaError: if the file cannot be written.
        """
        try:
            self._writer.write(self._connections[topic], time_ns, cdr)
        except OSError as error:
            raise self._error(error) from error

    def write(self, topic: str, time_ns: int, message: Any) -> None:
        """Write a message of a topic that was added; see `write_cdr`."""
        msgtype = self._connections[topic].msgtype
        self.write_cdr(topic, time_ns, self.types.serialize_cdr(message, msgtype))

    def close(self) -> None:
        """Finish the bag.

        Raises:
            MediaError: if the file cannot be written.
        """
        try:
            self._writer.close()
        except OSError as error:
            raise self._error(error) from error

    def __enter__(self) -> BagWriter:
        """Return the writer; leaving the block closes it."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close the bag, or abandon it after an error."""
        if kind is None:
            self.close()
        else:
            self._writer.abort()

    def _error(self, error: Exception) -> MediaError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return MediaError(f"cannot write bag '{self._path}': {reason}")
