"""The decoder, for queries that no sample is in: scores from small tables, and an MLP whose input is never formed.

A query is [features of its position | padding], so that per clip and modality the scores of a point with the latents
are a sum of one table row for each axis, times the query's constant 1/s. Of the attended values a (v), the hidden
units are (W a)/s' + c with s'^2 the mean square of T a, T triangular, and nothing after the activation is non-linear:
the MLP's second layer, the decoder's final layer and the postprocessor are one thin matrix.
Shapes: B batch, N latents, M output points, C channels of a query, v of a value, h hidden units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perceiver_core.attention import PerceiverLayer
from perceiver_core.folding.algebra import Affine, centred, chain, projections, wide
from perceiver_core.folding.linear import linear
from perceiver_core.folding.tokens import Axis

#: Points at a time: on a CPU what they need stays in the caches.
BLOCK = {"cpu": 2048, "cuda": 1 << 16}
STRIPS = 4  # of T, each as long as it has to be: they save 3/8 of its product, and narrower ones cost more


@dataclass(frozen=True)
class Queries:
    """The queries of one modality: features by the axes of a grid, then padding, both float64."""

    grid: tuple[int, ...]
    axes: list[Axis]
    padding: Tensor  #: (p,)
    channels: int  #: of the features


class FoldedQueries:
    """One modality's constants."""

    def __init__(
        self, queries: Queries, layer: PerceiverLayer, tail: Affine, dtype: torch.dtype, scores: torch.dtype
    ) -> None:
        """`tail` is what follows the layer, (outputs, C): the final layer and this modality's postprocessor."""
        self.grid = queries.grid
        p = projections(layer)
        scale = 1 / math.sqrt(p.query.weight.shape[0])
        weight = centred(p.query.weight) * scale  # (qk, C)
        of_features, of_padding = weight.split([queries.channels, queries.padding.shape[0]], dim=1)
        # What the keys are multiplied with: each axis's rows, the padding, the bias.
        rows = [axis.features @ of_features[:, axis.channels].T for axis in queries.axes]  # [(n, qk)]
        rows[0] = rows[0] + of_padding @ queries.padding
        self.rows = [(table @ p.key.weight).to(scores) for table in rows]  # [(n, D)]: of normalised latents
        self.row_biases = [(table @ p.key.bias).to(scores) for table in rows]  # [(n,)]
        bias = p.query.bias * scale
        self.bias = ((bias @ p.key.weight).to(scores), (bias @ p.key.bias).to(scores))
        self.sums = [
            (axis.features.sum(1), axis.features.square().sum(1)) for axis in queries.axes
        ]  # float64, [(n,), (n,)]
        self.padding_sums = (queries.padding.sum(), queries.padding.square().sum())
        self.width = weight.shape[1]
        self.eps = layer.attention.self.layernorm1.eps
        self.tail = chain(tail, p.last).to(dtype)  # of hidden units
        self.direct = chain(tail, p.output)  # of values; its bias counts the tail's once more
        self.direct = Affine(self.direct.weight, self.direct.bias - tail.bias).to(scores)
        self.scores = scores

    def table(self, normalised: Tensor) -> Tensor:
        """Of one clip's latents (N, D): scores for each entry of each axis, and their constant (sum of n + 1, N)."""
        rows = [
            linear(rows, normalised) + bias[:, None]
            for rows, bias in zip(self.rows, self.row_biases, strict=True)
        ]
        return torch.cat([*rows, (normalised @ self.bias[0] + self.bias[1])[None]])

    def bags(self, entries: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """For points with these entries (M,) on each axis: the rows that they sum (M, axes + 1), and their weights."""
        inverse = self.inverse_deviations(entries)
        starts = accumulate((rows.shape[0] for rows in self.rows), initial=0)
        rows = [
            entry + start
            for entry, start in zip((*entries, torch.zeros_like(entries[0])), starts, strict=True)
        ]
        weights = [inverse] * len(entries) + [torch.ones_like(inverse)]
        return torch.stack(rows, dim=1), torch.stack(weights, dim=1)

    def inverse_deviations(self, entries: tuple[Tensor, ...]) -> Tensor:
        """1/s of the queries whose entries on each axis are given (M,)."""
        total, square = self.padding_sums
        for (sums, squares), entry in zip(self.sums, entries, strict=True):
            total, square = total + sums[entry], square + squares[entry]
        mean = total / self.width
        return torch.rsqrt(square / self.width - mean.square() + self.eps).to(
            self.scores
        )  # float64 until here


class Values(NamedTuple):
    """One clip's values, less what all of them have in common: shares sum to 1, so that is in the layers' biases."""

    rest: Tensor  #: (v, N)
    common: Tensor  #: (v,), zero in the dtype of the scores: there is nothing to round
    triangle: list[Affine]
    hidden: Affine


class FoldedDecoder:
    """Cross-attention of constant queries to the latents, MLP, final layer and postprocessors."""

    def __init__(self, layer: PerceiverLayer, dtype: torch.dtype, scores: torch.dtype) -> None:
        p = projections(layer)
        self.eps = layer.attention.self.layernorm2.eps
        self.dtype, self.scores = dtype, scores
        self.value = Affine(p.value.weight, p.value.bias).to(scores)
        y = Affine(
            p.output.weight - p.output.weight.mean(0), p.output.bias - p.output.bias.mean()
        )  # centred y of a
        self.channels = y.weight.shape[0]
        self.hidden = Affine(p.hidden.weight @ y.weight, p.hidden.weight @ y.bias).to(scores)  # times 1/s'
        self.hidden_bias = p.hidden.bias.to(dtype)
        triangle = torch.linalg.qr(
            torch.cat([y.weight, y.bias[:, None]], dim=1), mode="r"
        ).R  # (v + 1, v + 1)
        v = p.value.weight.shape[0]
        bounds = [round(v * i / STRIPS) for i in range(STRIPS + 1)]
        if triangle.shape[0] < v:  # fewer channels than values: no triangle to speak of
            bounds = [0, triangle.shape[0]]
        self.triangle = [
            (start, Affine(triangle[start:stop, start:v], triangle[start:stop, v]).to(scores))
            for start, stop in pairwise(bounds)
            if stop > start
        ]
        self.rest = float(triangle[v:, v].square().sum())
        self.layer_eps = layer.layernorm.eps
        self.activation = layer.mlp.activation

    def keys_values(self, latents: Tensor) -> tuple[Tensor, list[Values]]:
        """Latents (B, N, D) -> normalised (B, N, D) for the tables, and each clip's values."""
        x = torch.nn.functional.layer_norm(latents.to(self.scores), latents.shape[-1:], eps=self.eps)
        return x, [self._values(clip) for clip in self.value(x)]

    def _values(self, values: Tensor) -> Values:
        """Of one clip's (N, v). In bfloat16 what goes through the products is small, and so is what they round."""
        common = values.mean(0) if self.dtype != self.scores else values.new_zeros(values.shape[1])
        return Values(
            (values - common).T.to(self.dtype).contiguous(),
            common,
            [_past(layer, common[start:]).to(self.dtype) for start, layer in self.triangle],
            _past(self.hidden, common).to(self.dtype),
        )

    def answer(
        self, queries: FoldedQueries, bags: tuple[Tensor, Tensor], table: Tensor, values: Values
    ) -> Tensor:
        """One clip's outputs (M, outputs) at the points of these bags."""
        rows, weights = bags
        # One pass over (M, N) where gathers and sums by themselves take six: 0.05 us a point instead of 0.22 to 1.3.
        scores = nn.functional.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)
        scores = torch.softmax(scores, dim=1)  # (M, N)
        a = linear(scores.to(self.dtype), values.rest)  # (M, v)
        strips = zip(self.triangle, values.triangle, strict=True)
        squares = [wide(rows(a[:, start:])).square().sum(1) for (start, _), rows in strips]  # [(M,)]
        variance = (torch.stack(squares).sum(0) + self.rest) / self.channels
        deviation = torch.rsqrt(variance + self.layer_eps).to(self.dtype)  # (M,)
        hidden = values.hidden(a)  # (M, h)
        torch.addcmul(self.hidden_bias, hidden, deviation[:, None], out=hidden)
        direct = _past(queries.direct, values.common).to(self.dtype)
        return queries.tail(self.activation(hidden)) + direct(a)


def _past(layer: Affine, common: Tensor) -> Affine:
    """What the layer is of x + common."""
    return Affine(layer.weight, layer.bias + layer.weight @ common)
