"""Image classification."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perceiver_core.config import PUBLISHED
from tests.bench.task import CAREFUL, DOCUMENTED, FOLDED, PLAIN, Models, Task, Way, random, whole


@torch.no_grad()
def documented(model: Any, images: Tensor) -> Tensor:
    """As the model's page has it."""
    return model(inputs=images).logits


@torch.inference_mode()
def careful(model: Any, images: Tensor) -> Tensor:
    """There is nothing to leave out: one call, without autograd's bookkeeping."""
    return model(inputs=images).logits


@torch.inference_mode()
def plain(model: Any, images: Tensor) -> Tensor:
    """Ours, in one call."""
    return model(inputs=images).logits


@torch.inference_mode()
def folded(model: Any, images: Tensor) -> Tensor:
    """Ours, folded."""
    return model.decode(model.encode(images))


def ways(models: Models, batch: int, side: int = 224) -> dict[str, list[Way]]:
    images = (random(batch, 3, side, side) * 4 - 2).to(models.dtype)
    found = {
        DOCUMENTED: [whole(lambda: documented(models.documented, images))],
        CAREFUL: [whole(lambda: careful(models.careful, images))],
        PLAIN: [whole(lambda: plain(models.ours, images))],
    }
    if models.folded is not None:
        found[FOLDED] = [whole(lambda: folded(models.folded, images))]
    return found


def _task(name: str, title: str, gflop: float) -> Task:
    return Task(
        f"image-{name}",
        f"Image classification, {title}, 224x224",
        PUBLISHED[f"deepmind/vision-perceiver-{name}"].config,
        gflop,
        "one call",
        ways,
        batches=(1, 4),
        gpu_batches=(1, 16, 64),
    )


TASKS = (
    _task("fourier", "Fourier positions", 406),
    _task("learned", "learned positions", 478),
    _task("conv", "convolutional", 369),
)
