# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Memory of a training step of the published fusion network at full size; minutes on a CPU.

MAGICFUSE_SLOW_TESTS=1 pytest -s test/training/test_memory.py
"""

import subprocess
import sys
from pathlib import Path

import pytest

STEP = """
import torch
from magicfuse_training.networks.fusion import FusionNetwork
from magicfuse_training.preset import load_preset

preset = load_preset("paper")
network = FusionNetwork(preset.mkf, 8, 8, len(preset.classes)).eval()
z, z_seg = torch.randn(1, 8, 120, 160), torch.randn(1, 9, 120, 160)
with torch.no_grad():
    network(z, z, z, torch.randn(1, 16, 120, 160), z_seg, torch.tensor([960.0]))
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_step_of_the_published_fusion_network_at_480x640_stays_below_1_gb() -> None:
    """All scores of its 19,200 pixels alone would take 1.5 GB."""
    result = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    kilobytes = int(result.stdout)
    print(f"peak resident memory, torch included: {kilobytes / 1e6:.2f} GB")
    assert kilobytes < 1e6
