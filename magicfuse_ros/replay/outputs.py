"""The topics of `fuse_node` by name, for bags that hold its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from magicfuse_ros.bundle import SemanticClass
from magicfuse_ros.fuser import FusedFrame
from magicfuse_ros.image_codec import Image
from magicfuse_ros.overlay import overlay

NODE = "/fuse_node"
MAG_IMAGE = "mag_image"
MASK = "segmentation/mask"
OVERLAY = "segmentation/overlay"
LABELS = "segmentation/label_info"
CAMERA_INFO = "camera_info"
DIAGNOSTICS = "/diagnostics"  # not below the node's name
_PIXELS: dict[str, Callable[[FusedFrame], Image | None]] = {
    MAG_IMAGE: lambda frame: frame.mag_image,
    "restored_image": lambda frame: frame.restored,
    "thermal_estimate": lambda frame: frame.thermal_estimate,
    MASK: lambda frame: frame.mask,
    "segmentation/confidence": lambda frame: frame.confidence,
}
IMAGES: tuple[str, ...] = (*_PIXELS, OVERLAY)


def images(frame: FusedFrame, classes: Sequence[SemanticClass]) -> dict[str, Image]:
    """Return what the node publishes of a frame, by the names in `IMAGES`; RGB or gray, uint8."""
    found = {name: image for name, of in _PIXELS.items() if (image := of(frame)) is not None}
    if MAG_IMAGE in found and MASK in found:
        found[OVERLAY] = overlay(found[MAG_IMAGE], found[MASK], classes)
    return found
