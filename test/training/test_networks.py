# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""One contract for the networks of every preset: sizes, costs, the method's equations."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from magicfuse_ros.bundle.schedule import ddim_steps
from magicfuse_training.cost import gflop_per_call, parameters, shapes_only
from magicfuse_training.model import MagicFuse
from magicfuse_training.networks.attention import Attention
from magicfuse_training.networks.fusion import FusionNetwork
from magicfuse_training.preset import PRESETS, Preset, load_preset

PER_STEP = ("ikr", "ckg", "mkf")


def gflop_per_frame(model: MagicFuse, steps: int) -> float:
    calls = gflop_per_call(model)
    return sum(g * (steps if n in PER_STEP else 1) for n, g in calls.items())


def test_nano_stays_within_its_limits() -> None:
    model = shapes_only(load_preset("nano"))
    assert parameters(model) <= 6e6
    assert gflop_per_frame(model, model.preset.default_steps) <= 10


def test_edge_stays_within_its_limits() -> None:
    model = shapes_only(load_preset("edge"))
    assert parameters(model.ikr) == pytest.approx(12e6, rel=0.05)
    assert parameters(model.ckg) == pytest.approx(40e6, rel=0.05)
    assert parameters(model.mkf) == pytest.approx(2e6, rel=0.05)
    assert model.preset.default_steps == 2 and gflop_per_frame(model, 2) <= 300
    norms = {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__}
    assert norms == {"BatchNorm2d"}, "others do not fold, and go wrong in FP16"
    assert model.preset.classes == load_preset("nano").classes


def test_paper_has_the_published_size_and_cost() -> None:
    model = shapes_only(load_preset("paper"))
    published = {
        "encoder": 220_968,
        "decoder": 188_163,
        "ikr": 39_652_104,
        "ckg": 517_670_920,
        "mkf": 2_742_148,
        "segmentation": 0,
    }
    assert {n: parameters(model.get_submodule(n)) for n in published} == published
    calls = {n: round(g) for n, g in gflop_per_call(model).items()}
    assert calls == {
        "encoder": 49,
        "ikr": 117,
        "ckg": 1607,
        "mkf": 791,
        "segmentation": 0,
        "decoder": 52,
    }
    preset = model.preset
    assert preset.timesteps(25) == list(range(960, -1, -40))
    assert [c.name for c in preset.classes if c.thermal] == ["person"]


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(p.stem for p in PRESETS.glob("*.yaml")))
def test_every_preset_makes_all_its_outputs_at_full_size(name: str) -> None:
    model = shapes_only(load_preset(name))
    preset = model.preset
    scale = preset.autoencoder.scale
    step = ddim_steps(preset.schedule, preset.timesteps(preset.default_steps))[0]
    with torch.device("meta"):
        condition, *details = model.encoder(torch.zeros(1, 3, 480, 640))
        streams = model.advance(model.start(condition), condition, step, torch.tensor([0.4]))
        latent = (1, preset.autoencoder.latent_channels, 480 // scale, 640 // scale)
        for x0 in (streams.x0_ikr, streams.x0_ckg, streams.x0_mkf):
            assert x0 is not None and x0.shape == latent
            assert model.decoder(x0, *details).shape == (1, 3, 480, 640)
        assert streams.w is not None and streams.w.shape == latent
        assert model.encoder.encode(torch.zeros(1, 3, 480, 640)).shape == latent
        assert streams.z_seg.shape == (1, len(preset.classes), *latent[2:])
        scores = model.class_scores(streams.z_seg, condition, *details)
        assert scores.shape[-2:] == ((120, 160) if details else (480, 640))


@torch.no_grad()
def test_the_published_encoder_takes_its_noise_or_draws_it(small_paper: MagicFuse) -> None:
    image = torch.rand(1, 3, 64, 96)
    noise = torch.randn(1, 4, 16, 24)
    encode = small_paper.encoder.encode
    assert torch.equal(encode(image, noise), encode(image, noise))
    assert not torch.equal(encode(image), encode(image))
    assert encode(image).abs().max() <= 1


@torch.no_grad()
def test_the_published_form_starts_from_gaussian_scores(small_paper: MagicFuse) -> None:
    torch.manual_seed(1)
    streams = small_paper.start(torch.zeros(1, 8, 64, 64))
    assert streams.z_seg.shape == (1, 9, 64, 64)
    assert streams.z_seg.mean().abs() < 0.05 and (streams.z_seg.std() - 1).abs() < 0.05


@torch.no_grad()
@pytest.mark.parametrize("tokens_a_side", [16, 40])
def test_attention_is_the_textbook_formula_on_both_of_its_ways(tokens_a_side: int) -> None:
    torch.manual_seed(0)
    layer = Attention(32, 2, "none", bias=True)
    torch.nn.init.normal_(layer.out.weight)
    x = torch.randn(1, 32, tokens_a_side, tokens_a_side)
    q, k, v = layer.qkv(x).flatten(2).reshape(3, 2, 16, -1).transpose(2, 3)
    scores = (q @ k.transpose(1, 2) / 4).softmax(-1)
    want = x + layer.out((scores @ v).transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(layer(x), want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_fusion_network_never_holds_the_scores_of_all_pixels(small_paper: MagicFuse) -> None:
    z, seg, t = torch.randn(1, 8, 48, 64), torch.randn(1, 9, 48, 64), torch.zeros(1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        small_paper.mkf(z, z, z, torch.cat([z, z], 1), seg, t)
    names = {event.key for event in profile.key_averages()}
    assert any("_scaled_dot_product_flash_attention" in name for name in names), names
    assert not any("softmax" in name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation_width": 24}, "segmentation_width is 24; expected 0"),
        ({"ikr": {"attention": [True]}}, "attention has 1 levels; widths have 4"),
        ({"autoencoder": {"context_channels": [8]}}, "context_channels must be empty"),
        ({"autoencoder": {"condition_blocks": 1}}, "condition_blocks must be 0"),
        ({"segmentation_condition": True}, "segmentation_condition is true; expected false"),
        ({"mkf": {"readout": True}}, "readout is true, and reads the condition"),
    ],
)
def test_presets_that_do_not_hold_together(change: dict[str, Any], message: str) -> None:
    preset = load_preset("paper").model_dump()
    for key, value in change.items():
        preset[key] = {**preset[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ValidationError, match=message):
        Preset.model_validate(preset)


@torch.no_grad()
def test_every_step_grid_runs_and_keeps_the_sizes(small_model: MagicFuse) -> None:
    preset = small_model.preset
    condition, detail_4, detail_2 = small_model.encoder(torch.rand(2, 3, 64, 96))
    for count in preset.steps:
        start, tau = small_model.start(condition), torch.tensor([0.4])
        streams = small_model.sample(start, condition, count, tau)
        for x0 in (streams.x0_ikr, streams.x0_ckg, streams.x0_mkf):
            assert x0 is not None and torch.isfinite(x0).all()
            assert small_model.decoder(x0, detail_4, detail_2).shape == (2, 3, 64, 96)
        assert streams.z_seg.shape == (2, len(preset.classes), 8, 12)
        assert small_model.class_scores(streams.z_seg, condition, detail_4).shape[-2:] == (16, 24)


@torch.no_grad()
def test_tau_caps_the_visible_weight_where_a_thermal_class_is_seen(small_model: MagicFuse) -> None:
    latent = torch.randn(4, 1, 4, 8, 12)
    condition = torch.randn(1, small_model.preset.autoencoder.condition_channels, 8, 12)
    ones = torch.ones(1)

    def fuse(tau: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x0, _, z_seg, w = small_model.fuse(
            (latent[0], latent[1]),
            (latent[2], latent[3]),
            latent[0],
            torch.zeros(1, 11, 8, 12),
            499 * ones,
            0.3 * ones,
            ones,
            torch.tensor([tau]),
            condition,
        )
        return x0, z_seg, w

    # Raise one thermal class until it wins in half of the pixels.
    _, z_seg, _ = fuse(1.0)
    behind = z_seg[:, small_model.other_ids].amax(1) - z_seg[:, 9]
    small_model.mkf.segproj[-1].bias[9] += behind.median()  # type: ignore[index, operator, union-attr]
    _, z_seg, free = fuse(1.0)
    thermal = small_model.thermal_mask(z_seg)
    thermal_ids = [c.id for c in small_model.preset.classes if c.thermal]
    assert torch.allclose(thermal, z_seg.softmax(1)[:, thermal_ids].sum(1, keepdim=True))
    _, _, capped = fuse(0.2)
    assert torch.allclose(capped, thermal * free.clamp(max=0.2) + (1 - thermal) * free, atol=1e-6)

    # As published: the winning class decides.
    fusion = small_model.preset.mkf.model_copy(update={"thermal_mask": "argmax"})
    small_model.preset = small_model.preset.model_copy(update={"mkf": fusion})
    thermal = small_model.thermal_mask(z_seg)
    assert 0 < thermal.mean() < 1, "the case needs both kinds of pixels"
    by_argmax = torch.isin(z_seg.argmax(1, keepdim=True), torch.tensor(thermal_ids))
    assert torch.equal(thermal.bool(), by_argmax)
    _, _, free = fuse(1.0)
    _, _, capped = fuse(0.2)
    inside = thermal.bool().expand_as(capped)
    assert capped[inside].max() <= 0.2 < free[inside].max()
    assert torch.equal(capped[~inside], free[~inside])


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "of_context", "new"),
    [
        ({"segmentation_condition": False}, {}, "segmentation.scene"),
        ({}, {"context_blocks": None}, "encoder.context.deeper"),
        ({}, {"condition_blocks": 0}, "encoder.context.last"),
    ],
)
def test_added_layers_start_without_an_effect(
    small_preset: Preset, change: dict[str, Any], of_context: dict[str, Any], new: str
) -> None:
    """A bundle without them can therefore start a preset with them."""
    smaller = small_preset.autoencoder.model_copy(update=of_context)
    torch.manual_seed(0)
    few = MagicFuse(small_preset.model_copy(update={**change, "autoencoder": smaller})).eval()
    many = MagicFuse(small_preset).eval()
    missing = many.load_state_dict(few.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith(new) for name in missing)
    image, z_seg = torch.rand(1, 3, 64, 96), torch.randn(1, 11, 8, 12)
    (condition, *details), (same, *_) = few.encoder(image), many.encoder(image)
    assert torch.equal(condition, same)
    want, got = (m.class_scores(z_seg, condition, *details) for m in (few, many))
    assert torch.equal(want, got)
    if new == "segmentation.scene":
        torch.nn.init.normal_(many.segmentation.scene.weight)  # type: ignore[union-attr, arg-type]
        assert not torch.equal(want, many.class_scores(z_seg, condition, *details))


@torch.no_grad()
def test_the_readout_starts_at_zero_and_then_adds_to_the_state(small_preset: Preset) -> None:
    """A bundle without it can therefore start one with it."""
    torch.manual_seed(0)
    plain = small_preset.mkf.model_copy(update={"readout": False})
    without = MagicFuse(small_preset.model_copy(update={"mkf": plain})).eval()
    model = MagicFuse(small_preset).eval()
    missing = model.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert missing == ["mkf.readout.weight", "mkf.readout.bias"]
    (step,) = ddim_steps(small_preset.schedule, small_preset.timesteps(1))
    condition = torch.randn(1, 8, 8, 12)

    def state(net: MagicFuse) -> torch.Tensor:
        return net.advance(net.start(condition), condition, step, torch.ones(1)).z_seg

    assert torch.equal(state(model), state(without))
    assert model.mkf.readout is not None
    torch.nn.init.normal_(model.mkf.readout.weight)
    added = model.mkf.readout(condition)
    torch.testing.assert_close(state(model), state(without) + added)


@torch.no_grad()
def test_projections_done_at_once_are_the_chain(small_preset: Preset) -> None:
    widths, scales = [8, 8, 16, 8, 8], [1, 2, 4, 2, 1]
    shape = {"widths": widths, "scales": scales, "attention": [False] * 5}
    torch.manual_seed(0)
    mkf = FusionNetwork(small_preset.mkf.model_copy(update=shape), 8, 4, 11).eval()
    generator = torch.Generator().manual_seed(0)
    z_seg = torch.randn(1, 11, 8, 12, generator=generator)
    features = [
        torch.randn(1, w, 8 // s, 12 // s, generator=generator)
        for w, s in zip(widths, mkf.scales, strict=True)
        for _ in range(2)
    ]
    state = z_seg
    for projection, h in zip(mkf.segproj, features, strict=True):
        if h.shape != z_seg.shape:
            h = F.interpolate(h, size=(8, 12), mode="bilinear", align_corners=False)
        state = projection(torch.cat([h, state], dim=1))
    assert mkf.segproj_kernel == 1
    torch.testing.assert_close(mkf._next_state(features, z_seg), state, atol=1e-5, rtol=1e-5)
    mkf.segproj_kernel = 3  # like the published networks: one after the other
    torch.testing.assert_close(mkf._next_state(features, z_seg), state)
    latent = torch.randn(3, 1, 4, 8, 12, generator=generator)
    noise, condition = torch.cat([*latent[:2]], dim=1), torch.randn(1, 8, 8, 12)
    w, z_seg = mkf(*latent, noise, z_seg, torch.ones(1), condition)
    assert w.shape == (1, 4, 8, 12) and z_seg.shape == (1, 11, 8, 12)


@torch.no_grad()
def test_saved_and_loaded_weights_give_the_same_output(
    small_model: MagicFuse, small_preset: Preset
) -> None:
    other = MagicFuse(small_preset).eval()
    other.load_state_dict(small_model.state_dict())
    image = torch.rand(1, 3, 64, 96)
    for a, b in zip(small_model.encoder(image), other.encoder(image), strict=True):
        assert torch.equal(a, b)
