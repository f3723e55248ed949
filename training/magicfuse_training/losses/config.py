"""How much each loss of the second phase counts: part of a preset."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LossConfig(BaseModel):
    """Weights of Eq. 15 and Eq. 16."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contrast: float = Field(ge=0, description="L1 of luma to the larger of visible and thermal")
    texture: float = Field(ge=0, description="L1 of Sobel / 4 to the larger of the two")
    heat: float = Field(
        0.0,
        ge=0,
        description="luma that a fused image gains for each unit of thermal over a street's, up "
        "to 0.3 and three times of it at night, in the place of the larger of the two; 0: Eq. 15 "
        "as published",
    )
    colour: float = Field(ge=0, description="L1 of Cb plus L1 of Cr to the visible image's")
    class_weights: list[float] = Field(description="of the cross entropy, by class id")
    dice: float = Field(0.0, ge=0, description="of the soft Dice loss, for small and rare classes")
    teacher: float = Field(0.0, ge=0, description="of the cross entropy to another network's masks")
    state: float = Field(0.0, ge=0, description="of the cross entropy of z_seg itself")
