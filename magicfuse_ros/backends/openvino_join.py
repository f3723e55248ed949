# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Several networks as one OpenVINO model.

Between networks that are compiled separately, tensors change layout and back, int8 becomes float32
and back, and values that depend only on a step's constants are computed again for every frame. In
one model the library optimises all of that away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset8 as ops

from magicfuse_ros import __version__
from magicfuse_ros.backends.interface import JoinedWork, Part, Tensor
from magicfuse_ros.bundle import TensorSpec, sha256

_SEPARATOR = "/"
_FORM = 1  # increase it with every change to how this file builds a model


def join(
    core: Any,
    parts: Sequence[Part],
    inputs: Sequence[TensorSpec],
    work: JoinedWork,
    config: Mapping[str, Any],
) -> Any:
    """Return the model that does `work`: inputs in the given order, outputs named as in `work`.

    Args:
        core: OpenVINO's core.
        parts: the networks that `work` calls.
        inputs: the model's inputs.
        work: see `JoinedWork`.
        config: OpenVINO's settings, for what is computed here.

    Raises:
        RuntimeError: if a part's file cannot be read.
    """
    parameters = [ops.parameter(t.shape, np.dtype(t.dtype), t.name) for t in inputs]
    for parameter, spec in zip(parameters, inputs, strict=True):
        # Otherwise OpenVINO numbers them in each process, and its cache does not find the model.
        parameter.output(0).set_names({spec.name})
    known = {t.name: p.output(0) for t, p in zip(inputs, parameters, strict=True)}
    outputs = work({part.name: _Copies(core, part) for part in parts}, known)
    results = [ops.result(_output(tensor)) for tensor in outputs.values()]
    for name, result in zip(outputs, results, strict=True):
        result.output(0).set_names({name})
    model = ov.Model(results, parameters, "joined")
    _settle(core, model, config)
    return model


def wiring(
    parts: Sequence[Part], inputs: Sequence[TensorSpec], work: JoinedWork
) -> tuple[list[str], str]:
    """Return what a model that does `work` depends on, without reading any file.

    Returns:
        The names of its outputs, and a hash of its networks, constants and connections.
    """
    seen = hashlib.sha256(f"{__version__} {_FORM}".encode())
    for tensor in inputs:
        seen.update(tensor.model_dump_json().encode())
    networks = {part.name: _Traced(part, seen) for part in parts}
    outputs = work(networks, {t.name: f"input {t.name}" for t in inputs})
    for name, tensor in outputs.items():
        seen.update(f"{name} = ".encode() + _trace(tensor))
    return list(outputs), seen.hexdigest()


def _settle(core: Any, model: Any, config: Mapping[str, Any]) -> None:
    """Replace the convolutions of constants in a model with their results.

    OpenVINO 2026.4 would compute them once, and then add to the kept result in every frame.
    """
    fixed: set[str] = set()
    found: list[Any] = []
    for node in model.get_ordered_ops():
        inputs = {source.get_source_output().get_node().get_name() for source in node.inputs()}
        if node.get_type_name() != "Parameter" and inputs <= fixed:
            fixed.add(node.get_name())
            if "Convolution" in node.get_type_name():
                found.append(node.output(0))
    if found:
        results = core.compile_model(ov.Model(found, []), "CPU", config)()
        for i, output in enumerate(found):
            output.replace(ops.constant(results[i]).output(0))


def shares(parts: Sequence[Part], profile: Sequence[Any]) -> dict[str, float]:
    """Return each part's share, 0 to 1, of the time in a joined model's profile.

    The profile is in the order of execution. An operation that the library fused from several may
    have a new name; its time goes to the part of the operation before it.
    """
    spent = {part.name: timedelta(0) for part in parts}
    part = parts[0].name
    for node in profile:
        name = node.node_name.split(_SEPARATOR)[0]
        part = name if name in spent else part
        spent[part] += node.real_time
    total = sum(spent.values(), timedelta(0)) or timedelta.resolution
    return {name: time / total for name, time in spent.items()}


class _Traced:
    """A network as `work` sees it, which only records its calls; its tensors are strings."""

    def __init__(self, part: Part, seen: Any) -> None:
        self._part, self._seen, self._calls = part, seen, 0
        self._hash = sha256(part.path)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._calls += 1
        call = f"{self._part.name} {self._hash} {self._calls}"
        self._seen.update(call.encode())
        for name, tensor in sorted(inputs.items()):
            self._seen.update(f"{name} = ".encode() + _trace(tensor))
        return {output.name: f"{call} {output.name}" for output in self._part.spec.outputs}


def _trace(tensor: Tensor) -> bytes:
    """Return a string, or the bytes of a tensor that already has a value."""
    return tensor.encode() if isinstance(tensor, str) else bytes(tensor.data.tobytes())


class _Copies:
    """A network as `work` sees it: every call puts a copy of it into the model."""

    def __init__(self, core: Any, part: Part) -> None:
        self._core, self._part = core, part

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        model = self._core.read_model(self._part.path)
        for node in model.get_ops():
            node.set_friendly_name(f"{self._part.name}{_SEPARATOR}{node.get_friendly_name()}")
        for parameter in model.get_parameters():
            port = parameter.output(0)
            source = _output(inputs[_name(port, self._part.spec.inputs)])
            for reader in port.get_target_inputs():
                reader.replace_source_output(source)
        return {
            _name(result.output(0), self._part.spec.outputs): result.input_value(0)
            for result in model.get_results()
        }


def _output(tensor: Tensor) -> Any:
    """Return the node output for a tensor; a tensor that already has a value is a constant."""
    return tensor if isinstance(tensor, ov.Output) else ops.constant(tensor.data).output(0)


def _name(port: Any, recorded: Sequence[TensorSpec]) -> str:
    """Return which of a network's tensors a port is; a port may also have inner names."""
    return next(t.name for t in recorded if t.name in port.names)
