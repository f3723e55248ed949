# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""SegFormer (arXiv 2105.15203) with random weights, trained on one input and scored.

The network is transformers' own, in the shape MiT-B0: 3.7 M weights, none downloaded. From
random weights, the paper's rate for a pretrained encoder (6e-5) is far too low: here the rate is
ten times that, for all weights, after a warm-up over the first tenth of the steps. The decay is the
paper's, linear to zero. Crops are drawn at random scales and mirrored, as there.

Everything is a function of the seed and the step: the first weights, the crops, dropout. So all
inputs of one seed start alike and see the same crops of the same frames, and a run that was killed
ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from magicfuse_ros.interrupt import Interrupt
from magicfuse_training.arrays import I64, U8
from magicfuse_training.data.classes import IGNORE, PROJECT
from magicfuse_training.data.files import read_image, read_label
from magicfuse_training.errors import TrainingError
from magicfuse_training.metrics.segmentation import Confusion
from magicfuse_training.stages.checkpoint import read_checkpoint, save_atomically
from magicfuse_training.stages.randomness import seed_step

Files = Sequence[tuple[Path, Path]]  # of images and their labels

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 6e-4, 0.01, 1.0
WARM_UP = 0.1  # share of the steps
ZOOM = 2.0  # ratio of the largest scale of a crop to the smallest
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as in SegFormer
SAVE_EVERY_S = 60.0
MIT_B0 = {  # as in the paper's appendix
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [32, 64, 160, 256],
    "num_attention_heads": [1, 2, 5, 8],
    "sr_ratios": [8, 4, 2, 1],
    "mlp_ratios": [4, 4, 4, 4],
    "decoder_hidden_size": 256,
}


@dataclass(frozen=True)
class Budget:
    """What every network gets: steps of `batch` crops of height x width pixels."""

    steps: int
    batch: int
    height: int
    width: int


def crop(image: U8, label: U8, budget: Budget, rng: np.random.Generator) -> tuple[U8, U8]:
    """Return a random part of an image (H, W, 3) and of its label (H, W), at the crop's size.

    The scale is 0.5 to 1, or just as much more as a small image needs to fill the crop.
    """
    height, width = label.shape
    least = max(0.5, budget.height / height, budget.width / width)
    scale = least * ZOOM ** rng.random()
    h, w = (
        min(size, round(wanted / scale))
        for size, wanted in ((height, budget.height), (width, budget.width))
    )
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    mirror = rng.random() < 0.5

    def cut(picture: U8, how: int) -> U8:
        part = picture[y : y + h, x : x + w]
        part = cv2.resize(part, (budget.width, budget.height), interpolation=how)
        return np.asarray(part[:, ::-1] if mirror else part, np.uint8)

    return cut(image, cv2.INTER_LINEAR), cut(label, cv2.INTER_NEAREST_EXACT)


def batch_of(files: Files, budget: Budget, seed: int, step: int) -> tuple[U8, U8]:
    """Return the crops of one step: images (B, H, W, 3) and labels (B, H, W)."""
    crops = []
    for i in range(step * budget.batch, (step + 1) * budget.batch):
        rng = np.random.default_rng([seed, i])
        image, label = files[int(rng.integers(len(files)))]
        crops.append(crop(read_image(image), read_label(label, PROJECT), budget, rng))
    images, labels = zip(*crops, strict=True)
    return np.stack(images), np.stack(labels)


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate of a step."""
    warm_up = max(1, round(WARM_UP * steps))
    return LEARNING_RATE * min((step + 1) / warm_up, 1 - step / steps)


def train(
    files: Files,
    classes: int,
    folder: Path,
    budget: Budget,
    seed: int,
    tell: Callable[[int, float], None],
) -> nn.Module:
    """Train a network, or continue from its checkpoint; return it in evaluation mode.

    Args:
        files: what it learns from.
        classes: number of classes.
        folder: receives its checkpoint, `last.pt`.
        budget: steps, and their crops.
        seed: seed of its first weights, its crops and its dropout.
        tell: called after every step with the number of steps done and a running mean loss.

    Raises:
        TrainingError: for a damaged checkpoint, or a gradient that is not finite.
        KeyboardInterrupt: after Ctrl-C, once the checkpoint is written.
    """
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = SegformerConfig(num_labels=classes, semantic_loss_ignore_index=IGNORE, **MIT_B0)
    model: nn.Module = SegformerForSemanticSegmentation(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    step, mean = 0, math.nan
    path = folder / "last.pt"
    if path.exists():
        state = read_checkpoint(path, {"model", "optimizer", "step", "loss"})
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, mean = state["step"], state["loss"]

    def save() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save_atomically({**weights, "step": step, "loss": mean}, path)

    saved = time.monotonic()
    with Interrupt() as interrupt:
        while step < budget.steps:
            images, labels = batch_of(files, budget, seed, step)
            seed_step(seed, step, 0)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, budget.steps)
            loss = train_step(model, optimizer, prepared(images, device), targets(labels, classes))
            step += 1
            if not math.isfinite(loss):
                raise TrainingError(f"the loss of '{folder}' is {loss} in step {step}")
            mean = loss if math.isnan(mean) else 0.95 * mean + 0.05 * loss
            tell(step, mean)
            if interrupt.asked:
                save()
                raise KeyboardInterrupt(
                    f"interrupted after step {step} of '{folder}'; the same command resumes there"
                )
            if time.monotonic() - saved > SAVE_EVERY_S or step == budget.steps:
                save()
                saved = time.monotonic()
    return model.eval()


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> float:
    """Do one step; return its loss, the mean cross-entropy over the known pixels.

    Labels are (B, H, W) int64. A batch without a known pixel changes nothing; its loss is 0.
    """
    if not (labels != IGNORE).any():
        return 0.0
    loss: Tensor = model(pixel_values=images, labels=labels.to(images.device)).loss
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.item()


def prepared(images: U8, device: torch.device) -> Tensor:
    """Return RGB images (B, H, W, 3) as the network's input (B, 3, H, W) float32."""
    values = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, DEVIATION))
    return (values - mean) / deviation


def targets(labels: U8, classes: int) -> Tensor:
    """Return labels as int64; a set of classes, one of which is right, counts as not known."""
    ids = torch.from_numpy(labels.astype(np.int64))
    return ids.masked_fill(ids >= classes, IGNORE)


@torch.no_grad()
def confusions(model: nn.Module, files: Files, classes: int) -> I64:
    """Score whole images at their own size; return a matrix for each: see `Confusion`."""
    device = next(model.parameters()).device
    known: dict[tuple[Path, Path], I64] = {}  # the clean image of a frame serves all conditions
    for image, label in files:
        if (image, label) in known:
            continue
        truth = read_label(label, PROJECT)
        logits = model(pixel_values=prepared(read_image(image)[None], device)).logits
        logits = F.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)
        confusion = Confusion(classes)
        confusion.add(truth, logits[0].argmax(0).to(torch.uint8).cpu().numpy())
        known[image, label] = confusion.matrix
    return np.stack([known[pair] for pair in files])
