# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Keeps built engines per user and finds them again only if nothing they depend on has changed.

An engine consists of two files, `<network>-<fingerprint>.engine` and its manifest, `.json`. The
manifest is written last, so a killed build leaves nothing that looks like an engine. This module
does not depend on any inference library.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from magicfuse_ros import __version__
from magicfuse_ros.bundle import NetworkSpec, TensorSpec
from magicfuse_ros.errors import EngineError

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
AskedPrecision = Literal["auto", "fp32", "fp16", "int8"]  # auto: the backend chooses
ASKED_PRECISIONS: tuple[AskedPrecision, ...] = ("auto", *PRECISIONS)
PASSES = 3  # increase it with every change to onnx_passes.py or to the settings of a build


class EngineKey(BaseModel):
    """Everything an engine depends on. Engines with equal keys are interchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="the ONNX file's name")
    onnx_sha256: str
    backend: str
    version: str = Field(description="version of the backend's library")
    device: str = Field(
        description="compute capability, such as sm_89, with product and module if an engine is "
        "bound to them"
    )
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    magicfuse_ros: str = __version__
    passes: int = Field(
        1, description="version of the passes that prepare the ONNX; the first was not recorded"
    )

    @classmethod
    def of(
        cls, spec: NetworkSpec, backend: str, version: str, device: str, precision: Precision
    ) -> EngineKey:
        """Return the key of a bundle's network on a device."""
        return cls(
            network=spec.file,
            onnx_sha256=spec.sha256,
            backend=backend,
            version=version,
            device=device,
            precision=precision,
            inputs=spec.inputs,
            outputs=spec.outputs,
            passes=PASSES,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(EngineKey.model_dump_json(self).encode()).hexdigest()


class EngineManifest(BaseModel):
    """The JSON beside an engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: EngineKey
    engine_sha256: str
    engine_bytes: int
    created: str = Field(description="UTC, ISO 8601")


@dataclass(frozen=True)
class Hit:
    """An engine that matches its manifest and was built for the requested key."""

    engine: bytes


@dataclass(frozen=True)
class Miss:
    """No usable engine.

    Attributes:
        reason: text for the user.
        state: damaged if the engine exists but does not match its manifest; stale if there is one
            for this device and precision, but from another ONNX file or library.
    """

    reason: str
    state: Literal["absent", "stale", "damaged"]


def cache_folder() -> Path:
    """Return the user's cache folder.

    MAGICFUSE_CACHE sets it; otherwise it is `magicfuse` in XDG_CACHE_HOME or in ~/.cache.

    Raises:
        EngineError: if none of the three is known.
    """
    if folder := os.environ.get("MAGICFUSE_CACHE"):
        return Path(os.path.expanduser(folder))
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(os.path.expanduser(folder)) / "magicfuse"
    try:
        return Path.home() / ".cache" / "magicfuse"
    except RuntimeError as error:
        raise EngineError(
            "the home folder is not known; set MAGICFUSE_CACHE to a folder for built engines"
        ) from error


class EngineCache:
    """The engines in one folder; storing the first engine creates the folder."""

    def __init__(self, root: Path | None = None) -> None:
        """Use a folder; None means the user's cache folder.

        Raises:
            EngineError: if `root` is None and the user's cache folder is unknown.
        """
        self.root = (root or cache_folder()) / "engines"

    def path(self, key: EngineKey) -> Path:
        """Return the path of a key's engine, whether or not it exists."""
        stem = key.network.removesuffix(".onnx")
        return self.root / key.backend / f"{stem}-{key.fingerprint[:16]}.engine"

    def lookup(self, key: EngineKey) -> Hit | Miss:
        """Return the engine for a key, verified byte for byte, or the reason there is none."""
        path = self.path(key)
        try:
            manifest = _read(path.with_suffix(".json"))
        except FileNotFoundError:
            return self._nearest(key)
        except (OSError, ValueError) as error:
            return Miss(f"the manifest of '{path}' cannot be read: {_reason(error)}", "damaged")
        try:
            engine = path.read_bytes()
        except OSError as error:
            return Miss(f"'{path}' cannot be read: {_reason(error)}", "damaged")
        if manifest.key != key:
            return Miss(
                f"'{path}' is of another build: {_difference(manifest.key, key)}", "damaged"
            )
        if len(engine) != manifest.engine_bytes:
            return Miss(
                f"'{path}' is damaged: it has {len(engine)} bytes, its manifest records "
                f"{manifest.engine_bytes}",
                "damaged",
            )
        if (actual := hashlib.sha256(engine).hexdigest()) != manifest.engine_sha256:
            return Miss(
                f"'{path}' was changed or damaged: SHA-256 is {actual[:12]}..., its manifest "
                f"records {manifest.engine_sha256[:12]}...",
                "damaged",
            )
        return Hit(engine)

    def store(self, key: EngineKey, engine: bytes) -> Path:
        """Write an engine and its manifest; return the engine's path. Call it inside `locked`.

        Raises:
            EngineError: if a file cannot be written, for example on a full disk. Nothing is left
                behind then.
        """
        path = self.path(key)
        manifest = EngineManifest(
            key=key,
            engine_sha256=hashlib.sha256(engine).hexdigest(),
            engine_bytes=len(engine),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for partial in path.parent.glob(f".{path.stem}.*"):  # left by a killed build
                partial.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
            write_whole(path, engine)
            content = manifest.model_dump_json(indent=2) + "\n"
            write_whole(path.with_suffix(".json"), content.encode())
        except OSError as error:
            raise _unwritable(f"engine '{path}'", error) from error
        return path

    @contextmanager
    def locked(self, key: EngineKey, on_wait: Callable[[], None]) -> Iterator[None]:
        """Keep other processes from building the same engine during the block.

        The lock is released when the process ends, however it ends.

        Args:
            key: the key of the engine.
            on_wait: called once if another process holds the lock, before waiting for it.

        Raises:
            EngineError: if the folder cannot be written.
        """
        path = self.path(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            raise _unwritable(f"'{path}'", error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough if a child has it open

    def has_any(self, backend: str, onnx_sha256: str) -> bool:
        """Return whether a network has an engine, whatever GPU and library it is for."""
        return any(key.onnx_sha256 == onnx_sha256 for key in self._keys(backend))

    def _keys(self, backend: str) -> list[EngineKey]:
        keys = []
        for path in sorted((self.root / backend).glob("*.json")):
            try:
                keys.append(_read(path).key)
            except (OSError, ValueError):
                continue
        return keys

    def _nearest(self, key: EngineKey) -> Miss:
        """Say how the most similar existing engine differs."""
        alike = [other for other in self._keys(key.backend) if other.network == key.network]
        reason = f"no engine of {key.network} was built for {key.device} in {key.precision}"
        if not alike:
            return Miss(reason, "absent")
        nearest = min(alike, key=lambda other: len(_differences(other, key)))
        stale = {"device", "precision"}.isdisjoint(_differences(nearest, key))
        reason = f"{reason}; the nearest differs: {_difference(nearest, key)}"
        return Miss(reason, "stale" if stale else "absent")


def _read(path: Path) -> EngineManifest:
    return EngineManifest.model_validate_json(path.read_bytes())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, even if the machine loses power.

    Raises:
        OSError: if that fails; a file that existed before is then unchanged.
    """
    partial = unfinished(path)
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


UNFINISHED = re.compile(r"\..*\.[0-9a-f]{32}")  # names that `unfinished` makes


def unfinished(path: Path) -> Path:
    """Return a new name beside `path`, for something that is renamed to `path` once complete.

    The user's umask decides who can read what is made under this name. It does not for files of
    `tempfile`, and one user may fill a cache that another reads.
    """
    return path.with_name(f".{path.stem}.{uuid4().hex}")


def write_checked(path: Path, content: bytes) -> None:
    """Write a file that `read_checked` can tell from a damaged one. Errors: see `write_whole`."""
    write_whole(path, hashlib.sha256(content).digest() + content)


def read_checked(path: Path) -> bytes:
    """Return what `write_checked` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read, or a byte of it was changed or is missing.
    """
    data = path.read_bytes()
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[size:]).digest() != data[:size]:
        raise OSError("it was changed or damaged")
    return data[size:]


def _differences(old: EngineKey, new: EngineKey) -> list[str]:
    return [name for name in EngineKey.model_fields if getattr(old, name) != getattr(new, name)]


def _difference(old: EngineKey, new: EngineKey) -> str:
    parts = []
    for name in _differences(old, new):
        if name in ("inputs", "outputs"):
            parts.append(f"{name} have another shape")
        else:
            parts.append(f"{name} {_short(old, name)}, now {_short(new, name)}")
    return "; ".join(parts)


def _short(key: EngineKey, name: str) -> str:
    value = str(getattr(key, name))
    return f"{value[:12]}..." if name == "onnx_sha256" else value


def _unwritable(what: str, error: OSError) -> EngineError:
    remedy = "MAGICFUSE_CACHE can name a folder on another disk"
    return EngineError(f"cannot write {what}: {_reason(error)}; {remedy}")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
    return str(getattr(error, "strerror", None) or error)
