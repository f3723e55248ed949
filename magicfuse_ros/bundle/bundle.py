# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Reads, verifies and writes bundles."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import ValidationError

from magicfuse_ros.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    NETWORKS,
    Manifest,
    NetworkName,
    NetworkSpec,
    QuantizedGraph,
)
from magicfuse_ros.bundle.schedule import Step, ddim_steps
from magicfuse_ros.errors import BundleError
from magicfuse_ros.onnx_file import DamagedOnnxError, external_tensor
from magicfuse_ros.untrusted_json import parse, shortened

_MAX_MANIFEST = 2**22  # bytes; the package's own bundle has 40 KB
_MAX_ONNX = 2**31 - 1  # bytes; protobuf's own limit


class Bundle:
    """A verified bundle on disk."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @classmethod
    def load(cls, root: Path | str) -> Bundle:
        """Read and verify a bundle folder.

        Raises:
            BundleError: if the folder or a file is missing, `bundle.json` is not valid, or a
                file's SHA-256 differs from the recorded one. The message names the file.
        """
        root = Path(os.path.expanduser(root))
        path = root / MANIFEST
        if not root.is_dir():
            raise BundleError(
                f"bundle '{root}' is not a folder; expected one that holds {MANIFEST}"
            )
        try:
            _check_file(path, _MAX_MANIFEST)
            raw = parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BundleError(
                f"bundle '{root}': cannot read {MANIFEST}: {error.strerror}"
            ) from error
        except ValueError as error:
            raise BundleError(f"'{path}' is not JSON: {shortened(str(error))}") from error
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise BundleError(
                f"'{path}': format_version is {shortened(repr(version))}; this release reads "
                f"{FORMAT_VERSION}"
            )
        try:
            manifest = Manifest.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "content"
            reason = shortened(f"{where}: {first['msg']}")
            raise BundleError(f"'{path}': {reason}") from error
        bundle = cls(root, manifest)
        for name in NETWORKS:
            bundle._verify(name)
        return bundle

    def _verify(self, name: NetworkName) -> None:
        spec = self.manifest.networks[name]
        files: list[NetworkSpec | QuantizedGraph] = [spec, *filter(None, [spec.int8])]
        for recorded in files:
            path = self.root / recorded.file
            try:
                _check_file(path, _MAX_ONNX)
                actual = sha256(path)
            except OSError as error:
                raise BundleError(
                    f"bundle '{self.root}': cannot read {recorded.file} ({name}): {error.strerror}"
                ) from error
            if actual != recorded.sha256:
                raise BundleError(
                    f"bundle '{self.root}': {recorded.file} ({name}) was changed or damaged: "
                    f"SHA-256 is {actual[:12]}..., {MANIFEST} records {recorded.sha256[:12]}..."
                )
            _check_weights(path, f"bundle '{self.root}': {recorded.file} ({name})")

    def path(self, name: NetworkName) -> Path:
        """Return the ONNX file of a network."""
        return self.root / self.manifest.networks[name].file

    @property
    def has_int8(self) -> bool:
        """Whether every network has an int8 graph beside its float32 one."""
        return all(spec.int8 is not None for spec in self.manifest.networks.values())

    def quantized(self) -> Bundle:
        """Return this bundle with int8 graphs instead of the float32 ones.

        Raises:
            BundleError: if it has none. The message says how to get them.
        """
        networks: dict[NetworkName, NetworkSpec] = {}
        for name, spec in self.manifest.networks.items():
            if spec.int8 is None:
                raise BundleError(
                    f"bundle '{self.root}' has no int8 graphs; use another precision, or make "
                    f"them: magicfuse-train quantize --bundle '{self.root}' --data DATA"
                )
            files = {"file": spec.int8.file, "sha256": spec.int8.sha256, "int8": None}
            networks[name] = spec.model_copy(update=files)
        update = {"networks": networks, "precision": "int8", "quantization": None}
        return Bundle(self.root, self.manifest.model_copy(update=update))

    def steps(self, count: int) -> list[Step]:
        """Return the DDIM steps for K = `count`.

        Raises:
            BundleError: if the bundle has no grid for that K.
        """
        grids = self.manifest.step_grids
        if count not in grids:
            raise BundleError(
                f"steps is {count}; bundle '{self.manifest.name}' is trained for {sorted(grids)}"
            )
        return ddim_steps(self.manifest.schedule, grids[count])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the networks' hashes: equal fingerprints give equal outputs."""
        specs = [self.manifest.networks[n] for n in NETWORKS]
        joined = "".join(s.sha256 for s in specs) + "".join(s.int8.sha256 for s in specs if s.int8)
        return hashlib.sha256(joined.encode()).hexdigest()


def _check_file(path: Path, limit: int) -> None:
    """Reject a path that would take forever or all memory to read, such as a pipe or a device.

    Raises:
        OSError: if the path cannot be accessed.
        BundleError: if it is not a file, or is longer than `limit` bytes.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise BundleError(f"'{path}' is not a file; expected one of at most {limit} bytes")
    if size > limit:
        raise BundleError(f"'{path}' has {size} bytes; expected at most {limit}")


def _check_weights(path: Path, label: str) -> None:
    """Reject a network with weights that no hash covers.

    Raises:
        BundleError: if it has such weights, naming the tensor; or if the file is not an ONNX
            model, with the reason.
    """
    try:
        tensor = external_tensor(path)
    except DamagedOnnxError as error:
        raise BundleError(f"{label} is not an ONNX model: {error}") from error
    if tensor is not None:
        raise BundleError(
            f"{label} keeps the tensor '{shortened(tensor)}' in another file, which no SHA-256 "
            "covers; save it with all weights inside"
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits.

    Raises:
        OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write `bundle.json` atomically into an existing folder."""
    partial = root / f".{MANIFEST}.{os.getpid()}"
    partial.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    os.replace(partial, root / MANIFEST)
