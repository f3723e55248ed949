# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The mean of several models' weights."""

import torch

from magicfuse_training.stages.average import weighted_mean


def state(value: float, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    names = ("encoder.weight", "decoder.weight")
    return {**{name: torch.full((2,), value) for name in names}, **more}


def test_weights_need_not_add_up_to_one() -> None:
    mean = weighted_mean([state(0.0), state(4.0)], [1, 3])
    assert mean["encoder.weight"].tolist() == mean["decoder.weight"].tolist() == [3.0, 3.0]


def test_networks_that_are_not_named_are_those_of_the_last() -> None:
    mean = weighted_mean([state(0.0), state(4.0)], [1, 1], ["encoder"])
    assert mean["encoder.weight"].tolist() == [2.0, 2.0]
    assert mean["decoder.weight"].tolist() == [4.0, 4.0]


def test_what_another_lacks_or_is_no_float_is_that_of_the_last() -> None:
    last = state(4.0, new=torch.ones(1), batches=torch.tensor(7))
    mean = weighted_mean([state(0.0, batches=torch.tensor(3)), last], [1, 1])
    assert mean.keys() == last.keys()
    assert mean["new"].tolist() == [1.0] and mean["batches"].item() == 7
