# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""The device's memory and graphs: on a stand-in for libcudart, and on a GPU if there is one.

Networks are copies within the device: everything except for an engine's own call is as in a frame.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cuda_stand_in import ILLEGAL_ADDRESS, Library, copy_on_device
from magicfuse_ros.backends.cuda import Device, DeviceTensor, Event, missing_device
from magicfuse_ros.backends.cuda_graph import GraphRecorder
from magicfuse_ros.errors import BackendError, DeviceLostError

Arrays = dict[str, npt.NDArray[Any]]


def test_without_a_gpu_there_is_no_device_until_one_comes(runtime: Library) -> None:
    runtime.count = 0
    with pytest.raises(BackendError, match="no CUDA device can be used: the NVIDIA driver sees no"):
        Device()
    runtime.count = 1
    assert missing_device() == ""
    Device()


def test_a_device_is_named_and_waiting_sleeps(runtime: Library) -> None:
    device = Device()
    assert (device.name, device.compute_capability) == ("Test GPU", "8.9")
    assert runtime.flags == 4  # cudaDeviceScheduleBlockingSync
    free, total = device.memory()
    assert 0 < free <= total == runtime.limit


@pytest.mark.parametrize("shape", [(2, 3), (1, 480, 640, 3)])
def test_uploads_are_what_they_were_and_downloads_last(
    device: Device, shape: tuple[int, ...]
) -> None:
    original = np.random.default_rng(0).standard_normal(shape, np.float32)
    array = original.copy()
    first = device.upload(array)
    array += 100  # the caller may change it at once
    second = device.upload(array)
    downloaded = device.download(first)
    np.testing.assert_array_equal(downloaded, original)
    for _ in range(3):
        device.download(second)
    np.testing.assert_array_equal(downloaded, original)
    np.testing.assert_array_equal(device.download(second), array)
    assert downloaded.dtype == np.float32


def test_a_frame_after_the_first_allocates_nothing(runtime: Library) -> None:
    device = Device()
    constant = device.upload(np.ones(4, np.float32))

    def frame(value: int) -> None:
        image = device.upload(np.full((8, 8), value, np.uint8))
        result = device.empty((8, 8), np.uint8)
        copy_on_device(device, result.address, image.address, 64)
        assert (device.download(result) == value).all()

    frame(1)
    allocated = len(runtime.memory)
    for value in range(2, 6):
        frame(value)
    assert len(runtime.memory) == allocated
    assert (device.download(constant) == 1).all()


def test_all_memory_is_given_back_with_the_device(runtime: Library) -> None:
    device = Device()
    tensor = device.upload(np.ones(4))
    device.download(tensor)
    recorder = GraphRecorder(device)
    recorder(some_inputs(0), Frame(device))
    stamp = device.stamp()
    assert runtime.memory and runtime.graphs and runtime.events
    del device
    gc.collect()
    assert runtime.memory  # tensor and recorder are in use
    del tensor, recorder, stamp
    gc.collect()
    assert not runtime.memory and not runtime.graphs and not runtime.events


def test_a_gpu_that_is_full_is_an_error_that_names_it(runtime: Library) -> None:
    runtime.limit = 100
    with pytest.raises(BackendError, match="on Test GPU: cudaMalloc: cudaErrorMemoryAllocation"):
        Device().empty((200,), np.uint8)


def test_what_cuda_refuses_is_an_error_that_names_the_gpu(device: Device) -> None:
    with pytest.raises(BackendError, match=rf"CUDA failed on {device.name}: cuda\w+: cudaError\w+"):
        device.empty((1 << 50,), np.uint8)
    with pytest.raises(BackendError, match=rf"CUDA failed on {device.name}: cuda\w+: cudaError\w+"):
        copy_on_device(device, 0, 0, 16)
    array = np.arange(5)
    np.testing.assert_array_equal(device.download(device.upload(array)), array)  # it still works


class Frame:
    """Queue work like the sampler's on a chain of copies; return the expected results too.

    `scratch` is passed from network to network. At every step, tau is written to its front,
    followed by the seed, a constant that was uploaded once. The results are scratch and the image.
    """

    def __init__(self, device: Device, steps: int = 2) -> None:
        self.device, self.steps = device, steps
        self.seed = np.array([7, 8], np.float32)
        self._seed = device.upload(self.seed)
        self.calls = 0
        self.spans: list[tuple[Event, Event]] = []

    def __call__(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        self.calls += 1
        self.spans.clear()
        image, tau = tensors["image"], tensors["tau"]
        scratch = image
        for _ in range(self.steps):
            start = self.device.stamp()
            following = self.device.empty(image.shape, image.dtype)
            for source, nbytes, offset in (
                (scratch, image.nbytes, 0),
                (tau, 4, 0),
                (self._seed, 8, 4),
            ):
                copy_on_device(self.device, following.address + offset, source.address, nbytes)
            scratch = following
            self.spans.append((start, self.device.stamp()))
        return {"scratch": self.device.download(scratch), "image": self.device.download(image)}

    def expected(self, inputs: Arrays) -> Arrays:
        scratch = inputs["image"].copy()
        scratch.ravel()[:1] = inputs["tau"]
        scratch.ravel()[1:3] = self.seed
        return {"scratch": scratch, "image": inputs["image"]}


def some_inputs(number: int) -> Arrays:
    random = np.random.default_rng(number)
    return {
        "image": random.standard_normal((1, 120, 160, 3)).astype(np.float32),
        "tau": np.array([number / 10], np.float32),
    }


def check(actual: Arrays, expected: Arrays) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)
        assert actual[name].dtype == array.dtype


def test_a_repeated_graph_sees_the_new_image_and_the_new_tau(device: Device) -> None:
    frame, recorder = Frame(device), GraphRecorder(device)
    given = [some_inputs(n) for n in range(5)]
    results = [recorder(inputs, frame) for inputs in given]
    assert frame.calls == 2  # to warm up, and to record
    for inputs, result in zip(given, results, strict=True):  # no frame overwrote another's results
        check(result, frame.expected(inputs))
    changed = {**given[4], "tau": np.array([0.9], np.float32)}
    check(recorder(changed, frame), frame.expected(changed))


def test_graphs_of_several_step_counts_and_other_work_leave_each_other_alone(
    device: Device,
) -> None:
    frames = [Frame(device, steps) for steps in (1, 2, 3)]
    recorders = [GraphRecorder(device) for _ in frames]
    constants = []
    for n in range(4):
        for frame, recorder in zip(frames, recorders, strict=True):
            inputs = some_inputs(n)
            check(recorder(inputs, frame), frame.expected(inputs))
            # As large as a buffer inside the graphs.
            constants.append(device.upload(np.full((1, 120, 160, 3), n, np.float32)))
    for i, constant in enumerate(constants):
        assert (device.download(constant) == i // 3).all()


def test_every_repetition_takes_new_stamps(device: Device) -> None:
    frame, recorder = Frame(device), GraphRecorder(device)
    between: list[float] = []
    outside = device.stamp()
    for n in range(3):
        recorder(some_inputs(n), frame)
        for start, end in frame.spans:
            assert 0 < device.elapsed_ms(start, end) < 1e3
        between.append(device.elapsed_ms(outside, frame.spans[0][0]))
    assert len(frame.spans) == 2
    assert 0 < between[0] < between[1] < between[2]


def test_a_frame_after_the_first_of_its_kind_allocates_nothing(runtime: Library) -> None:
    device = Device()
    frame, recorder = Frame(device), GraphRecorder(device)
    recorder(some_inputs(0), frame)
    allocated = len(runtime.memory), len(runtime.events), len(runtime.graphs)
    for n in range(3):
        recorder(some_inputs(n), frame)
    assert (len(runtime.memory), len(runtime.events), len(runtime.graphs)) == allocated


def test_graphs_share_the_memory_between_their_inputs_and_results(runtime: Library) -> None:
    device = Device()
    frame = Frame(device, steps=3)
    image = some_inputs(0)["image"].nbytes

    def large() -> int:
        return sum(len(buffer) == image for buffer in runtime.memory.values())

    GraphRecorder(device)(some_inputs(0), frame)
    before = large()
    recorders = [GraphRecorder(device) for _ in range(3)]
    for recorder in recorders:
        recorder(some_inputs(0), frame)
    assert large() - before <= 3 * len(recorders)  # the pinned input and the two results of each


def test_work_that_fails_is_an_error_and_can_be_tried_again(device: Device) -> None:
    frame, recorder = Frame(device), GraphRecorder(device)

    def failing(tensors: Mapping[str, DeviceTensor]) -> Arrays:
        results = frame(tensors)
        if frame.calls == 1:
            raise BackendError("network 'mkf.onnx': the GPU did not accept the call")
        return results

    inputs = some_inputs(1)
    with pytest.raises(BackendError, match=r"'mkf\.onnx'"):
        recorder(inputs, failing)
    array = np.arange(5)
    np.testing.assert_array_equal(device.download(device.upload(array)), array)
    for n in range(3):
        check(recorder(some_inputs(n), failing), frame.expected(some_inputs(n)))


def test_work_that_cannot_be_captured_runs_without_a_graph(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    frame, recorder = Frame(device), GraphRecorder(device)

    def allocating(tensors: Mapping[str, DeviceTensor]) -> Arrays:
        if frame.calls == 1:
            device.empty((12345,), np.uint8)  # a size that the warm-up did not use
        return frame(tensors)

    for n in range(3):
        check(recorder(some_inputs(n), allocating), frame.expected(some_inputs(n)))
    assert frame.calls == 4  # to warm up, and one for each frame
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "without a CUDA graph" in warning and "cudaErrorStreamCapture" in warning
    array = np.arange(5)
    np.testing.assert_array_equal(device.download(device.upload(array)), array)


def test_a_graph_that_does_not_fit_is_given_back(
    runtime: Library, caplog: pytest.LogCaptureFixture
) -> None:
    device = Device()
    frame, recorder = Frame(device), GraphRecorder(device)
    runtime.no_instances = True
    check(recorder(some_inputs(0), frame), frame.expected(some_inputs(0)))
    assert not runtime.graphs and "cudaErrorMemoryAllocation" in caplog.text


def test_recorded_work_may_not_upload(device: Device) -> None:
    def uploading(tensors: Mapping[str, DeviceTensor]) -> Arrays:
        return {"x": device.download(device.upload(np.ones(3)))}

    with pytest.raises(AssertionError, match="uploads nothing but its inputs"):
        GraphRecorder(device)(some_inputs(0), uploading)


def test_a_fault_that_lasts_is_told_from_one_that_does_not(runtime: Library) -> None:
    device = Device()
    array = np.ones(4)
    runtime.limit = 10
    with pytest.raises(BackendError) as full:
        device.upload(array)
    assert not isinstance(full.value, DeviceLostError)
    runtime.limit = 1 << 20
    tensor = device.upload(array)
    runtime.broken = ILLEGAL_ADDRESS
    for use in (lambda: device.upload(array), lambda: device.download(tensor), device.synchronize):
        with pytest.raises(DeviceLostError, match=r"on Test GPU: cuda\w+: cudaErrorIllegalAddress"):
            use()
    runtime.broken = 0
