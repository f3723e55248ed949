"""Exported graphs: equal to eager, accepted and run by the vehicle's own runtime."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from magicfuse_ros.backends import select
from magicfuse_ros.bundle import Bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_ros.schedule import ddim_steps
from magicfuse_training.export.bundle import (
    STORED_AS_HALF,
    check_graph,
    export_bundle,
    provenance,
)
from magicfuse_training.export.weights import load_weights
from magicfuse_training.networks.model import MagicFuse


@pytest.fixture(scope="module")
def model(build_model: Callable[[], MagicFuse]) -> MagicFuse:
    return build_model()


@pytest.fixture(scope="module")
def bundle(model: MagicFuse, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "small"
    export_bundle(model, folder, provenance({"ikr": 1.0}, "abc"))
    return Bundle.load(folder)


def test_the_runtime_gives_what_eager_sampling_gives(bundle: Bundle, model: MagicFuse) -> None:
    preset = model.preset
    image = np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8)
    for name in ("openvino", "onnxruntime"):
        for count in preset.steps:
            fuser = Fuser(bundle, select(name), steps=count)
            frame = fuser(image)
            with torch.no_grad():
                x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
                condition, detail_4, detail_2 = model.encoder(x)
                streams = model.start(condition)
                noise = np.random.default_rng(preset.seed).standard_normal(
                    tuple(streams.z_ikr.shape), np.float32
                )
                streams.z_ikr = streams.z_ckg = streams.z_mkf = torch.from_numpy(noise)
                for step in ddim_steps(preset.schedule, preset.schedule.trailing_timesteps(count)):
                    streams = model.advance(streams, condition, step, torch.tensor([preset.tau]))
                assert streams.x0_mkf is not None
                fused = model.decoder(streams.x0_mkf, detail_4, detail_2)
            want = (fused.clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
            assert frame.mag_image is not None and frame.mask is not None
            assert np.abs(frame.mag_image - want).max() <= 1
            assert frame.mask.max() < len(preset.classes)


def test_weights_are_stored_as_half_and_named_with_their_cost(bundle: Bundle) -> None:
    for name, spec in bundle.manifest.networks.items():
        model = onnx.load(bundle.path(name))
        large = [t for t in model.graph.initializer if np.prod(t.dims) >= STORED_AS_HALF]
        assert all(t.data_type != onnx.TensorProto.FLOAT for t in large), name
        assert spec.gflop > 0 and spec.parameters > 0
        assert b"magicfuse_training" not in bundle.path(name).read_bytes(), "a path of this machine"
    assert bundle.manifest.provenance.training_minutes == {"ikr": 1.0}


def test_a_bundle_can_be_trained_on(
    bundle: Bundle, model: MagicFuse, build_model: Callable[[], MagicFuse]
) -> None:
    other = build_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    load_weights(other, bundle)
    want = {k: v for k, v in model.state_dict().items() if "encoder.latent" not in k}
    got = other.state_dict()
    assert all(torch.equal(got[k], v) for k, v in want.items())

    other.preset = other.preset.model_copy(update={"name": "wide"})
    other.decoder.inlet = torch.nn.Conv2d(9, 9, 3)
    with pytest.raises(
        ValueError, match=r"'decoder\.inlet\.weight' is \(8, 4, 3, 3\); preset 'wide'"
    ):
        load_weights(other, bundle)


def test_a_graph_that_differs_from_eager_is_refused(bundle: Bundle) -> None:
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    wrong = {"condition": torch.ones(1, 8, 8, 12)}
    with pytest.raises(ValueError, match=r"encoder\.onnx: output 'condition' differs from eager"):
        check_graph(bundle.path("encoder"), {"image": image}, wrong, 1e-3)
