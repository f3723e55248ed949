"""One contract for the networks of every preset: sizes, costs, the method's equations."""

import torch

from magicfuse_ros.schedule import ddim_steps
from magicfuse_training.networks.cost import gflop_per_call, parameters
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset, load_preset

PER_STEP = ("ikr", "ckg", "mkf")


def test_nano_stays_within_its_limits() -> None:
    model = MagicFuse(load_preset("nano")).eval()
    calls = gflop_per_call(model)
    k = model.preset.default_steps
    assert parameters(model) <= 6e6
    assert sum(g * (k if n in PER_STEP else 1) for n, g in calls.items()) <= 10


@torch.no_grad()
def test_every_step_grid_runs_and_keeps_the_sizes(small_model: MagicFuse) -> None:
    preset = small_model.preset
    condition, detail_4, detail_2 = small_model.encoder(torch.rand(2, 3, 64, 96))
    for count in preset.steps:
        streams = small_model.start(condition)
        for step in ddim_steps(preset.schedule, preset.schedule.trailing_timesteps(count)):
            streams = small_model.advance(streams, condition, step, torch.tensor([0.4]))
        for x0 in (streams.x0_ikr, streams.x0_ckg, streams.x0_mkf):
            assert x0 is not None and torch.isfinite(x0).all()
            assert small_model.decoder(x0, detail_4, detail_2).shape == (2, 3, 64, 96)
        assert streams.z_seg.shape == (2, len(preset.classes), 8, 12)
        assert small_model.segmentation(streams.z_seg, detail_4).shape[-2:] == (16, 24)


@torch.no_grad()
def test_tau_caps_the_visible_weight_where_a_thermal_class_is_seen(small_model: MagicFuse) -> None:
    latent = torch.randn(4, 1, 4, 8, 12)
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
        )
        return x0, z_seg, w

    # Lift one thermal class until it wins in half of the pixels.
    _, z_seg, _ = fuse(1.0)
    behind = z_seg[:, small_model.other_ids].amax(1) - z_seg[:, 9]
    small_model.mkf.segproj[-1].bias[9] += behind.median()  # type: ignore[index, operator, union-attr]
    _, z_seg, free = fuse(1.0)
    thermal = small_model.thermal_mask(z_seg)
    assert 0 < thermal.mean() < 1, "the case needs both kinds of pixels"
    thermal_ids = [c.id for c in small_model.preset.classes if c.thermal]
    by_argmax = torch.isin(z_seg.argmax(1, keepdim=True), torch.tensor(thermal_ids))
    assert torch.equal(thermal.bool(), by_argmax)
    _, _, capped = fuse(0.2)
    inside = thermal.bool().expand_as(capped)
    assert capped[inside].max() <= 0.2 < free[inside].max()
    assert torch.equal(capped[~inside], free[~inside])


@torch.no_grad()
def test_saved_and_loaded_weights_give_the_same_output(
    small_model: MagicFuse, small_preset: Preset
) -> None:
    other = MagicFuse(small_preset).eval()
    other.load_state_dict(small_model.state_dict())
    image = torch.rand(1, 3, 64, 96)
    for a, b in zip(small_model.encoder(image), other.encoder(image), strict=True):
        assert torch.equal(a, b)
