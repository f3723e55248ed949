# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The diffusion algebra against its definitions."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from magicfuse_ros.bundle.schedule import Schedule, ddim_steps
from magicfuse_training.diffusion import algebra

abars = st.floats(0.01, 0.999)
seeds = st.integers(0, 2**31)


def draw(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 2, 4, 3, 3, generator=generator, dtype=torch.float64))


@settings(deadline=None)
@given(seeds, abars)
def test_both_predictions_give_back_the_noise_and_the_image(seed: int, abar: float) -> None:
    x0, eps = draw(seed, 2)
    a = torch.tensor(abar, dtype=torch.float64)
    z = algebra.add_noise(x0, eps, a)
    for prediction, output in (("epsilon", eps), ("v", algebra.velocity(x0, eps, a))):
        got_eps, got_x0 = algebra.split(prediction, output, z, a)  # type: ignore[arg-type]
        torch.testing.assert_close(got_eps, eps)
        torch.testing.assert_close(got_x0, x0)


@settings(deadline=None)
@given(seeds, abars)
def test_fusing_velocities_is_fusing_noise_where_the_streams_share_z(
    seed: int, abar: float
) -> None:
    z, eps_i, eps_c, raw = draw(seed, 4)
    w, a = raw.sigmoid(), torch.tensor(abar, dtype=torch.float64)
    ikr, ckg = (algebra.split("epsilon", eps, z, a) for eps in (eps_i, eps_c))
    by_noise = algebra.fuse("epsilon", w, z, ikr, ckg, a)
    by_velocity = algebra.fuse("v", w, z, ikr, ckg, a)
    torch.testing.assert_close(by_noise[0], by_velocity[0])
    torch.testing.assert_close(by_noise[1], by_velocity[1], rtol=1e-6, atol=1e-8)


def test_at_zero_terminal_snr_the_fused_image_is_the_mix_of_both_estimates() -> None:
    z, x0_i, x0_c, raw = draw(0, 4)
    w, a = raw.sigmoid(), torch.zeros((), dtype=torch.float64)
    eps, x0 = algebra.fuse("v", w, z, (z, x0_i), (z, x0_c), a)
    torch.testing.assert_close(x0, w * x0_i + (1 - w) * x0_c)
    torch.testing.assert_close(eps, z)


def test_a_perfect_network_reaches_the_image_on_every_grid() -> None:
    schedule = Schedule()
    x0, z = draw(3, 2)
    for count in (1, 2, 5, 25):
        state = z
        for step in ddim_steps(schedule, schedule.trailing_timesteps(count)):
            a = torch.tensor(step.abar_t, dtype=torch.float64)
            eps = (state - a.sqrt() * x0) / (1 - a).sqrt()
            eps, estimate = algebra.split("v", algebra.velocity(x0, eps, a), state, a)
            state = algebra.ddim(estimate, eps, torch.tensor(step.abar_next, dtype=torch.float64))
        torch.testing.assert_close(state, x0)
