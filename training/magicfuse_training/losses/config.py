"""The parts of the losses and their weights: part of a preset.

The preset explains each value that has no default here. Defaults are the published values.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class DayNight(NamedTuple):
    """A weight by day, and one at night."""

    day: float
    night: float


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HeatConfig(_Strict):
    """The heat that a fused image gains, instead of Eq. 15's maximum of visible and thermal.

    Where the head finds people, the luma gains `gain` times the excess of the thermal estimate over
    a street's level: see `losses.image.fused_luma`.
    """

    gain: float = Field(gt=0, description="luma for each unit of thermal above a street's")
    at_night: float = Field(gt=0, description="times the gain by day")
    warm: float = Field(ge=0, description="what streets are no warmer than by day, 0 to 1")
    warm_at_night: float = Field(ge=0, description="the same at night")
    limit: float = Field(gt=0, description="of the luma that is gained")
    weight: float = Field(ge=0, description="of a pixel, for each unit of luma that it gains")
    false_light: float = Field(ge=0, description="weight of light where none is due")
    slack: float = Field(ge=0, description="luma over the target that is no false light")
    unlit: float = Field(ge=0, le=1, description="probability of people up to which nothing is lit")
    lit: float = Field(ge=0, le=1, description="from which all is lit; both at the middle tau")
    middle_tau: float = Field(ge=0, lt=1, description="that unlit and lit are of")
    taus: tuple[float, float] = Field(description="that training draws tau from")


class ThermalLossConfig(_Strict):
    """The loss of the decoded thermal estimate, see `losses.thermal`; levels are 0 to 1.

    absolute, squared, edges   of the error everywhere
    people, contrast           of the squared error on people, and of their lack of contrast: by
                               day, and at night
    lookalikes, few            of the mean squared error on objects that look like people; the mean
                               divides by at least `few` pixels of a batch
    enough                     share of a real contrast that is enough
    scale                      of the likelihood that teaches how confident the estimate is
    street                     level of a street off people
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
    hottest: float = Field(gt=0)
    cool: float = Field(ge=0)
    unseen_contrast: float = Field(ge=0)
    unseen: float = Field(ge=0)
    warmer: float = Field(ge=0)
    excess: float = Field(ge=0)


class OutputLossConfig(_Strict):
    """The losses of the stages `one_step` and `few_step`, on the sampler's output."""

    restored: float = Field(ge=0, description="of L1, of gradients, and of means over 16 pixels")
    chroma: float = Field(ge=0, description="of the L1 of Cb and Cr of the restored image")
    segmentation: float = Field(ge=0, description="of Eq. 16 beside Eq. 15")
    thermal: ThermalLossConfig


class LossConfig(_Strict):
    """Eq. 7, Eq. 15 and Eq. 16, and further losses if a preset has them."""

    on_grid: float = Field(
        0.0, ge=0, le=1, description="of the draws of t in Eq. 7 on the levels of the step grids"
    )
    weigh_people: bool = Field(
        False, description="whether Eq. 7 of the thermal stream counts people by the crops' weights"
    )
    contrast: float = Field(ge=0, description="L1 of luma to the larger of visible and thermal")
    texture: float = Field(ge=0, description="L1 of Sobel / 4 to the larger of the two")
    colour: float = Field(ge=0, description="L1 of Cb plus L1 of Cr to the visible image's")
    heat: HeatConfig | None = Field(None, description="None: Eq. 15 as published")
    class_weights: list[float] = Field(description="of the cross entropy, by class id")
    dice: float = Field(0.0, ge=0, description="of the soft Dice loss, for small and rare classes")
    teacher: float = Field(0.0, ge=0, description="of the cross entropy to another network's masks")
    state: float = Field(0.0, ge=0, description="of the cross entropy of z_seg itself")
    latent_noise: float = Field(
        0.05, ge=0, description="sd of noise on the autoencoder's latents: no stream hits them"
    )
    output: OutputLossConfig | None = Field(
        None, description="of one_step and few_step; None: the preset has no such stages"
    )
