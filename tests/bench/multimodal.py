"""A clip of video and sound: all of its points, or its label alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from perceiver_core import OutputPoints
from perceiver_core.config import multimodal_perceiver
from tests.bench.measure import DEVICE
from tests.bench.task import CAREFUL, DOCUMENTED, FOLDED, PLAIN, Models, Task, Way, random, whole

NCHUNKS = 128  # as published
Clips = Mapping[str, Tensor]


def clips(config: Any, batch: int) -> dict[str, Tensor]:
    """Random clips of the shapes that the model takes, its label unknown."""
    _, frames, height, width = config.output_shape
    return {
        "image": random(batch, frames, 3, height, width),
        "audio": random(batch, config.num_audio_samples, 1, seed=1) * 2 - 1,
        "label": torch.zeros(batch, config.num_labels, device=DEVICE),
    }


def chunks_of_points(config: Any, nchunks: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels and patches of sound, in as many pieces."""
    pixels = torch.arange(math.prod(config.output_shape[1:]), device=DEVICE)
    patches = torch.arange(
        config.num_frames * config.audio_samples_per_frame // config.samples_per_patch, device=DEVICE
    )
    return zip(pixels.tensor_split(nchunks), patches.tensor_split(nchunks), strict=True)


@torch.no_grad()
def documented(model: Any, inputs: Clips, dtype: torch.dtype, nchunks: int = NCHUNKS) -> Iterator[Any]:
    """As the model's page has it: the whole model for each chunk of points."""
    config = model.config
    image_chunk_size = math.prod(config.output_shape[1:]) // nchunks
    audio_chunk_size = inputs["audio"].shape[1] // config.samples_per_patch // nchunks
    for chunk_idx in range(nchunks):
        subsampling = {
            "image": torch.arange(image_chunk_size * chunk_idx, image_chunk_size * (chunk_idx + 1)),
            "audio": torch.arange(audio_chunk_size * chunk_idx, audio_chunk_size * (chunk_idx + 1)),
            "label": None,
        }
        with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
            outputs = model(inputs=inputs, subsampled_output_points=subsampling)
        yield outputs.logits


@torch.inference_mode()
def careful(model: Any, inputs: Clips, nchunks: int) -> Iterator[Any]:
    """Through the model's own modules: the encoder once, then the decoder on chunks of points."""
    perceiver = model.perceiver
    tokens, sizes, without_positions = perceiver.input_preprocessor(inputs)
    tokens = tokens.to(model.dtype)  # the preprocessor's float32 masks have promoted them
    latents = perceiver.encoder(perceiver.embeddings(batch_size=len(tokens)), inputs=tokens)[0]
    for pixels, patches in chunks_of_points(model.config, nchunks):
        points = {"image": pixels, "audio": patches, "label": None}
        query = perceiver.decoder.decoder_query(tokens, sizes, without_positions, subsampled_points=points)
        logits = perceiver.decoder(query, z=latents).logits
        counts = {"audio": len(patches), "image": len(pixels), "label": 1}
        yield perceiver.output_postprocessor(logits, modality_sizes=counts)


@torch.inference_mode()
def plain(model: Any, inputs: Clips, nchunks: int) -> Iterator[Any]:
    """Ours: encode once, decode chunk by chunk."""
    latents = model.encode(inputs)
    for pixels, patches in chunks_of_points(model.config, nchunks):
        yield model.decode(latents, OutputPoints(pixels, patches, label=True))


@torch.inference_mode()
def folded(model: Any, config: Any, inputs: Clips, chunk_size: int) -> Any:
    """Ours, folded: the same two calls, of all points at once."""
    return model.decode(model.encode(inputs), OutputPoints.all(config), chunk_size=chunk_size)


def all_points(models: Models, batch: int) -> dict[str, list[Way]]:
    config, dtype = models.ours.config, models.dtype
    inputs = clips(config, batch)
    cast = {name: values.to(dtype) for name, values in inputs.items()}
    recipe = partial(documented, models.documented, inputs, dtype)

    def chunked(pieces: Any, model: Any, nchunks: int) -> Way:
        return Way(
            lambda: pieces(model, cast, nchunks),
            lambda: next(pieces(model, cast, NCHUNKS)),
            count=nchunks,
            setting=f"in {nchunks} chunks",
        )

    settings = [n for n in (NCHUNKS, 4 * NCHUNKS, NCHUNKS // 4) if n <= config.num_audio_patches]
    found = {
        DOCUMENTED: [Way(recipe, lambda: next(recipe()), count=NCHUNKS)],
        CAREFUL: [chunked(careful, models.careful, n) for n in settings],
        PLAIN: [chunked(plain, models.ours, n) for n in settings],
    }
    if models.folded is not None:
        found[FOLDED] = [
            Way(
                lambda n=size: iter([folded(models.folded, config, cast, n)]),  # type: ignore[misc]
                lambda: next(plain(models.folded, cast, NCHUNKS)),
                setting=f"chunks of {size:,}",
            )
            for size in (8192, 32768)
        ]
    return found


@torch.inference_mode()
def careful_label(model: Any, inputs: Clips) -> Tensor:
    """The least that the model's own modules decode: the label, and a point each of image and audio."""
    perceiver = model.perceiver
    tokens, sizes, without_positions = perceiver.input_preprocessor(inputs)
    tokens = tokens.to(model.dtype)
    latents = perceiver.encoder(perceiver.embeddings(batch_size=len(tokens)), inputs=tokens)[0]
    one = torch.zeros(1, dtype=torch.long, device=DEVICE)
    points = {"image": one, "audio": one, "label": None}
    query = perceiver.decoder.decoder_query(tokens, sizes, without_positions, subsampled_points=points)
    logits = perceiver.decoder(query, z=latents).logits
    counts = {"audio": 1, "image": 1, "label": 1}
    return perceiver.output_postprocessor(logits, modality_sizes=counts)["label"]


@torch.inference_mode()
def our_label(model: Any, inputs: Clips) -> Tensor:
    """Ours, plain or folded: one query."""
    return model.decode(model.encode(inputs), OutputPoints.labels_only())["label"]


def labels_only(models: Models, batch: int) -> dict[str, list[Way]]:
    inputs, dtype = clips(models.ours.config, batch), models.dtype
    cast = {name: values.to(dtype) for name, values in inputs.items()}

    def one_chunk() -> Tensor:
        """The documented recipe's label is in every one of its chunks: one will do."""
        return next(islice(documented(models.documented, inputs, dtype), 1))["label"]

    found = {
        DOCUMENTED: [whole(one_chunk)],
        CAREFUL: [whole(lambda: careful_label(models.careful, cast))],
        PLAIN: [whole(lambda: our_label(models.ours, cast))],
    }
    if models.folded is not None:
        found[FOLDED] = [whole(lambda: our_label(models.folded, cast))]
    return found


_BFLOAT16 = (
    "In bfloat16 transformers' model raises a RuntimeError of unequal dtypes, since float32 masks promote its tokens: "
    "the documented recipe runs under autocast, the careful user casts the tokens back."
)

TASKS = (
    Task(
        "multimodal",
        "Multimodal, all points of a clip",
        multimodal_perceiver(),
        7470,
        "one encode, and all 804,737 queries once",
        all_points,
        batches=(1, 2),
        gpu_batches=(1, 4, 16),
        documented_casts=False,
        note=_BFLOAT16,
    ),
    Task(
        "video",
        "Video classification, the label of a clip",
        multimodal_perceiver(),
        251,
        "one encode, and one query",
        labels_only,
        batches=(1, 3),
        gpu_batches=(1, 8, 32),
        documented_casts=False,
        note=f"The documented recipe is one of its {NCHUNKS} calls. {_BFLOAT16}",
    ),
)
