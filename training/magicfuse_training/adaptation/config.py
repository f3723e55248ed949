# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Settings of an adaptation, apart from its frames and its budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptConfig:
    """Settings of an adaptation; shares are 0 to 1.

    Attributes:
        frames: the most frames that are kept.
        least: the fewest; a recording that yields fewer is rejected.
        held_out: share of the kept frames that are not used for training: the last ones by day and
            the last ones at night.
        least_held_out: the fewest held-out frames.
        confident: least confidence of a mask pixel that serves as a label or is judged.
        labelled: least share of all training pixels that must get a label.
        share: weight of the trained bundle in the result; the rest comes from the old bundle
            (WiSE-FT, arXiv 2109.01903). The result learns the camera's streets and does not forget
            other streets.
        learning_rate: lower than that of `few_step`, whose data sets cover more than one camera's
            streets.
    """

    frames: int = 1200
    least: int = 40
    held_out: float = 0.15
    least_held_out: int = 8
    confident: float = 0.85
    labelled: float = 0.05
    share: float = 0.6
    learning_rate: float = 1.5e-4
