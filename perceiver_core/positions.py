"""Position encodings: Fourier features, computed when needed, and trainable tables.

Fourier features are computed in float32 whatever the model's dtype, in upstream's order of operations, and cast after
that: audio phases reach pi * 15360, where float32 is 6.4e-3 off, and the released weights expect these very roundings.
They are never buffers: a buffer would have no values after a meta-device load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def input_positions(index_dims: Sequence[int], device: torch.device) -> Tensor:
    """Positions of a whole grid as the encoder sees it, both ends of [-1, 1] included: (prod(index_dims), d)."""
    axes = [torch.linspace(-1.0, 1.0, n, dtype=torch.float32, device=device) for n in index_dims]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def output_positions(indices: Tensor, index_dims: Sequence[int]) -> Tensor:
    """Positions of flat indices (M,) as the decoder sees them, the right end excluded: -1 + 2 i / n; (M, d).

    This is the published recipe. Upstream's decode without subsampling would use the encoder's positions.
    """
    coordinates = torch.stack(torch.unravel_index(indices.long(), tuple(index_dims)), dim=1)
    return -1 + 2 * coordinates / torch.tensor(index_dims, device=indices.device)


def fourier_features(
    positions: Tensor,
    num_bands: int,
    max_resolution: Sequence[int],
    concat_pos: bool = True,
    sine_only: bool = False,
) -> Tensor:
    """Features of positions (M, d): [positions, sines, cosines], the last two (M, d * num_bands) each.

    The bands of an axis run from 1 to half of its `max_resolution`.
    """
    bands = torch.stack(
        [
            torch.linspace(1.0, resolution / 2, num_bands, dtype=torch.float32, device=positions.device)
            for resolution in max_resolution
        ]
    )  # (d, num_bands)
    phases = math.pi * (positions[:, :, None] * bands).flatten(1)  # (M, d * num_bands)
    waves = [torch.sin(phases)] if sine_only else [torch.sin(phases), torch.cos(phases)]
    return torch.cat([positions, *waves] if concat_pos else waves, dim=-1)


class PositionEncoding(nn.Module):
    """Features of positions on a grid of `index_dims`."""

    def output_size(self) -> int:
        """Channels of the encoding."""
        raise NotImplementedError

    def of_inputs(self, index_dims: Sequence[int], device: torch.device) -> Tensor:
        """Features (N, output_size()) of every position of an input."""
        raise NotImplementedError

    def of_outputs(self, indices: Tensor, index_dims: Sequence[int]) -> Tensor:
        """Features (M, output_size()) of flat indices (M,) of an output."""
        raise NotImplementedError


class PerceiverFourierPositionEncoding(PositionEncoding):
    """Fourier features, float32."""

    def __init__(
        self, num_bands: int, max_resolution: Sequence[int], concat_pos: bool = True, sine_only: bool = False
    ) -> None:
        super().__init__()
        self.num_bands = num_bands
        self.max_resolution = tuple(max_resolution)
        self.concat_pos = concat_pos
        self.sine_only = sine_only

    def output_size(self) -> int:
        d = len(self.max_resolution)
        return d * self.num_bands * (1 if self.sine_only else 2) + (d if self.concat_pos else 0)

    def of_inputs(self, index_dims: Sequence[int], device: torch.device) -> Tensor:
        return self._features(input_positions(index_dims, device))

    def of_outputs(self, indices: Tensor, index_dims: Sequence[int]) -> Tensor:
        return self._features(output_positions(indices, index_dims))

    def _features(self, positions: Tensor) -> Tensor:
        return fourier_features(
            positions, self.num_bands, self.max_resolution, self.concat_pos, self.sine_only
        )


class PerceiverTrainablePositionEncoding(PositionEncoding):
    """One trained row for each index."""

    def __init__(self, index_dims: int | Sequence[int], num_channels: int = 128) -> None:
        super().__init__()
        rows = index_dims if isinstance(index_dims, int) else math.prod(index_dims)
        self.position_embeddings = nn.Parameter(torch.randn(rows, num_channels))

    def output_size(self) -> int:
        return self.position_embeddings.shape[1]

    def of_inputs(self, index_dims: Sequence[int], device: torch.device) -> Tensor:
        return self.position_embeddings

    def of_outputs(self, indices: Tensor, index_dims: Sequence[int]) -> Tensor:
        return self.position_embeddings[indices]


def build_position_encoding(
    position_encoding_type: str,
    trainable_position_encoding_kwargs: Mapping[str, Any] | None = None,
    fourier_position_encoding_kwargs: Mapping[str, Any] | None = None,
) -> PositionEncoding:
    """The encoding of that type, built from the arguments meant for it."""
    if position_encoding_type == "trainable" and trainable_position_encoding_kwargs:
        return PerceiverTrainablePositionEncoding(**trainable_position_encoding_kwargs)
    if position_encoding_type == "fourier" and fourier_position_encoding_kwargs:
        return PerceiverFourierPositionEncoding(**fourier_position_encoding_kwargs)
    raise ValueError(
        "position_encoding_type must be 'fourier' or 'trainable', with its own <type>_position_encoding_kwargs; "
        f"got {position_encoding_type!r}, trainable {trainable_position_encoding_kwargs} and fourier "
        f"{fourier_position_encoding_kwargs}. Give the arguments of the type that you chose."
    )
