# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes files as a whole: a kill at any moment leaves either the old or the new one complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from magicfuse_training.errors import TrainingError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a file beside `path` to write; afterwards it takes the place of `path`.

    Raises:
        TrainingError: if it cannot be written, as on a full disk; the old file is kept.
    """
    partial = path.with_suffix(".partial")
    try:
        yield partial
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        reason = _why_not_written(partial, error)
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise TrainingError(f"cannot write '{path}': {reason}") from error


def _why_not_written(path: Path, error: OSError | RuntimeError) -> str:
    """Return the system's reason; torch's writer replaces it with a position in the file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    try:
        with path.open("ab") as file:
            file.write(bytes(1 << 20))
    except OSError as cause:
        return cause.strerror or str(cause)
    return str(error).partition("\n")[0]


def write_atomically(text: str, path: Path) -> None:
    """Write a text file; see `replaced`."""
    with replaced(path) as partial:
        # Names of files may have bytes that are no UTF-8.
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
