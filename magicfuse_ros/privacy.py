# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Stops libraries from sending telemetry; it must be imported before any of them.

A vehicle contacts only the hosts that its owner chooses, and stores no identity for others.
Variables that the user has set take precedence.
"""

import os
import sys
from typing import Any

VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime 1.32 and later
    "ORT_TELEMETRY_DISABLED": "1",  # the name in some of its packages
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, which accelerate uses
    "DO_NOT_TRACK": "1",  # a switch that many command-line tools share
}

for _name, _value in VARIABLES.items():
    os.environ.setdefault(_name, _value)

# OpenVINO and nncf send telemetry through this package, and their only switch is a file in the
# user's home. Without the package they send nothing. None makes its import fail.
_modules: dict[str, Any] = sys.modules
_modules.setdefault("openvino_telemetry", None)
