# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The parts of the losses and their weights: part of a preset.

The preset explains each value that has no default here. Defaults are the published values.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from magicfuse_training.strict_yaml import Strict


class DayNight(NamedTuple):
    """A weight by day, and one at night."""

    day: float
    night: float


class HeatConfig(Strict):
    """The heat that a fused image gains, instead of Eq. 15's maximum of visible and thermal.

    Where the head finds people, the luma gains `gain` times the excess of the thermal estimate over
    a street's level: see `losses.image.fused_luma`.
    """

    gain: float = Field(gt=0, description="luma for each unit of thermal above that of streets")
    at_night: float = Field(gt=0, description="the gain at night, as a multiple of that by day")
    warm: float = Field(ge=0, description="thermal level that streets do not exceed by day, 0 to 1")
    warm_at_night: float = Field(ge=0, description="the same at night")
    limit: float = Field(gt=0, description="most luma that is gained")
    weight: float = Field(ge=0, description="weight of a pixel for each unit of luma that it gains")
    false_light: float = Field(ge=0, description="weight of light on pixels that should get none")
    slack: float = Field(
        ge=0, description="luma above the target that does not count as false light"
    )
    unlit: float = Field(ge=0, le=1, description="probability of people up to which nothing is lit")
    lit: float = Field(
        ge=0, le=1, description="probability from which all is lit; both at middle_tau"
    )
    middle_tau: float = Field(ge=0, lt=1, description="tau for which unlit and lit hold")
    taus: tuple[float, float] = Field(description="range that training draws tau from")


class ThermalLossConfig(Strict):
    """The loss of the decoded thermal estimate, see `losses.thermal`; levels are 0 to 1.

    absolute, squared, edges   weights of the error everywhere
    people, contrast           weights of the squared error on people, and of their lack of
                               contrast: by day, and at night
    lookalikes, few            weight of the mean squared error on objects that look like people;
                               the mean divides by at least `few` pixels of a batch
    enough                     share of a real contrast that is enough
    scale                      weight of the likelihood that teaches how confident the estimate is
    street                     level of a street off people
    spread                     share of a real image's deviations from `street` that the mean is
                               taught off people: by day, and at night
    hottest, cool              without a thermal image: the upper limit of people, and of everything
                               that is not warm
    unseen_contrast, unseen    without a thermal image: the contrast that people should have, and
                               the weight of what they lack of it
    warmer, excess             weights of the excess over `cool`, and of the squared excess over
                               `cool` and over `hottest`
    """

    absolute: float = Field(ge=0)
    squared: float = Field(ge=0)
    edges: float = Field(ge=0)
    people: DayNight
    contrast: DayNight
    lookalikes: float = Field(ge=0)
    few: float = Field(gt=0)
    enough: float = Field(gt=0, le=1)
    scale: float = Field(ge=0)
    street: float = Field(ge=0)
    spread: DayNight = DayNight(1, 1)
    hottest: float = Field(gt=0)
    cool: float = Field(ge=0)
    unseen_contrast: float = Field(ge=0)
    unseen: float = Field(ge=0)
    warmer: float = Field(ge=0)
    excess: float = Field(ge=0)


class OutputLossConfig(Strict):
    """The losses of the stages `one_step` and `few_step`, on the sampler's output."""

    restored: float = Field(
        ge=0, description="weights of L1, of gradients, and of means over 16 pixels"
    )
    chroma: float = Field(ge=0, description="weight of the L1 of Cb and Cr of the restored image")
    segmentation: float = Field(ge=0, description="weight of Eq. 16 relative to Eq. 15")
    thermal: ThermalLossConfig


class LossConfig(Strict):
    """Eq. 7, Eq. 15 and Eq. 16, and further losses if a preset has them."""

    on_grid: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the t in Eq. 7 drawn from the levels of the step grids",
    )
    weigh_people: bool = Field(
        False, description="whether Eq. 7 of the thermal stream counts people by the crops' weights"
    )
    contrast: float = Field(ge=0, description="L1 of luma to the larger of visible and thermal")
    texture: float = Field(ge=0, description="L1 of Sobel / 4 to the larger of the two")
    colour: float = Field(ge=0, description="L1 of Cb plus L1 of Cr to the visible image's")
    heat: HeatConfig | None = Field(None, description="None: Eq. 15 as published")
    class_weights: list[float] = Field(description="weights of the cross entropy, by class id")
    class_weights_at_night: list[float] | None = Field(
        None, description="those of crops at night, real or rendered; None: the same"
    )
    dice: float = Field(
        0.0, ge=0, description="weight of the soft Dice loss, for small and rare classes"
    )
    teacher: float = Field(
        0.0, ge=0, description="weight of the cross entropy to another network's masks"
    )
    state: float = Field(0.0, ge=0, description="weight of the cross entropy of z_seg itself")
    latent_noise: float = Field(
        0.05, ge=0, description="sd of noise on autoencoder latents: no stream hits them exactly"
    )
    output: OutputLossConfig | None = Field(
        None, description="losses of one_step and few_step; None: the preset has no such stages"
    )
