"""The half body: float16 layers, float32 norms and borders, at least 50 dB from float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, shape_inference

from magicfuse_training.export.bundle import export_graph
from magicfuse_training.export.graphs import example_inputs, graphs
from magicfuse_training.export.half import half_body
from magicfuse_training.networks.model import MagicFuse


def test_a_half_body_stays_close_and_keeps_norms_and_borders_in_float32(
    small_model: MagicFuse, tmp_path: Path
) -> None:
    examples = example_inputs(small_model, 64, 96)
    exact = graphs(small_model)
    for name, graph in graphs(half_body(small_model)).items():
        inputs = {k: examples[k] for k in graph.inputs}
        with torch.no_grad():
            wanted = exact[name](*inputs.values())
        wanted = (wanted,) if isinstance(wanted, torch.Tensor) else wanted
        path = tmp_path / f"{name}.onnx"
        export_graph(graph, inputs, path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs = session.run(None, {k: v.numpy() for k, v in inputs.items()})
        for want, have in zip(wanted, outputs, strict=True):
            assert have.dtype in (np.float32, np.uint8)
            reference = want.numpy().astype(np.float64)
            noise = ((have - reference) ** 2).mean()
            assert noise == 0 or 10 * np.log10((reference**2).mean() / noise) >= 50, name
        model = shape_inference.infer_shapes(onnx.load(path))
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
        kinds = {
            kind: {types[n.output[0]] for n in model.graph.node if n.op_type == kind}
            for kind in ("Conv", "BatchNormalization")
        }
        assert kinds["Conv"] == {TensorProto.FLOAT16}
        assert kinds["BatchNormalization"] <= {TensorProto.FLOAT}
