"""Keeps the libraries below from reporting who uses them: imported before any of them.

A vehicle calls nobody but whom its owner tells it to call, and keeps no identity for others.
Variables that the user has set win.
"""

import os
import sys
from typing import Any

VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime 1.32 and later
    "ORT_TELEMETRY_DISABLED": "1",  # as some of its packages call it
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, below accelerate
    "DO_NOT_TRACK": "1",  # the switch that many command-line tools share
}

for _name, _value in VARIABLES.items():
    os.environ.setdefault(_name, _value)

# OpenVINO and nncf report through this package and have no switch but a file in the user's home;
# without the package they do nothing. None makes its import fail.
_modules: dict[str, Any] = sys.modules
_modules.setdefault("openvino_telemetry", None)
