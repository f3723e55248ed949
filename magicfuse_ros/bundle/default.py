# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Finds the default bundle and other files of the package."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from pathlib import Path

from magicfuse_ros.bundle.manifest import MANIFEST
from magicfuse_ros.errors import BundleError

_BUNDLE = Path("engines", "nano")
_SHARE = Path("share", "magicfuse_ros")


def share_folders() -> list[Path]:
    """Return the folders that may hold files of the package, for example config/.

    These are the source tree, then every prefix of AMENT_PREFIX_PATH, then those of Python: its
    own, the one that pip installs to, and the user's; then the folders around the package, for
    another prefix or target of pip.
    """
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    source = Path(__file__).resolve().parents[2]
    ours = dict.fromkeys((sys.prefix, sysconfig.get_path("data"), site.getuserbase()))
    around = list(Path(__file__).resolve().parents)[1:-1]
    return [source, *(Path(p) / _SHARE for p in (*prefixes, *ours)), *(p / _SHARE for p in around)]


def default_bundle() -> Path:
    """Return the bundle that the package ships, from the first of `share_folders` that has it.

    Raises:
        BundleError: if no folder holds a bundle; the message names the folders.
    """
    places = [folder / _BUNDLE for folder in share_folders()]
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise BundleError(
        f"the default bundle is missing; expected {MANIFEST} in one of "
        f"{', '.join(str(place) for place in places)}"
    )
