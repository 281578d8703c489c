"""Position encodings: Fourier features, computed when needed, and trainable tables.

Fourier features are computed in float32 whatever the model's dtype, in upstream's order of operations, and cast after
that: audio phases reach pi * 15360, where float32 is 6.4e-3 off, and the released weights expect these very roundings.
GPUs round otherwise, and upstream, before 5.23, knows only the CPU's: so the features of each axis, which are few, are
computed on the CPU, and put together on the device. They are never buffers: a buffer would have no values after a
meta-device load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def input_positions(n: int) -> Tensor:
    """Positions of an axis of n as the encoder sees it, both ends of [-1, 1] included: (n,), on the CPU."""
    return torch.linspace(-1.0, 1.0, n, dtype=torch.float32, device="cpu")


def output_positions(n: int) -> Tensor:
    """Positions of an axis of n as the decoder sees it, the right end excluded: -1 + 2 i / n; (n,), on the CPU.

    This is the published recipe. Upstream's decode without subsampling would use the encoder's positions.
    """
    return -1 + 2 * torch.arange(n, device="cpu") / n


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
        tables = [self.of_axis(axis, input_positions(n)) for axis, n in enumerate(index_dims)]
        parts = []
        for axis, table in in_order(tables):
            shape = [1] * len(index_dims) + [table.shape[1]]
            shape[axis] = table.shape[0]
            parts.append(table.to(device).view(shape).expand(*index_dims, -1))
        return torch.cat(parts, dim=-1).flatten(0, -2)  # (N, output_size())

    def of_outputs(self, indices: Tensor, index_dims: Sequence[int]) -> Tensor:
        self._check(index_dims)
        tables = [self.of_axis(axis, output_positions(n)) for axis, n in enumerate(index_dims)]
        coordinates = torch.unravel_index(indices.long(), tuple(index_dims))  # d of (..., M)
        parts = [table.to(indices.device)[coordinates[axis]] for axis, table in in_order(tables)]
        return torch.cat(parts, dim=-1)  # (..., M, output_size())

    def of_axis(self, axis: int, positions: Tensor) -> list[Tensor]:
        """What the positions (n,) of one axis come to: [positions (n, 1)], sines (n, num_bands), [cosines].

        In the features of a grid, each of these stands behind those of the same kind of the axes before.
        """
        last = self.max_resolution[axis] / 2
        bands = torch.linspace(1.0, last, self.num_bands, dtype=torch.float32, device="cpu")
        phases = math.pi * (positions[:, None] * bands)  # (n, num_bands)
        waves = [torch.sin(phases)] if self.sine_only else [torch.sin(phases), torch.cos(phases)]
        return [positions[:, None], *waves] if self.concat_pos else waves

    def _check(self, index_dims: Sequence[int]) -> None:
        if len(index_dims) != len(self.max_resolution):
            raise ValueError(
                f"max_resolution {self.max_resolution} is for a grid of {len(self.max_resolution)} dimensions; got the "
                f"grid {tuple(index_dims)}. Give one resolution for each dimension: (height, width) for images, "
                "(frames, height, width) for video, (samples,) for sound."
            )


def in_order(tables: Sequence[Sequence[Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """The tables of each axis as they stand in the features, with their axis: by kind, then by axis."""
    for kind in zip(*tables, strict=True):
        yield from enumerate(kind)


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
