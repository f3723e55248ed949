"""The training loop: it learns, keeps to its budget, and goes on where it was killed."""

from pathlib import Path

import torch
from test_data import scene

from magicfuse_training.data.crops import CropConfig, Crops
from magicfuse_training.networks.model import MagicFuse
from magicfuse_training.preset import Preset
from magicfuse_training.stages.stages import STAGES
from magicfuse_training.stages.trainer import Trainer

CONFIG = CropConfig(height=64, width=96, batch=3)


def crops() -> Crops:
    groups = [[scene(True, False)], [scene(True, True)], [scene(False, True)]]
    return Crops(groups, [1.0, 1.0, 1.0], CONFIG, 0)


def test_every_stage_trains_its_own_networks_and_no_other(
    small_preset: Preset, tmp_path: Path
) -> None:
    batch = next(iter(crops()))
    for name, stage in STAGES.items():
        torch.manual_seed(0)
        model = MagicFuse(small_preset)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        terms = Trainer(stage, model, tmp_path / name, minutes=1)._step(batch)
        assert terms and all(v == v for v in terms.values())
        changed = [k for k, v in model.state_dict().items() if not v.equal(before[k])]
        assert all(any(k.startswith(f"{t}.") for k in changed) for t in stage.trained)
        assert all(k.startswith(tuple(f"{t}." for t in stage.trained)) for k in changed)


def test_a_run_learns_within_its_budget_and_resumes(small_preset: Preset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = Trainer(STAGES["autoencoder"], MagicFuse(small_preset), tmp_path, minutes=0.1)
    batch = next(iter(crops()))
    first = sum(trainer._step(batch).values())
    trainer.run(crops(), workers=0)
    assert 6 <= trainer.elapsed < 15
    last = sum(trainer._step(batch).values())
    assert last < 0.9 * first

    again = Trainer(STAGES["autoencoder"], MagicFuse(small_preset), tmp_path, minutes=0.1)
    assert again.elapsed >= 6 and again.step == trainer.step - 1
    for k, v in again.ema.state_dict().items():
        assert torch.isfinite(v.float()).all(), k
    assert not list(tmp_path.glob("*.partial"))


def test_few_step_trains_the_function_that_inference_runs(
    small_preset: Preset, tmp_path: Path
) -> None:
    """Its batches are of several kinds; statistics of one kind are not those of inference."""
    torch.manual_seed(0)
    model = MagicFuse(small_preset)
    trainer = Trainer(STAGES["few_step"], model, tmp_path, minutes=1)
    names = [k for k in model.state_dict() if "running" in k]
    before = {k: model.state_dict()[k].clone() for k in names}
    for _ in range(2):
        trainer._step(next(iter(crops())))
    assert names and all(torch.equal(model.state_dict()[k], before[k]) for k in names)
