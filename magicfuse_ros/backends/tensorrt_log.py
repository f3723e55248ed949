# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Keeps TensorRT's log messages for our error messages instead of printing them."""

from __future__ import annotations

from functools import cache
from typing import Any

_KEPT = 4  # the first messages of a failure give the cause; later ones repeat it for every layer


@cache
def logger(trt: Any) -> Any:
    """Return the `ILogger` of a library: one per process, because the library allows only one.

    Call its `forget()` before something that may fail. Its `told()` returns the messages since
    then: the errors, or the warnings if there was no error. `warned()` lists the warnings.

    Args:
        trt: the module of TensorRT or TensorRT for RTX.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.forget()

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                kept = self._errors
            elif severity == trt.ILogger.WARNING:
                kept = self._warnings
            else:
                return
            if len(kept) < _KEPT:
                kept.append(" ".join(message.split()))

        def forget(self) -> None:
            self._errors: list[str] = []
            self._warnings: list[str] = []

        def warned(self) -> list[str]:
            return self._warnings

        def told(self) -> str:
            return "; ".join(self._errors or self._warnings) or f"{trt.__name__} gives no reason"

    return Log()
