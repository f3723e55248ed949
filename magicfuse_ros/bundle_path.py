"""Where the default bundle lies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from magicfuse_ros.bundle import MANIFEST
from magicfuse_ros.errors import BundleError

_BUNDLE = Path("engines", "nano")
_SHARE = Path("share", "magicfuse_ros")


def default_bundle() -> Path:
    """Return the bundle that the package ships.

    Looked for in the source tree, then in every prefix of AMENT_PREFIX_PATH, then in `sys.prefix`.

    Raises:
        BundleError: naming the places, if none holds a bundle.
    """
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    bases = [Path(__file__).resolve().parents[1]]
    bases += [Path(prefix) / _SHARE for prefix in (*prefixes, sys.prefix)]
    places = [base / _BUNDLE for base in bases]
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise BundleError(
        f"the default bundle is missing; expected {MANIFEST} in one of "
        f"{', '.join(str(place) for place in places)}"
    )
