"""What is in a token: content of the sample, and positions that are the same for every sample.

A token of a modality is [content | features of its position | padding]. Fourier features of a grid depend on one axis
each, so that their products with a matrix are a sum over axes of small tables. Shapes: N tokens, L latents, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_core.positions import (
    PerceiverFourierPositionEncoding,
    PositionEncoding,
    in_order,
    input_positions,
)


@dataclass(frozen=True)
class Axis:
    """One axis of a grid: which channels of the features it rules, and what they are at each of its positions."""

    channels: Tensor  #: (c,) indices into the features
    features: Tensor  #: (n, c), float64


def fourier_axes(
    encoding: PerceiverFourierPositionEncoding, axes: Sequence[Tensor], device: torch.device
) -> list[Axis]:
    """The axes of Fourier features, at the positions (n,) of each, bit for bit those that the plain model computes."""
    tables = [encoding.of_axis(axis, positions) for axis, positions in enumerate(axes)]
    channels: list[list[Tensor]] = [[] for _ in axes]
    start = 0
    for axis, table in in_order(tables):
        channels[axis].append(torch.arange(start, start + table.shape[1]))
        start += table.shape[1]
    return [
        Axis(torch.cat(own).to(device), torch.cat(parts, dim=1).to(device).double())
        for own, parts in zip(channels, tables, strict=True)
    ]


@dataclass(frozen=True)
class Positions:
    """The positions of one modality's tokens on a grid: by axes, or one row for each token."""

    grid: tuple[int, ...]
    axes: list[Axis]  #: of separable features; empty if there is a table
    table: Tensor | None  #: (N, c), float64
    total: Tensor  #: (N,) the sum of each token's features, float64
    spread: Tensor  #: (N,) and of their squared distances to their own mean
    channels: int

    def scores(self, weight: Tensor) -> list[Tensor]:
        """Tables of features weight^T (weight (L, c)) for each axis: [(L, n)], or one (L, N)."""
        if self.table is not None:
            return [weight @ self.table.T]
        return [weight[:, axis.channels] @ axis.features.T for axis in self.axes]


def positions_on(
    encoding: PositionEncoding, projection: torch.nn.Module, grid: tuple[int, ...], device: torch.device
) -> Positions:
    """The features of an input's positions, as the encoder sees them."""
    is_plain = isinstance(projection, torch.nn.Identity)
    if isinstance(encoding, PerceiverFourierPositionEncoding) and is_plain:
        axes = fourier_axes(encoding, [input_positions(n) for n in grid], device)
        total = _outer_sum([axis.features.sum(1) for axis in axes])
        square = _outer_sum([axis.features.square().sum(1) for axis in axes])
        channels = encoding.output_size()
        return Positions(grid, axes, None, total, square - total.square() / channels, channels)
    features = encoding.of_inputs(grid, device)
    if isinstance(projection, torch.nn.Linear):
        features = torch.nn.functional.linear(
            features.double(), projection.weight.double(), projection.bias.double()
        )
    features = features.detach().double()  # (N, c)
    total = features.sum(1)
    spread = (features - features.mean(1, keepdim=True)).square().sum(1)
    return Positions(grid, [], features, total, spread, features.shape[1])


def _outer_sum(tables: list[Tensor]) -> Tensor:
    """Sums of one entry of each table, for all combinations, flat: (n1 * n2 * ...,)."""
    total = tables[0]
    for table in tables[1:]:
        total = (total[..., None] + table).flatten()
    return total
