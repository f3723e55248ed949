# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Exported graphs equal eager, and the vehicle's own runtime accepts and runs them."""

import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch.nn import functional as F

from magicfuse_ros.backends import select
from magicfuse_ros.backends.onnx_passes import fold_constants
from magicfuse_ros.bundle import NETWORKS, Bundle, sha256, write_manifest
from magicfuse_ros.bundle.default import default_bundle
from magicfuse_ros.fuser import Fuser
from magicfuse_training.errors import ExportError
from magicfuse_training.export.bundle import STORED_AS_HALF, _tracing, export_bundle, provenance
from magicfuse_training.export.compare import check_graph
from magicfuse_training.export.weights import load_weights
from magicfuse_training.model import MagicFuse
from magicfuse_training.networks.attention import SLICE
from magicfuse_training.preset import load_preset
from magicfuse_training.stages.start import weights_of_bundle


@pytest.fixture(scope="module")
def model(exported: tuple[MagicFuse, Path]) -> MagicFuse:
    return exported[0]


@pytest.fixture(scope="module")
def bundle(exported: tuple[MagicFuse, Path]) -> Bundle:
    return Bundle.load(exported[1])


@pytest.fixture(scope="module")
def paper_bundle(small_paper: MagicFuse, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "paper"
    export_bundle(small_paper, folder, provenance({}, "abc", [], "none"))
    return Bundle.load(folder)


@torch.no_grad()
def sample_eagerly(
    model: MagicFuse, image: npt.NDArray[np.uint8], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return MagImg (H, W, 3), 0 to 255, and the scores; random draws match those of a bundle."""
    preset = model.preset
    random = np.random.default_rng(preset.seed)

    def draw(channels: int) -> torch.Tensor:
        scale = preset.autoencoder.scale
        size = (1, channels, preset.height // scale, preset.width // scale)
        return torch.from_numpy(random.standard_normal(size, np.float32))

    z_T = draw(preset.autoencoder.latent_channels)  # noqa: N806
    z_seg = draw(len(preset.classes)) if preset.z_seg_start == "normal" else None
    noise = draw(preset.autoencoder.noise_channels) if preset.autoencoder.noise_channels else None
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    condition, *details = model.encoder(x, noise)
    streams = model.start(condition)
    streams.z_ikr = streams.z_ckg = streams.z_mkf = z_T
    streams.z_seg = torch.zeros_like(streams.z_seg) if z_seg is None else z_seg
    streams = model.sample(streams, condition, count, torch.tensor([preset.tau]))
    assert streams.x0_mkf is not None
    fused = model.decoder(streams.x0_mkf, *details)
    scores = model.class_scores(streams.z_seg, condition, *details)
    return (fused.clamp(0, 1) * 255).round()[0].permute(1, 2, 0), scores


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("kind", ["nano", "paper"])
def test_the_runtime_gives_what_eager_sampling_gives(
    bundle: Bundle,
    model: MagicFuse,
    paper_bundle: Bundle,
    small_paper: MagicFuse,
    kind: str,
    backend: str,
) -> None:
    if kind == "paper":
        bundle, model = paper_bundle, small_paper
    preset = model.preset
    size = (preset.height, preset.width)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    for count in preset.steps:
        frame = Fuser(bundle, select(backend), steps=count)(image)
        want, scores = sample_eagerly(model, image, count)
        assert frame.mag_image is not None and frame.mask is not None
        assert np.abs(frame.mag_image - want.numpy()).max() <= 1
        if scores.shape[-2:] == size:
            assert (frame.mask == scores[0].argmax(0).numpy()).mean() > 0.999
        else:  # the graph decides at 1/2
            coarse = F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
            same = frame.mask[::2, ::2] == coarse[0].argmax(0).numpy()
            assert same.mean() > 0.999
            assert frame.confidence is not None
            sure = (scores[0] / model.segmentation.temperature).softmax(0).amax(0).numpy()
            sure = cv2.resize(sure, size[::-1], interpolation=cv2.INTER_LINEAR)
            assert np.abs(frame.confidence - 255 * sure)[8:-8, 8:-8].mean() < 2
            plain = scores[0].softmax(0).amax(0).mean().item()
            assert frame.confidence.mean() > 255 * plain + 4, "the temperature is below 1"


def test_the_published_form_is_a_bundle_that_says_so(paper_bundle: Bundle) -> None:
    manifest = paper_bundle.manifest
    assert manifest.latent_scale == 4 and manifest.z_seg_start == "normal"
    assert [t.name for t in manifest.networks["encoder"].inputs] == ["image", "noise"]
    assert [t.name for t in manifest.networks["encoder"].outputs] == ["condition"]
    assert [t.name for t in manifest.networks["decoder"].inputs] == ["x0"]
    assert manifest.step_grids == {2: [500, 0]}
    assert manifest.schedule.prediction == "epsilon"


def test_no_graph_has_an_operator_that_tensorrt_refuses(
    bundle: Bundle, paper_bundle: Bundle
) -> None:
    refused = {
        "Attention",  # from opset 23: parses but does not build
        "Col2Im",
        "DeformConv",
        "NonZero",
        "ScatterElements",
        "ScatterND",
        "SequenceAt",
        "SplitToSequence",
        "Unique",
    }
    for exported in (bundle, paper_bundle):
        for name in NETWORKS:
            model = onnx.load(exported.path(name))
            assert [o.domain for o in model.opset_import] == [""] and not model.functions, name
            assert model.opset_import[0].version <= 20
            assert not refused & {node.op_type for node in model.graph.node}, name
            resizes = [n for n in model.graph.node if n.op_type == "Resize"]
            options = {a.name: a.i for n in resizes for a in n.attribute}
            assert not options.get("antialias"), name


def test_an_exported_attention_holds_the_scores_of_a_slice_of_the_pixels(
    paper_bundle: Bundle,
) -> None:
    model = onnx.shape_inference.infer_shapes(
        fold_constants(onnx.load(paper_bundle.path("mkf"))), data_prop=True
    )
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info
    }
    scores = [shapes[n.output[0]] for n in model.graph.node if n.op_type == "Softmax"]
    assert scores == [[1, 1, SLICE, 1280], [1, 1, 1280 - SLICE, 1280]] * 2  # one pair per layer


def test_weights_are_stored_as_half_and_named_with_their_cost(bundle: Bundle) -> None:
    for name, spec in bundle.manifest.networks.items():
        model = onnx.load(bundle.path(name))
        large = [t for t in model.graph.initializer if np.prod(t.dims) >= STORED_AS_HALF]
        assert all(t.data_type != onnx.TensorProto.FLOAT for t in large), name
        assert spec.gflop > 0 and spec.parameters > 0
        assert b"magicfuse_training" not in bundle.path(name).read_bytes(), "a path of this machine"
    assert bundle.manifest.provenance.training_minutes == {"ikr": 1.0}


def test_a_bundle_can_be_trained_on(
    bundle: Bundle,
    model: MagicFuse,
    build_model: Callable[[], MagicFuse],
    paper_bundle: Bundle,
    small_paper: MagicFuse,
) -> None:
    other = build_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    load_weights(other, bundle)
    want = {k: v for k, v in model.state_dict().items() if "encoder.latent" not in k}
    got = other.state_dict()
    assert all(torch.equal(got[k], v) for k, v in want.items())

    again = MagicFuse(small_paper.preset)
    load_weights(again, paper_bundle)
    got = again.state_dict()
    assert all(torch.equal(got[k], v) for k, v in small_paper.state_dict().items())

    other.preset = other.preset.model_copy(update={"name": "wide"})
    other.decoder.inlet = torch.nn.Conv2d(9, 9, 3)
    with pytest.raises(
        ValueError, match=r"'decoder\.inlet\.weight' is \(8, 4, 3, 3\); preset 'wide'"
    ):
        load_weights(other, bundle)


def test_the_shipped_bundle_starts_its_preset() -> None:
    shipped = default_bundle()
    model = MagicFuse(load_preset("nano"))
    load_weights(model, Bundle.load(shipped))
    kept = weights_of_bundle(model.preset, shipped)
    assert kept and not any("encoder.latent" in name for name in kept)
    kept = weights_of_bundle(model.preset, shipped, ["ikr."])
    assert kept and not any(name.startswith("ikr.") for name in kept), "renewed parts have no mean"


def test_a_bundle_from_before_the_readout_starts_a_preset_with_it(
    bundle: Bundle, model: MagicFuse, tmp_path: Path
) -> None:
    older = Path(shutil.copytree(bundle.root, tmp_path / "older"))
    graph = onnx.load(older / "mkf.onnx")
    there = list(graph.graph.initializer)
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(i for i in there if "readout" not in i.name)
    assert len(graph.graph.initializer) < len(there)
    onnx.save(graph, older / "mkf.onnx")
    spec = bundle.manifest.networks["mkf"]
    changed = spec.model_copy(update={"sha256": sha256(older / "mkf.onnx")})
    networks = {**bundle.manifest.networks, "mkf": changed}
    write_manifest(older, bundle.manifest.model_copy(update={"networks": networks}))
    again = MagicFuse(model.preset)
    load_weights(again, Bundle.load(older))
    assert again.mkf.readout is not None and not again.mkf.readout.weight.any()
    kept = weights_of_bundle(model.preset, older)
    assert "mkf.readout.weight" in kept, "a mean takes its share of zero"


@torch.no_grad()
def test_a_bundle_with_a_narrower_head_starts_a_wider_one(bundle: Bundle, model: MagicFuse) -> None:
    wider = MagicFuse(model.preset.model_copy(update={"segmentation_width": 12}))
    fresh = wider.segmentation.conv1.weight[8:].clone()
    load_weights(wider, bundle)
    wider.eval()
    image, z_seg = torch.rand(1, 3, 64, 96), torch.randn(1, 11, 8, 12)
    condition, *details = model.encoder(image)
    want, got = (m.class_scores(z_seg, condition, *details) for m in (model, wider))
    torch.testing.assert_close(got, want)
    assert torch.equal(wider.segmentation.conv1.weight[8:], fresh), "they must learn to differ"
    kept = weights_of_bundle(wider.preset, bundle.root)
    assert "segmentation.conv2.weight" not in kept, "a mean with random kernels would spoil them"
    assert "segmentation.conv2.bias" in kept


@torch.no_grad()
def test_a_bundle_with_a_narrower_encoder_starts_a_wider_one(
    bundle: Bundle, model: MagicFuse
) -> None:
    """All that reads its channels weighs the new ones with zero, wherever its own inputs are."""
    more = {"stem_channels": 10, "detail_channels": 12, "condition_channels": 14}
    encoder = model.preset.autoencoder.model_copy(update=more)
    wider = MagicFuse(model.preset.model_copy(update={"autoencoder": encoder}))
    load_weights(wider, bundle)
    wider.eval()
    image, tau = torch.rand(1, 3, 64, 96), torch.tensor([0.5])
    results = []
    for m in (model, wider):
        condition, *details = m.encoder(image)
        found = m.sample(m.start(condition), condition, 1, tau)
        assert found.x0_ckg is not None and found.x0_mkf is not None
        scores = m.class_scores(found.z_seg, condition, *details)
        results.append((m.decoder(found.x0_mkf, *details), found.x0_ckg, scores))
    for want, got in zip(*results, strict=True):
        torch.testing.assert_close(got, want)
    condition, detail, _ = wider.encoder(image)
    assert condition[:, 8:].any() and detail[:, 8:].any(), "they must learn to be of use"
    again = MagicFuse(wider.preset)
    again.load_state_dict(wider.state_dict())
    load_weights(again, bundle, leave_out=["ikr.inlet."])  # which has nothing to leave out
    assert torch.equal(again.ikr.inlet.weight, wider.ikr.inlet.weight)


@torch.no_grad()
def test_the_last_channels_of_an_encoder_can_be_left_out(bundle: Bundle, model: MagicFuse) -> None:
    """A stream's inlet reads the condition, and then a latent, of which nothing is left out."""
    fewer = model.preset.autoencoder.model_copy(update={"condition_channels": 6})
    narrow = MagicFuse(model.preset.model_copy(update={"autoencoder": fewer}))
    readers = ["ikr.inlet.", "ckg.inlet.", "mkf.inlet.", "mkf.readout.", "segmentation."]
    load_weights(narrow, bundle, leave_out=["encoder.", "decoder.merge.", *readers])
    condition, latent = torch.rand(1, 8, 8, 12), torch.rand(1, 4, 8, 12)
    condition[:, 6:] = 0.0
    want = model.ikr.inlet(torch.cat([condition, latent], dim=1))
    got = narrow.ikr.inlet(torch.cat([condition[:, :6], latent], dim=1))
    torch.testing.assert_close(got, want)
    kept = narrow.encoder.coarse[0].conv1.weight
    assert torch.equal(kept, model.encoder.coarse[0].conv1.weight[:6, :6])


@torch.no_grad()
def test_parts_and_channels_can_be_left_out(bundle: Bundle, model: MagicFuse) -> None:
    without = model.preset.autoencoder.model_copy(update={"condition_blocks": 0})
    changes = {"segmentation_width": 6, "autoencoder": without}
    smaller = MagicFuse(model.preset.model_copy(update=changes))
    with pytest.raises(ValueError, match=r"has the weight 'encoder\.context\.last"):
        load_weights(smaller, bundle)
    with pytest.raises(ValueError, match=r"'segmentation\.conv1\.weight' is"):
        load_weights(smaller, bundle, leave_out=["encoder.context.last."])
    load_weights(smaller, bundle, leave_out=["encoder.context.last.", "segmentation."])
    assert torch.equal(smaller.segmentation.conv2.weight, model.segmentation.conv2.weight[:, :6])
    assert torch.equal(smaller.segmentation.scene.bias, model.segmentation.scene.bias[:6])


def test_a_part_that_the_preset_lacks_is_an_error(bundle: Bundle, model: MagicFuse) -> None:
    plain = model.preset.mkf.model_copy(update={"readout": False})
    without = MagicFuse(model.preset.model_copy(update={"mkf": plain}))
    with pytest.raises(ValueError, match=r"has the weight 'mkf\.readout\.\w+'; preset 'small' has"):
        load_weights(without, bundle)


def test_renewed_weights_start_as_if_the_bundle_lacked_them(
    bundle: Bundle, model: MagicFuse
) -> None:
    again = MagicFuse(model.preset)
    fresh = again.state_dict()["encoder.context.deeper.1.0.conv1.weight"].clone()
    load_weights(again, bundle, ["encoder.context.deeper."])
    got, theirs = again.state_dict(), model.state_dict()
    assert torch.equal(got["encoder.context.deeper.1.0.conv1.weight"], fresh)
    assert torch.equal(
        got["encoder.context.down.1.conv1.weight"], theirs["encoder.context.down.1.conv1.weight"]
    )
    with pytest.raises(ValueError, match=r"renew has 'encoder\.contxt'; no weight's name starts"):
        load_weights(again, bundle, ["encoder.contxt"])


def test_a_graph_that_differs_from_eager_is_refused(bundle: Bundle) -> None:
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    wrong = {"condition": torch.ones(1, 8, 8, 12)}
    with pytest.raises(ExportError, match=r"encoder\.onnx: output 'condition' differs from eager"):
        check_graph(bundle.path("encoder"), {"image": image}, wrong)
    with pytest.raises(ExportError, match="'condition' differs from eager by nan"):
        wrong["condition"][:] = torch.nan
        check_graph(bundle.path("encoder"), {"image": image}, wrong)


def test_exports_print_nothing_of_the_library(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with _tracing():
            warnings.warn("treespec is deprecated", FutureWarning, stacklevel=1)
            logger.warning("torchvision is not installed")
        assert not seen and not caplog.records
        logger.warning("elsewhere it may say so")
    assert len(caplog.records) == 1
