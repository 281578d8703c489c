"""Output points: which positions of a decoder's output are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

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
            piece = indices[max(start - offset, 0) : max(start - offset + size, 0)]
            if piece.shape[0]:
                pieces[name] = piece
            offset += indices.shape[0]
        yield pieces


@dataclass(frozen=True, eq=False)
class OutputPoints:
    """Which pixels, audio patches and label are decoded; None or False leaves a modality out.

    `image` has flat (t, y, x) indices into the config's output_shape, `audio` indices of patches of samples; in any
    order, repeated or not. Raises ValueError unless they are one-dimensional, integer and not empty.
    """

    image: Tensor | None
    audio: Tensor | None
    label: bool

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

    @classmethod
    def all(cls, config: PerceiverConfig) -> OutputPoints:
        """Everything: every pixel, every audio patch and the label."""
        return cls(
            torch.arange(math.prod(config.output_shape[1:])), torch.arange(config.num_audio_patches), True
        )

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
