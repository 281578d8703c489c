"""Output points: which positions of the multimodal decoder's output are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_core.config import PerceiverConfig


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
            if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
                raise ValueError(
                    f"{name} points must be integer indices; got {indices.dtype}. Use torch.arange or mask.nonzero()."
                )
            if indices.ndim != 1:
                raise ValueError(
                    f"{name} points must have shape (points,); got {tuple(indices.shape)}. Use flat indices: flatten()."
                )
            if indices.numel() == 0:
                raise ValueError(
                    f"{name} points must not be empty; got 0 points. Use None to leave {name} out."
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

    def check_range(self, config: PerceiverConfig) -> None:
        """Raises ValueError for an index that the config's output does not have."""
        limits = {"image": math.prod(config.output_shape[1:]), "audio": config.num_audio_patches, "label": 1}
        for name, indices in self.indices.items():
            low, high = int(indices.min()), int(indices.max())
            if low < 0 or high >= limits[name]:
                raise ValueError(
                    f"{name} points must be from 0 to {limits[name] - 1}; got {low} to {high}. Image points are flat "
                    f"(t, y, x) indices into {config.output_shape[1:]}, audio points are patches of "
                    f"{config.samples_per_patch} samples."
                )

    def chunks(self, size: int) -> Iterator[OutputPoints]:
        """Cuts the points, in the order in which they are decoded, into pieces of `size`; the last may be smaller."""
        if size < 1:
            raise ValueError(
                f"chunk_size must be at least 1; got {size}. Use None for one chunk of everything."
            )
        for start in range(0, sum(self.sizes.values()), size):
            pieces, offset = {}, 0
            for name, indices in self.indices.items():
                piece = indices[max(start - offset, 0) : max(start - offset + size, 0)]
                if piece.shape[0]:
                    pieces[name] = piece
                offset += indices.shape[0]
            yield OutputPoints(pieces.get("image"), pieces.get("audio"), "label" in pieces)


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
