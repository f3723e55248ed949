# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""`magicfuse doctor`: reports what can run here and what is missing, to paste into an issue."""

from __future__ import annotations

from statistics import median

import typer

from magicfuse_ros import backends
from magicfuse_ros.bench.facts import aligned, block, facts
from magicfuse_ros.bench.scene import street
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.commands.options import BundleArgument
from magicfuse_ros.errors import MagicFuseError
from magicfuse_ros.fuser import Fuser

FRAMES = 10


def doctor_command(
    bundle: BundleArgument = None,
) -> None:
    """Check the machine, the libraries and the engines, and fuse a test image.

    Paste the output into bug reports. Exits with code 1 if the test image cannot be fused.
    """
    sections = {"machine": aligned(facts())}
    able = False
    try:
        loaded = Bundle.load(bundle or default_bundle())
    except MagicFuseError as error:
        sections["bundle"] = [f"cannot be used: {error}"]
    else:
        sections["bundle"] = [f"{loaded.manifest.name}, fingerprint {loaded.fingerprint[:12]}"]
        sections["backends"] = aligned(
            {
                name: backends.obstacle(name, loaded) or "can run"
                for name in backends.BACKENDS
                if name != "auto"
            }
        )
        able, sections["auto"] = _fuse(loaded)
    typer.echo(block(sections))
    if not able:
        raise typer.Exit(1)


def _fuse(bundle: Bundle) -> tuple[bool, list[str]]:
    """Fuse a drawn image with `auto`'s backend; return whether it worked, and a report."""
    try:
        choice = backends.choose("auto", "auto", bundle)
        backend = backends.select(choice.used, precision=choice.precision)
        fuser = Fuser(bundle, backend)
        image = street(bundle.manifest.height, bundle.manifest.width)
        fuser(image)
        ms = median(fuser(image).stages_ms["total"] for _ in range(FRAMES))
    except MagicFuseError as error:  # also raised if a bundle's networks do not fit together
        return False, [str(error)]
    line = f"{choice.used} {backend.version} in {choice.precision} on {backend.device}"
    return True, [f"{line}: a frame of all outputs takes {ms:.1f} ms, K = {fuser.steps}"]
