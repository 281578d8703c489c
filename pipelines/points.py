"""Output points of the multimodal model as a job says them; in rows they are dense, or indices and values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.describing import column, option
from pipelines.labels import most_likely

#: How a job says them.
CHOICES = "all, {grid: s}, {frames: [...]}, {region: [top, left, height, width]}, the last two, or {random: k, seed: s}"
Output = Literal["video", "audio", "labels"]
OUTPUTS: tuple[Output, ...] = get_args(Output)

_MEANINGS = {
    "video": "pixels, RGB from 0 to 255: (frames, height, width, 3), or (points, 3) where they are no box",
    "video_indices": "where each pixel is in the window: its flat (t, y, x) index",
    "audio": "samples from -1 to 1; null where the item has no sound",
    "audio_indices": "which patches of samples there are, counted from the window's first",
}
_AUDIO_CHANNELS = 385  # of the audio query's Fourier features, the widest but for the label's


@dataclass(frozen=True)
class Points:
    """Some of a window's pixels: a grid, some frames, a rectangle of all or of some frames, or a random draw.

    Sound is decoded during the frames that are chosen, so of a grid and of a random draw all of it is.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    grid: int | tuple[int, int, int] | None = option(
        None, "every n-th row and column, or strides of (t, y, x)"
    )
    frames: tuple[int, ...] | None = option(None, "counted from 0, increasing")
    region: tuple[int, int, int, int] | None = option(None, "top, left, height, width")
    random: int | None = option(None, "so many pixels, the same ones in every window")
    seed: int | None = option(None, "of the random draw; none is 0")

    def __post_init__(self) -> None:
        chosen = [name for name in ("grid", "random") if getattr(self, name) is not None]
        if self.frames is not None or self.region is not None:
            chosen.append("frames or region")
        if len(chosen) != 1:
            raise ValueError(f"points must be {CHOICES}; got {' and '.join(chosen) or 'none of them'}.")
        if self.seed is not None and self.random is None:
            raise ValueError("points: seed is that of random: k; leave it out, or choose random points.")


Chosen = Literal["all"] | Points


def check_outputs(outputs: Sequence[Output]) -> None:
    """Raise ValueError unless at least one output is named, and each once."""
    if not outputs or len(set(outputs)) != len(outputs):
        raise ValueError(
            f"outputs must name each of {', '.join(OUTPUTS)} at most once, and at least one; got {list(outputs)}."
        )


def output_points(points: Chosen, outputs: Sequence[Output], config: PerceiverConfig) -> Any:
    """What is decoded, as OutputPoints. Raises ValueError where the checkpoint's output has no such points."""
    from perceiver_core.output_points import OutputPoints

    if list(outputs) == ["labels"]:
        return OutputPoints.labels_only()
    sound = {"audio": "audio" in outputs, "label": "labels" in outputs}
    if isinstance(points, str):
        every = OutputPoints.all(config)
        found = replace(every, audio=every.audio if sound["audio"] else None, label=sound["label"])
    elif points.grid is not None:
        found = OutputPoints.grid(config, points.grid, **sound)
    elif points.random is not None:
        found = OutputPoints.random(config, points.random, points.seed or 0, **sound)
    elif points.region is not None:
        found = OutputPoints.region(config, *points.region, points.frames, **sound)
    else:
        found = OutputPoints.frames(config, points.frames or (), **sound)
    return found if "video" in outputs else replace(found, image=None, image_shape=None)


def tensor_fields(points: Chosen, outputs: Sequence[Output], config: PerceiverConfig) -> list[pa.Field]:
    """The columns of decoded video and audio: values, and beside sparse ones `<name>_indices`.

    Pixels that are no box have flat (t, y, x) indices, sound that is not all there those of its patches of
    config.samples_per_patch samples.
    """
    _, frames, height, width = config.output_shape
    if points == "all" or not {"video", "audio"} & {*outputs}:  # without torch
        every = {"video": (pa.uint8(), [frames, height, width, 3])}
        every["audio"] = (pa.float32(), [config.num_audio_patches * config.samples_per_patch])
        return [_tensor(name, *every[name]) for name in ("video", "audio") if name in outputs]
    found = output_points(points, outputs, config)
    fields = []
    if found.image is not None and found.image_shape is not None:
        fields.append(_tensor("video", pa.uint8(), [*found.image_shape, 3]))
    elif found.image is not None:
        fields.append(_tensor("video", pa.uint8(), [len(found.image), 3]))
        fields.append(_tensor("video_indices", pa.int32(), [len(found.image)]))
    if found.audio is not None:
        patches = len(found.audio)
        fields.append(_tensor("audio", pa.float32(), [patches * config.samples_per_patch]))
        if patches < config.num_audio_patches:
            fields.append(_tensor("audio_indices", pa.int32(), [patches]))
    return fields


def decode_points(
    model: Any, latents: Any, points: Chosen, outputs: Sequence[Output], top_k: int, chunk: int
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Latents (B, L, D) -> video (uint8) and audio (float32) as tensors on the device, labels and scores as arrays."""
    import torch

    found = output_points(points, outputs, model.config)
    decoded = model.decode(latents, found, chunk_size=chunk)
    tensors = {}
    if "image" in decoded:
        pixels = decoded["image"].float().clamp(0, 1).mul(255).round().to(torch.uint8)  # B, M, 3
        tensors["video"] = pixels.unflatten(1, found.image_shape) if found.image_shape else pixels
    if "audio" in decoded:
        tensors["audio"] = decoded["audio"].float()  # B, S
    return tensors, most_likely(decoded["label"], top_k, model.config) if "label" in decoded else {}


def indices(
    points: Chosen, outputs: Sequence[Output], rows: int, config: PerceiverConfig
) -> Mapping[str, npt.NDArray[np.int32]]:
    """The columns of indices (rows, M), of a window's points in every row."""
    named = [field.name for field in tensor_fields(points, outputs, config)]
    if not {"video_indices", "audio_indices"} & {*named}:
        return {}
    found = output_points(points, outputs, config)
    every = {"video_indices": found.image, "audio_indices": found.audio}
    return {
        name: np.broadcast_to(every[name].numpy().astype(np.int32), (rows, len(every[name])))
        for name in named
        if name in every
    }


def chunk_of(
    points: Chosen, outputs: Sequence[Output], config: PerceiverConfig, batch: int, budget: int
) -> int:
    """How many points a call of the decoder may have within `budget` bytes."""
    if points == "all":
        _, frames, height, width = config.output_shape
        sizes = {"video": frames * height * width, "audio": config.num_audio_patches, "labels": 1}
        count = sum(sizes[name] for name in outputs)
    else:
        count = sum(output_points(points, outputs, config).sizes.values())
    query = max(_AUDIO_CHANNELS, config._label_trainable_num_channels) + 2
    # A point holds a row of scores and, at once, about four rows of its query's width, in float32.
    most = max(1, budget // (4 * batch * (config.num_latents + 4 * query)))
    return -(-count // -(-count // most))  # equal calls, so that the last one is padded least


def _tensor(name: str, type: pa.DataType, shape: Sequence[int]) -> pa.Field:
    return column(name, pa.fixed_shape_tensor(type, list(shape)), _MEANINGS[name])
