"""What TensorRT says, kept for the message of an error of ours instead of being printed."""

from __future__ import annotations

from functools import cache
from typing import Any

_KEPT = 4  # the first messages of a failure tell the cause; more repeat it layer by layer


@cache
def logger(trt: Any) -> Any:
    """Return the `ILogger` of a library, one a process, as the library itself knows only one.

    It has `forget()`, to be called before what may fail, and `told()`, which returns what was said
    since: the errors, or the warnings where there was no error.

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

        def told(self) -> str:
            return "; ".join(self._errors or self._warnings) or f"{trt.__name__} gives no reason"

    return Log()
