"""Output points: which positions of a decoder's output are computed."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from perceiver_core.config import PerceiverConfig

#: Flat indices (M,) or (B, M) into the output's grid; of several modalities, those of each, None standing for all.
Points = Tensor | Mapping[str, Tensor | None]


def check_points(points: Tensor, grid: Sequence[int]) -> None:
    """Raises ValueError unless `points` (M,) or (B, M) are indices that an output of that grid has."""
    _check_indices("Output", points)
    if points.ndim > 2:
        raise ValueError(
            f"Output points must have shape (points,) or (batch, points); got {tuple(points.shape)}. "
            "Use flat indices: flatten()."
        )
    if torch.compiler.is_compiling() or points.is_meta:  # what follows looks at values
        return
    low, high, size = int(points.min()), int(points.max()), math.prod(grid)
    if low < 0 or high >= size:
        raise ValueError(
            f"Output points must be from 0 to {size - 1}, flat indices into {tuple(grid)}; got {low} to {high}."
        )


def check_modalities(points: Mapping[str, Tensor | None], modalities: Iterable[str]) -> None:
    """Raises ValueError unless the points are of at least one of the modalities, and of no other."""
    unknown = sorted(points.keys() - set(modalities))
    if unknown or not points:
        raise ValueError(
            f"Output points must be of some of the modalities {sorted(modalities)}; got {unknown or 'none'}."
        )


def chunks(points: Points, size: int) -> Iterator[Points]:
    """Cuts points, in the order in which they are decoded, into pieces of `size`; the last may be smaller."""
    if size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {size}. Use None for one chunk of everything.")
    if isinstance(points, Tensor):
        yield from points.split(size, dim=-1)
        return
    every = {name: cast(Tensor, points[name]) for name in sorted(points) if points[name] is not None}
    for start in range(0, sum(indices.shape[-1] for indices in every.values()), size):
        pieces, offset = {}, 0
        for name, indices in every.items():
            piece = indices[..., max(start - offset, 0) : max(start - offset + size, 0)]
            if piece.shape[-1]:
                pieces[name] = piece
            offset += indices.shape[-1]
        yield pieces


@dataclass(frozen=True, eq=False)
class OutputPoints:
    """Which pixels, audio patches and label are decoded; None or False leaves a modality out.

    `image` has flat (t, y, x) indices into the config's output_shape, `audio` indices of patches of samples; in any
    order, repeated or not. Raises ValueError unless they are one-dimensional, integer and not empty.

    `all`, `grid`, `frames`, `region` and `random` make those of a config, increasing and each once; all but the first
    take audio=False and label=False to leave these out. Where the pixels form a box, `image_shape` is its (T, H, W):
    logits["image"].unflatten(1, points.image_shape).
    """

    image: Tensor | None
    audio: Tensor | None
    label: bool
    image_shape: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        for name, indices in (("image", self.image), ("audio", self.audio)):
            if indices is None:
                continue
            _check_indices(name, indices)
            if indices.ndim != 1:
                raise ValueError(
                    f"{name} points must have shape (points,); got {tuple(indices.shape)}. Use flat indices: flatten()."
                )
        if not self.sizes:
            raise ValueError(
                "Output points must have at least one of image, audio and label; got none of them."
            )
        pixels = 0 if self.image is None else self.image.shape[0]
        shape = self.image_shape
        if shape is not None and (len(shape) != 3 or math.prod(shape) != pixels):
            raise ValueError(
                f"image_shape must be (T, H, W) of as many points as image has, {pixels}; got {shape}. "
                "Use None for points that are no grid."
            )

    @property
    def indices(self) -> dict[str, Tensor]:
        """Indices of each modality that is decoded, in the order in which they are decoded; the label's is 0."""
        label = torch.zeros(1, dtype=torch.long) if self.label else None
        every = {"audio": self.audio, "image": self.image, "label": label}
        return {name: indices for name, indices in every.items() if indices is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """Points of each modality that is decoded, in the same order."""
        return {name: indices.shape[0] for name, indices in self.indices.items()}

    def coordinates(self, config: PerceiverConfig) -> Tensor:
        """The pixels' (t, y, x), (M, 3). Raises ValueError where there are none, or the config has not all of them."""
        if self.image is None:
            raise ValueError(
                "Coordinates are those of pixels; got points without any. Audio indices are times as they are."
            )
        grid = _video(config)
        check_points(self.image, grid)
        return torch.stack(torch.unravel_index(self.image.long(), grid), dim=-1)  # (M, 3)

    @classmethod
    def all(cls, config: PerceiverConfig) -> OutputPoints:
        """Everything: every pixel, every audio patch and the label."""
        grid = _video(config)
        return cls(torch.arange(math.prod(grid)), torch.arange(config.num_audio_patches), True, grid)

    @classmethod
    def grid(
        cls,
        config: PerceiverConfig,
        stride: int | tuple[int, int, int],
        *,
        audio_stride: int = 1,
        audio: bool = True,
        label: bool = True,
    ) -> OutputPoints:
        """Every stride-th row and column of every frame, or with (t, y, x) strides of every t-th; from the first on.

        Sound is not thinned out with the picture: of its patches, every `audio_stride`-th.
        """
        strides = (1, stride, stride) if _is_whole(stride) else stride
        if not isinstance(strides, Sequence) or len(strides) != 3:
            raise ValueError(
                f"stride must be a whole number, or three for (t, y, x); got {stride!r}. Use (1, 4, 4) or 4."
            )
        times, rows, columns = (
            range(0, size, _whole("stride", step, 1, None, "Use 1 to leave nothing out."))
            for size, step in zip(_video(config), strides, strict=True)
        )
        audio_step = _whole(
            "audio_stride", audio_stride, 1, None, "Use 1 for every patch, audio=False for none."
        )
        patches = range(0, config.num_audio_patches, audio_step)
        return _box(config, times, rows, columns, patches if audio else None, label)

    @classmethod
    def frames(
        cls, config: PerceiverConfig, frames: int | Iterable[int], *, audio: bool = True, label: bool = True
    ) -> OutputPoints:
        """Every pixel of these frames, increasing and counted from 0, and the audio patches that sound during them."""
        _, height, width = _video(config)
        return cls.region(config, 0, 0, height, width, frames, audio=audio, label=label)

    @classmethod
    def region(
        cls,
        config: PerceiverConfig,
        top: int,
        left: int,
        height: int,
        width: int,
        frames: int | Iterable[int] | None = None,
        *,
        audio: bool = True,
        label: bool = True,
    ) -> OutputPoints:
        """A rectangle of these frames, by default of all, and the audio patches that sound during them."""
        every_frame, every_row, every_column = _video(config)
        within = f"The output has {every_row} rows and {every_column} columns, counted from 0."
        top = _whole("top", top, 0, every_row - 1, within)
        left = _whole("left", left, 0, every_column - 1, within)
        rows = range(top, top + _whole("height", height, 1, every_row - top, within))
        columns = range(left, left + _whole("width", width, 1, every_column - left, within))
        chosen = range(every_frame) if frames is None else _frames(frames, every_frame)
        return _box(config, chosen, rows, columns, _patches_during(config, chosen) if audio else None, label)

    @classmethod
    def random(
        cls,
        config: PerceiverConfig,
        k: int,
        seed: int,
        *,
        audio_k: int | None = None,
        audio: bool = True,
        label: bool = True,
    ) -> OutputPoints:
        """k different pixels, the seed's on every machine, and those of a smaller k among them.

        Audio patches are all there are, or `audio_k` drawn alike; the pixels are the same with any sound.
        """
        generator = torch.Generator().manual_seed(_whole("seed", seed, 0, 2**63 - 1, "Use 0."))
        image = _draw(math.prod(_video(config)), "k", k, generator)
        patches = config.num_audio_patches
        drawn = _draw(patches, "audio_k", patches if audio_k is None else audio_k, generator)
        return cls(image, drawn if audio else None, label)

    @classmethod
    def labels_only(cls) -> OutputPoints:
        """The label and nothing else: one query."""
        return cls(None, None, True)

    @classmethod
    def from_hf(cls, subsampled_output_points: Mapping[str, Tensor | None]) -> OutputPoints:
        """From upstream's dict: {"image": indices, "audio": indices, "label": None}, where the label is always decoded.

        Upstream needs image and audio; here a missing key or None leaves them out.
        """
        unknown = sorted(set(subsampled_output_points) - {"image", "audio", "label"})
        if unknown or subsampled_output_points.get("label") is not None:
            raise ValueError(
                "subsampled_output_points may have indices for 'image' and 'audio', and None for 'label'; "
                f"got {unknown or 'indices for the label'}. The label has one point and is always decoded."
            )
        return cls(subsampled_output_points.get("image"), subsampled_output_points.get("audio"), True)

    @classmethod
    def requested(
        cls, config: PerceiverConfig, subsampled_output_points: Mapping[str, Tensor | None] | None
    ) -> OutputPoints:
        """What a forward decodes: upstream's dict, or everything without one."""
        return cls.all(config) if subsampled_output_points is None else cls.from_hf(subsampled_output_points)


def published_chunks(config: PerceiverConfig, nchunks: int = 128) -> Iterator[OutputPoints]:
    """The published recipe: consecutive equal pieces of image and audio, with the label in every one.

    Raises ValueError unless nchunks divides both; the recipe would drop the rest.
    """
    every = OutputPoints.all(config).indices
    image, audio = every["image"], every["audio"]
    if nchunks < 1 or image.shape[0] % nchunks or audio.shape[0] % nchunks:
        raise ValueError(
            f"nchunks must divide {image.shape[0]} pixels and {audio.shape[0]} audio patches; got {nchunks}. "
            "For pieces of any size use decode(..., chunk_size=...)."
        )
    pieces = zip(image.chunk(nchunks), audio.chunk(nchunks), strict=True)
    return (OutputPoints(image_piece, audio_piece, True) for image_piece, audio_piece in pieces)


def _check_indices(name: str, indices: Tensor) -> None:
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(
            f"{name} points must be integer indices; got {indices.dtype}. Use torch.arange or mask.nonzero()."
        )
    if indices.ndim == 0 or indices.numel() == 0:
        raise ValueError(
            f"{name} points must not be empty; got shape {tuple(indices.shape)}. "
            f"Use None to leave {name} out, or every point's index."
        )


def _video(config: PerceiverConfig) -> tuple[int, int, int]:
    """Frames, height and width of the output."""
    return cast(tuple[int, int, int], tuple(config.output_shape[1:]))


def _box(
    config: PerceiverConfig,
    frames: Sequence[int],
    rows: Sequence[int],
    columns: Sequence[int],
    patches: Sequence[int] | None,
    label: bool,
) -> OutputPoints:
    """The pixels where these frames, rows and columns meet."""
    _, height, width = _video(config)
    t, y, x = (torch.tensor(lines) for lines in (frames, rows, columns))
    image = (t[:, None, None] * height + y[:, None]) * width + x  # (T, H, W)
    shape = (len(frames), len(rows), len(columns))
    return OutputPoints(image.flatten(), None if patches is None else torch.tensor(patches), label, shape)


def _frames(frames: int | Iterable[int], every_frame: int) -> list[int]:
    if not isinstance(frames, Iterable):
        frames = [frames]
    elif isinstance(frames, Tensor):
        frames = frames.flatten()
    last = every_frame - 1
    hint = f"Frames are counted from 0, and the last is {last}."
    chosen = [_whole("Each of frames", frame, 0, last, hint) for frame in frames]
    if not chosen or any(one >= other for one, other in pairwise(chosen)):
        raise ValueError(
            f"frames must be increasing, each once, and at least one; got {chosen}. Use sorted(set(frames))."
        )
    return chosen


def _patches_during(config: PerceiverConfig, frames: Sequence[int]) -> list[int]:
    """The audio patches that any of the frames hears a part of; all frames last equally long."""
    samples = config.num_audio_samples
    per_patch = config.samples_per_patch * _video(config)[0]  # in samples times frames, where all is whole
    sounding = set[int]()
    for frame in frames:
        first, end = frame * samples // per_patch, -(-(frame + 1) * samples // per_patch)
        sounding.update(range(first, min(end, config.num_audio_patches)))
    if not sounding:
        raise ValueError(
            f"At least one of {config.num_audio_patches} audio patches must sound during the frames; got none for "
            f"{list(frames)}. Leave sound out: audio=False."
        )
    return sorted(sounding)


def _draw(points: int, name: str, k: int, generator: torch.Generator) -> Tensor:
    k = _whole(name, k, 1, points, f"Each of {points} points is drawn at most once.")
    return torch.randperm(points, generator=generator)[:k].sort().values  # (k,)


def _is_whole(value: Any) -> bool:
    # True and False are numbers to Python; here they would be a mask where indices belong
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        return False
    try:
        operator.index(value)
    except (TypeError, RuntimeError):
        return False
    return True


def _whole(name: str, value: Any, low: int, high: int | None, hint: str) -> int:
    limits = f"{low} or more" if high is None else f"from {low} to {high}"
    if (
        not _is_whole(value)
        or operator.index(value) < low
        or (high is not None and operator.index(value) > high)
    ):
        raise ValueError(f"{name} must be a whole number, {limits}; got {value!r}. {hint}")
    return operator.index(value)
