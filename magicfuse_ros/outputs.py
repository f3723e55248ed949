# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The outputs of a frame, which of them a bundle has, and what they cost."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from magicfuse_ros.bundle import Bundle, Manifest, NetworkName
from magicfuse_ros.errors import BundleError, MagicFuseError

Output = Literal[
    "mag_image", "restored", "thermal_estimate", "thermal_uncertainty", "mask", "confidence"
]
OUTPUTS: tuple[Output, ...] = get_args(Output)
DECODED: tuple[Output, ...] = ("mag_image", "restored", "thermal_estimate")  # one decoder call each
LABELS: tuple[Output, ...] = ("mask", "confidence")


def available_outputs(manifest: Manifest) -> tuple[Output, ...]:
    """Return the outputs that a bundle has, in the order of `OUTPUTS`."""
    coded = manifest.thermal_uncertainty is not None
    return tuple(name for name in OUTPUTS if coded or name != "thermal_uncertainty")


def check_outputs(outputs: Collection[Output], manifest: Manifest) -> None:
    """Check that a bundle has these outputs.

    Raises:
        BundleError: if it lacks one.
        MagicFuseError: if no output has that name.
    """
    available = available_outputs(manifest)
    for name in sorted(set(outputs).difference(available)):
        if name in OUTPUTS:
            raise BundleError(
                f"bundle '{manifest.name}' has no output '{name}': its thermal stream gives the "
                f"estimate alone (bundle.json has no {name})"
            )
        raise MagicFuseError(f"output '{name}' is not known; expected {', '.join(available)}")


def computed_outputs(outputs: Collection[Output]) -> frozenset[Output]:
    """Return the outputs that the networks compute for these outputs.

    `thermal_uncertainty` is read from the decoded image of `thermal_estimate`, so the two share
    one decoder call.
    """
    return frozenset("thermal_estimate" if n == "thermal_uncertainty" else n for n in outputs)


def network_calls(outputs: Collection[Output], steps: int) -> dict[NetworkName, int]:
    """Return how often each network runs for one frame with K = `steps` and these outputs."""
    made = computed_outputs(outputs)
    mkf = bool(made & {"mag_image", "mask", "confidence"})
    return {
        "encoder": int(bool(made)),
        "ikr": steps * (mkf or "restored" in made),
        "ckg": steps * (mkf or "thermal_estimate" in made),
        "mkf": steps * mkf,
        "segmentation": int(bool(made.intersection(LABELS))),
        "decoder": len(made.intersection(DECODED)),
    }


def frame_gflop(bundle: Bundle, outputs: Collection[Output], steps: int) -> float:
    """Return the cost in GFLOP of one frame with K = `steps` and these outputs."""
    specs = bundle.manifest.networks
    return sum(specs[n].gflop * calls for n, calls in network_calls(outputs, steps).items())
