"""The encoder's cross-attention: constant queries attend to tokens without keys, values or positions being formed.

With M the latents' constant queries, a token's score is (M x)/s, and M x is a product with its content alone plus sums
of small tables of its position. The output is a function of sum_i p_i x_i / s_i: over positions that sum is one over
the axes' marginals of p/s. Shapes: B batch, L latents, N tokens, C channels of a token, D of a latent, R of content.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from perceiver_core.attention import PerceiverLayer
from perceiver_core.errors import PerceiverError
from perceiver_core.folding.algebra import Affine, attended_tokens, constant_queries
from perceiver_core.folding.stack import FoldedMLP
from perceiver_core.folding.tokens import Positions

#: Bytes of scores at a time: on a CPU they stay in the caches, on a GPU they fill it.
SCORE_BYTES = {"cpu": 12 << 20, "cuda": 1 << 30}


@dataclass(frozen=True)
class Part:
    """One modality's tokens: raw content (B, N, R), made content by `embedding`, then positions, then padding."""

    raw_channels: int
    embedding: Affine | None  #: raw (R) -> content (c), float64; None: they are the same
    positions: Positions
    padding: Tensor  #: (p,) float64

    @property
    def content_channels(self) -> int:
        """Channels of the content."""
        return self.raw_channels if self.embedding is None else self.embedding.weight.shape[0]


@dataclass(frozen=True)
class ConstantPart:
    """One token that is the same for every sample: the masked label."""

    token: Tensor  #: (C,) float64


class FoldError(PerceiverError, ValueError):
    """A model that cannot be folded, or is not any more the one that was."""


class FoldedPart:
    """A part's constants: what its tokens score with M, and how they are summed."""

    def __init__(self, part: Part, scores: Tensor, eps: float, dtype: torch.dtype) -> None:
        """`scores` is M (L, C), float64."""
        self.eps = eps
        self.grid = part.positions.grid
        self.size = part.positions.total.shape[0]
        self.channels = scores.shape[1]
        c, f = part.content_channels, part.positions.channels
        of_content, of_positions, of_padding = scores.split([c, f, scores.shape[1] - c - f], dim=1)
        tables = part.positions.scores(of_positions)
        fixed = of_padding @ part.padding  # (L,)
        self.embedding = part.embedding
        if part.embedding is not None:
            fixed = fixed + of_content @ part.embedding.bias
            of_content = of_content @ part.embedding.weight
        tables[0] = tables[0] + fixed[:, None]
        self.tables = [table.to(dtype) for table in tables]  # [(L, n)] for each axis
        self.of_content = of_content.to(dtype)  # (L, R)
        self.axes = [(axis.channels, axis.features.to(dtype)) for axis in part.positions.axes]
        self.table = None if part.positions.table is None else part.positions.table.to(dtype)
        self.feature_channels = f
        self.padding = part.padding.to(dtype)
        # sums of what is the same in every sample, for means and variances
        padding = part.padding
        self.constant_total = (part.positions.total + padding.sum()).to(dtype)  # (N,)
        self.position_total, self.position_spread = (
            part.positions.total.to(dtype),
            part.positions.spread.to(dtype),
        )
        self.padding_mean = padding.mean().item() if padding.numel() else 0.0
        self.padding_spread = (padding - self.padding_mean).square().sum().item()
        self.content_sums = None if part.embedding is None else _sums_of(part.embedding, dtype)
        self.content_channels = c

    def inverse_deviations(self, raw: Tensor) -> Tensor:
        """raw (N, R) -> 1/s of each token (N,). Sums of squares to the mean: nothing is subtracted from its like."""
        c, f, p = self.content_channels, self.feature_channels, self.padding.shape[0]
        if self.content_sums is None:
            total = raw.sum(1)
            spread = (raw - (total / c)[:, None]).square().sum(1)
        else:
            total, spread = self.content_sums(raw)
        mean = (total + self.constant_total) / self.channels  # (N,)
        squares = spread + c * (total / c - mean).square()
        squares += self.position_spread + f * (self.position_total / f - mean).square()
        squares += self.padding_spread + p * (self.padding_mean - mean).square()
        return torch.rsqrt(squares / self.channels + self.eps)

    def for_scores(self, weight: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Of a weight (L, C) of tokens: that of raw content (L, R), each axis's table [(n, L)], and the rest (L,).

        For weights that come with the sample; the encoder's own are constants.
        """
        c, f = self.content_channels, self.feature_channels
        of_content, of_positions, of_padding = weight.split([c, f, self.channels - c - f], dim=1)
        if self.table is not None or self.embedding is not None:
            raise FoldError("The tokens must be of Fourier positions; got a table. Use the plain model.")
        tables = [features @ of_positions[:, channels].T for channels, features in self.axes]
        return of_content.contiguous(), tables, of_padding @ self.padding

    def write_scores(self, out: Tensor, rows: slice, raw: Tensor, inverse: Tensor) -> None:
        """Scores of some latents (rows) into out (l, N)."""
        tables = [table[rows] for table in self.tables]
        if len(tables) == 1:
            out.copy_(tables[0])
        else:
            rest = tables[-1]
            for table in tables[-2:0:-1]:
                rest = (table[:, :, None] + rest[:, None, :]).flatten(1)  # (l, n2 * n3)
            first = tables[0]
            torch.add(first[:, :, None], rest[:, None, :], out=out.unflatten(1, (first.shape[1], -1)))
        out.addmm_(self.of_content[rows], raw.T).mul_(inverse)

    def sums(self, weights: Tensor, raw: Tensor, out: Tensor) -> None:
        """weights p/s (l, N) -> sum_i p_i x_i / s_i into out (l, C)."""
        c, f = self.content_channels, self.feature_channels
        content = weights @ raw  # (l, R)
        if self.table is not None:
            torch.mm(weights, self.table, out=out[:, c : c + f])
            total = weights.sum(1, keepdim=True)
        else:
            marginals = _marginals(weights.unflatten(1, self.grid))  # [(l, n)]
            for (channels, features), marginal in zip(self.axes, marginals, strict=True):
                out[:, c + channels] = marginal @ features
            total = marginals[0].sum(1, keepdim=True)  # (l, 1)
        if self.embedding is not None:
            e = self.embedding.to(content.dtype)
            content = content @ e.weight.T + total * e.bias
        out[:, :c] = content
        out[:, c + f :] = total * self.padding


def _marginals(weights: Tensor) -> list[Tensor]:
    """Sums of (l, n1[, n2[, n3]]) over all axes but one, for each."""
    if weights.ndim == 2:
        return [weights]
    if weights.ndim == 3:
        return [weights.sum(2), weights.sum(1)]
    pairs = weights.sum(3)  # (l, n1, n2)
    return [pairs.sum(2), pairs.sum(1), weights.sum((1, 2))]


def _sums_of(embedding: Affine, dtype: torch.dtype) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Of raw content (N, R), a function to the sum of its content's channels and of their squares about their mean."""
    whole = torch.cat([embedding.weight, embedding.bias[:, None]], dim=1)  # (c, R + 1)
    total = whole.sum(0).to(dtype)
    # |centred whole x|^2 = |T x|^2 with T (R + 1, R + 1) of its QR: the channels themselves are not formed
    triangle = torch.linalg.qr(whole - whole.mean(0), mode="r").R.to(dtype)
    raw_channels = embedding.weight.shape[1]

    def sums(raw: Tensor) -> tuple[Tensor, Tensor]:
        linear = raw @ total[:raw_channels] + total[raw_channels]
        rows = raw @ triangle[:, :raw_channels].T + triangle[:, raw_channels]
        return linear, rows.square().sum(1)

    return sums


class FoldedCrossAttention:
    """Latents of tokens: the encoder's cross-attention and MLP."""

    def __init__(
        self,
        layer: PerceiverLayer,
        latents: Tensor,
        parts: list[Part | ConstantPart],
        dtype: torch.dtype,
        attention_dtype: torch.dtype,
    ) -> None:
        scores = constant_queries(layer, latents)  # (L, C)
        eps = layer.attention.self.layernorm2.eps
        self.attention_dtype = attention_dtype
        self.parts: list[FoldedPart | tuple[Tensor, Tensor, float]] = []
        for part in parts:
            if isinstance(part, Part):
                self.parts.append(FoldedPart(part, scores, eps, attention_dtype))
            else:
                inverse = float(torch.rsqrt(part.token.var(correction=0) + eps))
                score = (scores @ part.token * inverse).to(attention_dtype)  # (L,)
                self.parts.append((score, part.token.to(attention_dtype), inverse))
        self.sizes = [part.size if isinstance(part, FoldedPart) else 1 for part in self.parts]
        self.channels = scores.shape[1]
        output = attended_tokens(layer)
        if layer.use_query_residual:  # the latents are as constant as the bias
            residual = output.bias + latents.detach().double()
        else:
            residual = output.bias.expand(latents.shape[0], -1)
        self.output = output.weight.T.to(attention_dtype)  # (C, D)
        self.residual = residual.to(attention_dtype)  # (L, D)
        self.mlp = FoldedMLP(layer, dtype)
        self.latents = latents.shape[0]

    def __call__(self, raws: dict[int, Tensor], keep: Tensor | None) -> Tensor:
        """{part: raw content (B, N, R)} and which tokens count (B, sum of N) -> latents (B, L, D)."""
        batch = next(iter(raws.values()))
        if keep is not None and keep.shape != (batch.shape[0], sum(self.sizes)):
            raise ValueError(
                f"attention_mask must have shape {(batch.shape[0], sum(self.sizes))}; got {tuple(keep.shape)}. "
                "Give one number for each token of the encoder's input."
            )
        summed = batch.new_empty(
            batch.shape[0], self.latents, self.channels, dtype=self.attention_dtype
        )  # (B, L, C)
        for b in range(batch.shape[0]):
            own = {i: raw[b].to(self.attention_dtype).contiguous() for i, raw in raws.items()}
            self._attend(own, None if keep is None else keep[b], summed[b])
        return self.mlp(torch.matmul(summed, self.output) + self.residual)  # (B, L, D)

    def _attend(self, raws: dict[int, Tensor], keep: Tensor | None, out: Tensor) -> None:
        """sum_i p_i x_i / s_i of one sample into out (L, C), some latents at a time."""
        inverses = {
            i: part.inverse_deviations(raws[i])
            for i, part in enumerate(self.parts)
            if isinstance(part, FoldedPart)
        }
        tokens = sum(self.sizes)
        rows_at_a_time = max(8, SCORE_BYTES[out.device.type] // (tokens * out.element_size()))
        steps = math.ceil(self.latents / rows_at_a_time)
        rows_at_a_time = math.ceil(self.latents / steps)
        buffer = out.new_empty(rows_at_a_time, tokens)
        for start in range(0, self.latents, rows_at_a_time):
            rows = slice(start, min(start + rows_at_a_time, self.latents))
            scores = buffer[: rows.stop - rows.start]
            columns = scores.split(self.sizes, dim=1)
            for i, (part, column) in enumerate(zip(self.parts, columns, strict=True)):
                if isinstance(part, FoldedPart):
                    part.write_scores(column, rows, raws[i], inverses[i])
                else:
                    column.copy_(part[0][rows, None])
            if keep is not None:
                scores.masked_fill_(~keep, torch.finfo(scores.dtype).min)
            torch.softmax(scores, dim=1, out=scores)
            target = out[rows].zero_()
            for i, (part, column) in enumerate(zip(self.parts, columns, strict=True)):
                if isinstance(part, FoldedPart):
                    piece = torch.empty_like(target)
                    part.sums(column.mul_(inverses[i]), raws[i], piece)
                    target += piece
                else:
                    _, token, inverse = part
                    target.addmm_(column * inverse, token[None])
