# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Compiled OpenVINO models, kept in the user's cache folder for the next start.

OpenVINO's own cache (CACHE_DIR) finds a model by a hash of the whole model and of the CPU's name.
It does not notice every damaged byte, CPUs with the same name may have different instructions, and
not every process found the joined network in it again. This module therefore exports and imports
the models itself. Each model has a folder with checksums, which is renamed into place when it is
complete: `<version>-<CPU>/<network>-<hash>/`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

from magicfuse_ros.backends.engine_cache import UNFINISHED, cache_folder, unfinished
from magicfuse_ros.errors import EngineError

_log = logging.getLogger(__name__)
_SUMS = "SHA256SUMS"
_LEFT_S = 3600  # an incomplete folder that is older was left by a killed process
_UNUSED_S = 90 * 24 * 3600  # a compiled network unused for longer is removed


class ModelCache:
    """Compiles models, or loads those that were compiled before; several threads may use it.

    If anything is wrong with the cache, the model is compiled and a warning says why.

    Attributes:
        folder: where the compiled models of this library and CPU are; None if it is not known.
        found: models that were loaded.
        stored: models that were compiled and kept.
        failure: why a model could not be kept, for the latest such model; empty if all were.
    """

    def __init__(self, core: Any, device: str, library: str, cpu: str) -> None:
        """Use the folder for a library and a CPU.

        Args:
            core: OpenVINO's core.
            device: the device to compile for, as OpenVINO names it.
            library: its release, for the folder's name.
            cpu: text with everything that compiled models depend on, except the model.
        """
        self._core, self._device = core, device
        self._lock = threading.Lock()
        self.failure = ""
        self.found = self.stored = 0
        self.folder: Path | None = None
        try:
            name = f"{library}-{hashlib.sha256(cpu.encode()).hexdigest()[:8]}"
            self.folder = cache_folder() / "openvino" / name
        except EngineError as error:
            self._warn(str(error))

    def compile(self, name: str, build: Callable[[], Any], config: dict[str, Any]) -> Any:
        """Return a compiled model.

        Args:
            name: name of its folder; different models have different names.
            build: returns the OpenVINO model; called only if it was not compiled before.
            config: OpenVINO's settings.

        Raises:
            RuntimeError: if the model cannot be compiled.
        """
        entry = None if self.folder is None else self.folder / name
        if entry is not None and self._has(entry):
            if compiled := self._load(entry, config):
                with self._lock:
                    self.found += 1
                return compiled
            shutil.rmtree(entry, ignore_errors=True)
        compiled = self._core.compile_model(build(), self._device, config)
        if entry is not None:
            self._store(compiled, entry)
        return compiled

    def _has(self, entry: Path) -> bool:
        try:
            return entry.exists()
        except OSError as error:  # this user may not search a folder above it
            self._warn(_reason(error))
            return False

    def _load(self, entry: Path, config: dict[str, Any]) -> Any:
        """Return the compiled model in a folder; None if it cannot be used."""
        try:
            blob = (entry / f"{entry.name}.blob").read_bytes()
            if (entry / _SUMS).read_bytes() == _sums(entry.name, blob):
                _note_use(entry)
                return self._core.import_model(blob, self._device, config)
            reason = "its file and its checksum differ"
        except (OSError, RuntimeError) as error:
            reason = _reason(error)
        _log.warning("compiled network '%s' cannot be used: %s; compiling it again", entry, reason)
        return None

    def _store(self, compiled: Any, entry: Path) -> None:
        partial = None
        try:
            stream = io.BytesIO()
            compiled.export_model(stream)
            blob = stream.getvalue()
            entry.parent.mkdir(parents=True, exist_ok=True)
            _sweep(entry.parent)
            partial = unfinished(entry)
            partial.mkdir()
            (partial / f"{entry.name}.blob").write_bytes(blob)
            (partial / _SUMS).write_bytes(_sums(entry.name, blob))
            _move(partial, entry)
            with self._lock:
                self.stored += 1
        except (OSError, RuntimeError) as error:
            self._warn(_reason(error))
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)

    def _warn(self, reason: str) -> None:
        """Say once that starts will be slow."""
        folder = self.folder or "the cache folder"
        with self._lock:
            first = not self.failure
            self.failure = f"compiled networks cannot be kept in '{folder}': {reason}"
        if first:
            _log.warning("%s; every start compiles them again", self.failure)


def _sums(name: str, blob: bytes) -> bytes:
    """Return a compiled model's SHA-256 and file name, as sha256sum prints them."""
    return f"{hashlib.sha256(blob).hexdigest()}  {name}.blob\n".encode()


def _move(partial: Path, entry: Path) -> None:
    """Rename a complete folder, unless another process has stored the same model meanwhile."""
    try:
        partial.rename(entry)
    except OSError:
        if not entry.exists():
            raise


def _note_use(entry: Path) -> None:
    """Set a folder's time to now, if this user may; a clock that is behind changes nothing."""
    with suppress(OSError):
        if time() > entry.stat().st_mtime:
            os.utime(entry)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left, and models of any version unused for a long time.

    A folder that this module did not make stays: the user may name any folder for the cache.
    """
    for entry in folder.parent.glob("*/*"):
        try:
            unused_s = time() - entry.stat().st_mtime
            left = UNFINISHED.fullmatch(entry.name) and unused_s > _LEFT_S
            if left or (unused_s > _UNUSED_S and (entry / _SUMS).is_file()):
                shutil.rmtree(entry, ignore_errors=True)
        except FileNotFoundError:  # renamed just now
            continue


def _reason(error: OSError | RuntimeError) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
