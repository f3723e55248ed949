"""The loop that all stages share: time budget, exact state on disk, EMA, progress.

A stage is given minutes, not epochs: the learning rate follows a cosine over the time spent, so
that a run on any machine ends annealed. Killed runs go on from their last checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from magicfuse_training.data.crops import Batch, CropConfig, Crops
from magicfuse_training.networks.model import MagicFuse

LOG_EVERY_S = 20.0
SAVE_EVERY_S = 120.0

Loss = Callable[[MagicFuse, Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Stage:
    """One stage: which networks it trains, on which mix of data, with which losses."""

    name: str
    trained: tuple[str, ...]  # names of sub-networks; all others are frozen
    loss: Loss  # named terms; their sum is minimised
    group_weights: tuple[float, float, float]  # CamVid, MSRS by day, MSRS at night
    learning_rate: float = 2e-3
    crops: CropConfig = field(default_factory=CropConfig)
    frozen_statistics: bool = False  # of batch norms: train exactly the function that will run


def to_device(batch: Batch) -> Batch:
    """Scale images to float32 [0, 1], channels last."""
    images = {"degraded", "clean", "thermal"}
    return {
        k: (v.float() / 255).contiguous(memory_format=torch.channels_last) if k in images else v
        for k, v in batch.items()
    }


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old or the new one whole."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


class Trainer:
    """Runs one stage in `folder`, which holds `last.pt` and `log.jsonl`."""

    def __init__(self, stage: Stage, model: MagicFuse, folder: Path, minutes: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stage, self.model, self.folder = stage, model, folder
        self.seconds = 60 * minutes
        self.ema = copy.deepcopy(model).eval()
        for child in model.children():
            child.eval().requires_grad_(False)
        trained = [model.get_submodule(name) for name in stage.trained]
        for child in trained:
            child.train().requires_grad_(True)
            if stage.frozen_statistics:
                for module in child.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
        parameters = [p for child in trained for p in child.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=1e-2)
        self.parameters = parameters
        self.step, self.elapsed = 0, 0.0
        self.checkpoint = folder / "last.pt"
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.elapsed = state["step"], state["elapsed"]

    def run(self, crops: Crops, workers: int = 1) -> MagicFuse:
        """Train until the budget is spent; return the averaged model in evaluation mode."""
        loader = DataLoader(
            crops, batch_size=None, num_workers=workers, prefetch_factor=6 if workers else None
        )
        batches: Iterator[Batch] = iter(loader)
        means: dict[str, float] = {}
        columns = (
            "{task.description}",
            BarColumn(),
            TimeRemainingColumn(),
            "{task.fields[losses]}",
        )
        with Progress(*columns) as progress:
            bar = progress.add_task(self.stage.name, total=self.seconds, losses="")
            last_save = last_log = last = time.monotonic()
            while self.elapsed < self.seconds:
                for name, value in self._step(next(batches)).items():
                    means[name] = 0.98 * means.get(name, value) + 0.02 * value
                now = time.monotonic()
                self.elapsed, last = self.elapsed + now - last, now
                losses = " ".join(f"{k} {v:.4f}" for k, v in means.items())
                progress.update(bar, completed=self.elapsed, losses=f"step {self.step}  {losses}")
                if now - last_log > LOG_EVERY_S:
                    last_log = now
                    self._log(means)
                if now - last_save > SAVE_EVERY_S:
                    last_save = now
                    self.save()
        self._log(means)
        self.save()
        return self.ema

    def _log(self, means: dict[str, float]) -> None:
        line = json.dumps({"step": self.step, "seconds": round(self.elapsed, 1), **means})
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def _step(self, batch: Batch) -> dict[str, float]:
        progress = min(self.elapsed / self.seconds, 1.0)
        rate = self.stage.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (self.step + 1) / 100)
        with torch.autocast("cpu", torch.bfloat16):
            terms = self.stage.loss(self.model, to_device(batch))
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad()
        if not torch.isfinite(total):  # one bad batch must not spoil hours
            return {}
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        self._average(min(0.999, (1 + self.step) / (20 + self.step)))
        return {k: float(v.detach()) for k, v in terms.items()}

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        ours, theirs = self.ema.state_dict(), self.model.state_dict()
        floats = [k for k in ours if ours[k].is_floating_point()]
        torch._foreach_lerp_([ours[k] for k in floats], [theirs[k] for k in floats], 1 - decay)

    def save(self) -> None:
        """Write the checkpoint."""
        save_atomically(
            {
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "elapsed": self.elapsed,
            },
            self.checkpoint,
        )
