# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Distils a smaller ckg from a larger one, as a last way to reduce the operations per frame.

The teacher samples with DDIM at eta 0, so its output is a function of the image and z_T. A student
that starts from the same z_T has one target to reach in one step (arXiv 2202.00512, Section 3, in a
single pass). The real thermal image keeps the student from inheriting the teacher's mistakes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from magicfuse_ros.bundle.schedule import ddim_steps
from magicfuse_ros.errors import MagicFuseError
from magicfuse_training.data.crops import Batch
from magicfuse_training.losses.image import detail_l1, weighted_l1
from magicfuse_training.losses.thermal import read_estimate
from magicfuse_training.model import MagicFuse, levels_of
from magicfuse_training.preset import Preset
from magicfuse_training.stages.stage import Loss

# Keys that may differ in a student's preset.
_FREE = {"name", "ckg", "steps", "default_steps"}


def student_of(teacher: MagicFuse, preset: Preset) -> MagicFuse:
    """Return a model of `preset` with all networks of the teacher's except for a fresh ckg.

    Raises:
        MagicFuseError: names the first key, other than ckg and steps, in which the presets differ:
            latents of another autoencoder would have another meaning.
    """
    for key, theirs in teacher.preset.model_dump(exclude=_FREE).items():
        ours = preset.model_dump()[key]
        if ours != theirs:
            raise MagicFuseError(
                f"student preset '{preset.name}': {key} is {ours}; expected the teacher's, {theirs}"
            )
    student = MagicFuse(preset)
    for name in ("encoder", "ikr", "mkf", "segmentation", "decoder"):
        student.get_submodule(name).load_state_dict(teacher.get_submodule(name).state_dict())
    return student


def distillation_loss(teacher: MagicFuse, teacher_steps: int) -> Loss:
    """Return the loss of a student's ckg: the teacher's latent at K = `teacher_steps`, and thermal.

    Scenes without a thermal image use only the teacher.
    """
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)

    def loss(model: MagicFuse, batch: Batch) -> dict[str, Tensor]:
        teacher.to(batch["degraded"].device)
        with torch.no_grad():
            condition, *details = model.encoder(batch["degraded"])
        start = model.start(condition).z_ckg
        with torch.no_grad():
            target = _sample(teacher, teacher.ckg, condition, start, teacher_steps)
        x0 = _sample(model, model.ckg, condition, start, model.preset.default_steps)
        paired = batch["has_thermal"][:, None, None, None]
        decoded = model.decoder(x0, *details).float()
        estimate = read_estimate(decoded, model.preset.thermal_uncertainty).mean
        return {
            "teacher": 10 * weighted_l1(x0, target, x0.new_ones(1, 1, 1, 1)),
            "thermal": 10 * detail_l1(estimate, batch["thermal"], batch["weight"] * paired),
        }

    return loss


def _sample(model: MagicFuse, unet: nn.Module, condition: Tensor, z: Tensor, count: int) -> Tensor:
    """Return x0 of one stream after `count` DDIM steps from z."""
    x0 = z
    for step in ddim_steps(model.preset.schedule, model.preset.timesteps(count)):
        _, x0, z = model.denoise(unet, condition, z, *levels_of(step, condition))
    return x0
