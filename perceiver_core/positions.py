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
    """Positions of flat indices (..., M) as the decoder sees them, the right end excluded: -1 + 2 i / n; (..., M, d).

    This is the published recipe. Upstream's decode without subsampling would use the encoder's positions.
    """
    coordinates = torch.stack(torch.unravel_index(indices.long(), tuple(index_dims)), dim=-1)
    return -1 + 2 * coordinates / torch.tensor(index_dims, device=indices.device)


def fourier_features(
    positions: Tensor,
    num_bands: int,
    max_resolution: Sequence[int],
    concat_pos: bool = True,
    sine_only: bool = False,
) -> Tensor:
    """Features of positions (..., M, d): [positions, sines, cosines], the last two (..., M, d * num_bands) each.

    The bands of an axis run from 1 to half of its `max_resolution`.
    """
    bands = torch.stack(
        [
            torch.linspace(1.0, resolution / 2, num_bands, dtype=torch.float32, device=positions.device)
            for resolution in max_resolution
        ]
    )  # (d, num_bands)
    phases = math.pi * (positions[..., None] * bands).flatten(-2)  # (..., M, d * num_bands)
    waves = [torch.sin(phases)] if sine_only else [torch.sin(phases), torch.cos(phases)]
    return torch.cat([positions, *waves] if concat_pos else waves, dim=-1)


class PositionEncoding(nn.Module):
    """Features of positions on a grid of `index_dims`."""

    @property
    def num_dimensions(self) -> int:
        """Dimensions of the grid; 1 for a table that was declared by its length alone."""
        raise NotImplementedError

    def output_size(self) -> int:
        """Channels of the encoding."""
        raise NotImplementedError

    def of_inputs(self, index_dims: Sequence[int], device: torch.device, interpolate: bool = False) -> Tensor:
        """Features (N, output_size()) of every position of an input; only tables can and need to be interpolated."""
        raise NotImplementedError

    def of_outputs(self, indices: Tensor, index_dims: Sequence[int]) -> Tensor:
        """Features (..., M, output_size()) of flat indices (..., M) of an output."""
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

    @property
    def num_dimensions(self) -> int:
        return len(self.max_resolution)

    def output_size(self) -> int:
        d = len(self.max_resolution)
        return d * self.num_bands * (1 if self.sine_only else 2) + (d if self.concat_pos else 0)

    def of_inputs(self, index_dims: Sequence[int], device: torch.device, interpolate: bool = False) -> Tensor:
        self._check(index_dims)
        return self.features(input_positions(index_dims, device))

    def of_outputs(self, indices: Tensor, index_dims: Sequence[int]) -> Tensor:
        self._check(index_dims)
        return self.features(output_positions(indices, index_dims))

    def features(self, positions: Tensor) -> Tensor:
        """Features of any positions (..., M, d)."""
        return fourier_features(
            positions, self.num_bands, self.max_resolution, self.concat_pos, self.sine_only
        )

    def _check(self, index_dims: Sequence[int]) -> None:
        if len(index_dims) != len(self.max_resolution):
            raise ValueError(
                f"max_resolution {self.max_resolution} is for a grid of {len(self.max_resolution)} dimensions; got the "
                f"grid {tuple(index_dims)}. Give one resolution for each dimension: (height, width) for images, "
                "(frames, height, width) for video, (samples,) for sound."
            )


class PerceiverTrainablePositionEncoding(PositionEncoding):
    """One trained row for each index."""

    def __init__(self, index_dims: int | Sequence[int], num_channels: int = 128) -> None:
        super().__init__()
        self.index_dims = (index_dims,) if isinstance(index_dims, int) else tuple(index_dims)
        self.position_embeddings = nn.Parameter(torch.randn(math.prod(self.index_dims), num_channels))

    @property
    def num_dimensions(self) -> int:
        return len(self.index_dims)

    def output_size(self) -> int:
        return self.position_embeddings.shape[1]

    def of_inputs(self, index_dims: Sequence[int], device: torch.device, interpolate: bool = False) -> Tensor:
        table = self.position_embeddings
        if interpolate:
            return self._resized(tuple(index_dims))
        if math.prod(index_dims) != table.shape[0]:
            raise ValueError(
                f"The position table has {table.shape[0]} rows, for the grid {self.index_dims}; got an input of the "
                f"grid {tuple(index_dims)}. Resize the input, or pass interpolate_pos_encoding=True for images."
            )
        return table

    def of_outputs(self, indices: Tensor, index_dims: Sequence[int]) -> Tensor:
        return self.position_embeddings[indices]

    def _resized(self, size: tuple[int, ...]) -> Tensor:
        """The table for an image of another size, (height * width, C); upstream's bicubic, for any two shapes."""
        grid = self.index_dims
        if len(grid) == 1:  # declared by its length: a square, as upstream assumes
            side = math.isqrt(grid[0])
            grid = (side, side)
        if len(size) != 2 or len(grid) != 2 or math.prod(grid) != self.position_embeddings.shape[0]:
            raise ValueError(
                f"Interpolation needs an image and a table of an image; got the grid {size} for the table "
                f"{self.index_dims}. Build the encoding with index_dims=(height, width) where it is not square."
            )
        if size == grid:
            return self.position_embeddings
        table = self.position_embeddings.unflatten(0, grid).permute(2, 0, 1)  # (C, height, width)
        resized = nn.functional.interpolate(table[None], size=size, mode="bicubic", align_corners=False)
        return resized[0].flatten(1).transpose(0, 1)  # (height * width, C)


def build_position_encoding(
    position_encoding_type: str,
    project_pos_dim: int = -1,
    trainable_position_encoding_kwargs: Mapping[str, Any] | None = None,
    fourier_position_encoding_kwargs: Mapping[str, Any] | None = None,
) -> tuple[PositionEncoding, nn.Module]:
    """The encoding of that type, built from the arguments meant for it, and its projection to `project_pos_dim`.

    Upstream sizes the projection by the picture's channels instead of the encoding's (its issue 22769); where that runs
    at all, the two are equal.
    """
    encoding: PositionEncoding
    if position_encoding_type == "trainable" and trainable_position_encoding_kwargs:
        encoding = PerceiverTrainablePositionEncoding(**trainable_position_encoding_kwargs)
    elif position_encoding_type == "fourier" and fourier_position_encoding_kwargs:
        encoding = PerceiverFourierPositionEncoding(**fourier_position_encoding_kwargs)
    else:
        raise ValueError(
            "position_encoding_type must be 'fourier' or 'trainable', with its own <type>_position_encoding_kwargs; "
            f"got {position_encoding_type!r}, trainable {trainable_position_encoding_kwargs} and fourier "
            f"{fourier_position_encoding_kwargs}. Give the arguments of the type that you chose."
        )
    projects = project_pos_dim > 0
    return encoding, nn.Linear(encoding.output_size(), project_pos_dim) if projects else nn.Identity()
