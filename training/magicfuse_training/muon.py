# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Muon: momentum whose matrix is made orthogonal before each step.

torch's own Muon takes matrices alone, not the kernels of convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
# Coefficients of the quintic iteration, and how often it is applied: singular values end between
# 0.7 and 1.2.
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
# Root mean square of an update at a rate of 1: the usual value of AdamW, so that its rates fit.
UPDATE_RMS = 0.2
LEAST_ROWS = 8  # a matrix with fewer rows or columns is left to AdamW


def orthogonal(matrix: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrix, roughly; (m, n) float32.

    The Newton-Schulz iteration of https://kellerjordan.github.io/posts/muon.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


class Muon(torch.optim.AdamW):
    """Muon for weights of at least two dimensions, AdamW for all others.

    A convolution's kernel (O, I, h, w) counts as a matrix (O, I h w). The size of updates is that
    of AdamW (arXiv 2502.16982, section 2.2), and one learning rate serves both.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step. Afterwards the gradients of matrices are None."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and _is_matrix(p):
                    self._orthogonal_step(p, group["lr"], group["weight_decay"])
                    p.grad = None
        return super().step(closure)

    def _orthogonal_step(self, p: Tensor, rate: float, weight_decay: float) -> None:
        assert p.grad is not None, "only parameters with a gradient take a step"
        state = self.state[p]
        if not state:  # AdamW expects a step wherever there is a state
            state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(p)
        state["step"] += 1
        momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        ahead = p.grad.lerp(momentum, MOMENTUM).flatten(1)  # Nesterov's
        update = orthogonal(ahead).view(p.shape)
        p.mul_(1 - rate * weight_decay)
        p.sub_(update, alpha=rate * UPDATE_RMS * max(ahead.shape) ** 0.5)


def _is_matrix(p: Tensor) -> bool:
    return p.ndim >= 2 and min(len(p), p[0].numel()) >= LEAST_ROWS
