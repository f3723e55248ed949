"""PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2

from magicfuse_ros.errors import MediaError
from magicfuse_ros.image_codec import Image


def write_png(path: Path, image: Image) -> None:
    """Write an RGB (HxWx3) or gray (HxW) uint8 image, and the folders above it.

    Raises:
        MediaError: if the file cannot be written.
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, data = cv2.imencode(".png", pixels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise MediaError(f"cannot write '{path}': {error.strerror}") from error
