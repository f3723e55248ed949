"""A bundle: the networks of a trained model as ONNX files, and a `bundle.json` that describes them.

A bundle that fails verification is rejected with the reason; nothing is guessed. A bundle may come
from anywhere: every number has a limit, and a network's weights must be in the file whose hash is
recorded.

A network may have a second file, `int8`, with the same inputs and outputs and with its quantised
layers between QuantizeLinear and DequantizeLinear. Weights are int8, symmetric, with one scale per
output channel; activations are uint8 with one scale and zero point per tensor. Either every network
has such a file or none has; `quantization` says how they were made and what accuracy they cost.

All random values of a frame are standard normal. They are drawn once from numpy's
`default_rng(seed)`, in this order: z_T, the shared start of the three streams; z_seg at the first
step, if `z_seg_start` is "normal"; the encoder's input `noise`, if its graph has one. So a video
does not flicker.

The decoder's image of the thermal stream holds the thermal estimate: in its luma or, if the bundle
has `thermal_uncertainty`, in its red channel, with the certainty of the estimate in the blue one.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from magicfuse_ros.errors import BundleError
from magicfuse_ros.onnx_file import DamagedOnnxError, external_tensor
from magicfuse_ros.schedule import Schedule, Step, ddim_steps
from magicfuse_ros.untrusted_json import parse, shortened

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
NetworkName = Literal["encoder", "ikr", "ckg", "mkf", "segmentation", "decoder"]
NETWORKS: tuple[NetworkName, ...] = ("encoder", "ikr", "ckg", "mkf", "segmentation", "decoder")
UNLABELED = 255
ZSegStart = Literal["zeros", "normal"]

_MAX_MANIFEST = 2**22  # bytes; the package's own bundle has 40 KB
_MAX_ONNX = 2**31 - 1  # bytes; protobuf's own limit
_MAX_SIDE = 2**13  # rows or columns of the networks' image
_MAX_ELEMENTS = 2**28  # in a tensor: 1 GB as float32
_ONNX = r"^[A-Za-z0-9_.-]+\.onnx$"
_SHA256 = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorSpec(_Strict):
    """Name, dtype and static shape of a graph's input or output."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[Annotated[int, Field(gt=0)], ...] = Field(max_length=8)

    @model_validator(mode="after")
    def _bounded(self) -> TensorSpec:
        if math.prod(self.shape) > _MAX_ELEMENTS:
            raise ValueError(
                f"tensor '{self.name}' has the shape {list(self.shape)}; expected at most "
                f"{_MAX_ELEMENTS} elements"
            )
        return self


class QuantizedGraph(_Strict):
    """The int8 form of a network."""

    file: str = Field(pattern=_ONNX)
    sha256: str = Field(pattern=_SHA256)
    layers: int = Field(ge=0, description="convolutions and matrix products in int8")
    float32_layers: tuple[str, ...] = Field(
        description="those that stayed float32, as int8 would cost too much"
    )


class NetworkSpec(_Strict):
    """One network of the bundle."""

    file: str = Field(pattern=_ONNX)
    sha256: str = Field(pattern=_SHA256)
    inputs: tuple[TensorSpec, ...] = Field(max_length=32)
    outputs: tuple[TensorSpec, ...] = Field(max_length=32)
    parameters: int = Field(ge=0, description="number of trained weights")
    gflop: float = Field(ge=0, description="cost of one call, 2 x multiply-adds, 1e9")
    int8: QuantizedGraph | None = None


_Byte = Annotated[int, Field(ge=0, le=255)]


class SemanticClass(_Strict):
    """One class of the segmentation head; its id is the pixel value in the mask."""

    id: int = Field(ge=0, lt=UNLABELED)
    name: str = Field(min_length=1, max_length=100)
    color: tuple[_Byte, _Byte, _Byte] = Field(description="RGB, for overlays")
    thermal: bool = Field(description="warm: MagImg takes it from the thermal estimate (Eq. 11)")
    drivable: bool

    @field_validator("name")
    @classmethod
    def _in_one_line(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError(f"class name is {name!r}; expected printable text in one line")
        return name


class Provenance(_Strict):
    """Where the weights come from, and their measured scores."""

    data: list[str]
    weights_license: str
    commit: str
    created: str
    training_minutes: dict[str, float] = {}
    recipe: str | None = Field(None, description="name and SHA-256 of the file it was made by")
    scores: dict[str, Any] = Field({}, description="what the score command printed")


class Quantization(_Strict):
    """How the int8 graphs were made, and what they cost."""

    tool: str = Field(description="name and version")
    calibration: list[str] = Field(description="the frames that gave the ranges")
    losses: dict[str, Any] = Field(description="of int8 against float32, by data and condition")


class ThermalUncertainty(_Strict):
    """The uncertainty of the thermal estimate: the scale b of its Laplace distributed error.

    The blue channel of the decoder's image of the thermal stream holds a code, 0 to 255, for

        b = lowest * (highest / lowest) ** (code / 255)

    as a fraction of the estimate's full range 0 to 1. The red channel holds the estimate.
    """

    lowest: float = Field(gt=0, description="b of code 0")
    highest: float = Field(gt=0, le=1, description="b of code 255")

    @model_validator(mode="after")
    def _rising(self) -> ThermalUncertainty:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest is {self.lowest}; expected less than highest {self.highest}")
        return self


class Manifest(_Strict):
    """The content of `bundle.json`."""

    format_version: Literal[1]
    name: str
    preset: str
    height: int = Field(gt=0, le=_MAX_SIDE, description="rows of the network's image")
    width: int = Field(gt=0, le=_MAX_SIDE)
    latent_channels: int = Field(gt=0, le=1024)
    latent_scale: int = Field(gt=0, le=128, description="image size / latent size")
    schedule: Schedule
    step_grids: dict[Annotated[int, Field(gt=0, le=1000)], list[int]] = Field(
        max_length=100, description="trained time steps by K"
    )
    default_steps: int
    classes: list[SemanticClass] = Field(min_length=1)
    tau: float = Field(ge=0, le=1)
    seed: int = Field(ge=0, lt=2**64, description="of all that is random in a frame")
    z_seg_start: ZSegStart = Field(
        "zeros", description="z_seg at the first step: zeros or standard normal"
    )
    precision: Literal["float32", "float16", "int8"]
    thermal_uncertainty: ThermalUncertainty | None = Field(
        None, description="code of the thermal image's blue channel; None: its luma is the estimate"
    )
    networks: dict[NetworkName, NetworkSpec]
    quantization: Quantization | None = None
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if missing := [n for n in NETWORKS if n not in self.networks]:
            raise ValueError(f"networks lack {', '.join(missing)}")
        quantized = [n for n in NETWORKS if self.networks[n].int8]
        if quantized and len(quantized) < len(NETWORKS):
            raise ValueError(f"only {', '.join(quantized)} of the networks have int8 graphs")
        if self.default_steps not in self.step_grids:
            raise ValueError(
                f"default_steps is {self.default_steps}; trained are {sorted(self.step_grids)}"
            )
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids must be 0, 1, 2, ... in order")
        for size in (self.height, self.width):
            if size % self.latent_scale:
                raise ValueError(f"image size {size} is no multiple of {self.latent_scale}")
        rows, columns = self.height // self.latent_scale, self.width // self.latent_scale
        planes = max(self.latent_channels, len(self.classes))
        if planes * rows * columns > _MAX_ELEMENTS:
            raise ValueError(
                f"a latent is {planes} x {rows} x {columns}; expected at most {_MAX_ELEMENTS} "
                "elements"
            )
        for steps, timesteps in self.step_grids.items():
            if len(timesteps) != steps:
                raise ValueError(f"step grid {steps} has {len(timesteps)} time steps")
            ddim_steps(self.schedule, timesteps)
        return self


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
        raise BundleError(f"'{path}' is no file; expected one of at most {limit} bytes")
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
        raise BundleError(f"{label} is no ONNX model: {error}") from error
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
