"""Optical flow of one tile."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from perceiver_core.config import PUBLISHED
from tests.bench.task import CAREFUL, DOCUMENTED, FOLDED, PLAIN, Models, Task, Way, random, whole


@torch.no_grad()
def documented(model: Any, patches: Tensor) -> Tensor:
    """As the model's page has it."""
    return model(inputs=patches).logits


@torch.inference_mode()
def careful(model: Any, patches: Tensor, chunk_size: int) -> Tensor:
    """Through the model's own modules: the decoder on chunks of pixels, whose scores stay small."""
    perceiver = model.perceiver
    tokens = perceiver.input_preprocessor(patches)[0]
    latents = perceiver.encoder(perceiver.embeddings(batch_size=len(tokens)), inputs=tokens)[0]
    decoder = perceiver.decoder
    queries = tokens.split(chunk_size, dim=1)
    flow = torch.cat([decoder.decoder(query, latents).logits for query in queries], dim=1)
    return (flow / decoder.rescale_factor).view(len(flow), *decoder.output_image_shape, 2)


@torch.inference_mode()
def plain(model: Any, patches: Tensor) -> Tensor:
    """Ours, in one call."""
    return model(inputs=patches).logits


@torch.inference_mode()
def folded(model: Any, patches: Tensor) -> Tensor:
    """Ours, folded: the queries are made of the inputs, so decode is given them too."""
    return model.decode(model.encode(patches), inputs=patches)


def ways(models: Models, batch: int) -> dict[str, list[Way]]:
    config = models.ours.config
    patches = (random(batch, 2, 27, *config.train_size) * 2 - 1).to(models.dtype)
    pixels = math.prod(config.train_size)
    found = {
        DOCUMENTED: [whole(lambda: documented(models.documented, patches))],
        CAREFUL: [
            whole(
                lambda size=size: careful(models.careful, patches, size),  # type: ignore[misc]
                f"{size:,} pixels at a time",
            )
            for size in (pixels // 16, pixels // 64)
        ],
        PLAIN: [whole(lambda: plain(models.ours, patches))],
    }
    if models.folded is not None:
        found[FOLDED] = [whole(lambda: folded(models.folded, patches))]
    return found


TASKS = (
    Task(
        "flow",
        "Optical flow, one tile of 368x496",
        PUBLISHED["deepmind/optical-flow-perceiver"].config,
        1887,
        "one call",
        ways,
        batches=(1,),
        gpu_batches=(1, 2, 4),
    ),
)
