"""Weights of one attention layer, put together so that less is left to compute.

    a   = O(softmax(Q(LN1 x) K(LN2 y)^T / sqrt(d)) V(LN2 y)) [+ x]
    out = a + W2 act(W1 LN(a))

LN(x) = g * (x - mean)/s + b with s = sqrt(var + eps). A linear layer after it takes g and b into its own weight and
bias, and a weight whose rows have mean 0 does not see the mean. Everything is computed in float64 once and then cast.
Shapes: L latents, N tokens, C channels of a token, D channels of a latent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perceiver_core.attention import PerceiverLayer
from perceiver_core.folding.linear import linear


class Affine(NamedTuple):
    """x -> x weight^T + bias."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def to(self, dtype: torch.dtype) -> Affine:
        """The same in another dtype."""
        return Affine(self.weight.to(dtype).contiguous(), self.bias.to(dtype))


def affine(layer: nn.Linear) -> Affine:
    """A linear layer in float64."""
    return Affine(layer.weight.detach().double(), layer.bias.detach().double())


def after_norm(norm: nn.LayerNorm, layer: Affine) -> Affine:
    """What `layer` is of (x - mean)/s where it followed the whole LayerNorm of x."""
    gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
    return Affine(layer.weight * gain, layer.bias + layer.weight @ shift)


def centred(weight: Tensor) -> Tensor:
    """The weight that gives of x what `weight` gives of x - mean(x)."""
    return weight - weight.mean(dim=-1, keepdim=True)


def chain(second: Affine, first: Affine) -> Affine:
    """second(first(x)) in one."""
    return Affine(second.weight @ first.weight, second.weight @ first.bias + second.bias)


class Projections(NamedTuple):
    """The projections of a layer, each of (x - mean)/s of its own input, in float64."""

    query: Affine
    key: Affine
    value: Affine
    output: Affine
    hidden: Affine  #: the MLP's first layer
    last: Affine  #: and its second


def projections(layer: PerceiverLayer) -> Projections:
    """A layer's weights with its LayerNorms' gains and shifts taken in."""
    w = layer.attention.self
    norm = w.layernorm2 if layer.is_cross_attention else w.layernorm1
    return Projections(
        query=after_norm(w.layernorm1, affine(w.query)),
        key=after_norm(norm, affine(w.key)),
        value=after_norm(norm, affine(w.value)),
        output=affine(layer.attention.output.dense),
        hidden=after_norm(layer.layernorm, affine(layer.mlp.dense1)),
        last=affine(layer.mlp.dense2),
    )


def normalised(x: Tensor, eps: float) -> Tensor:
    """(x - mean)/s over the last dimension, in float64."""
    x = x.detach().double()
    x = x - x.mean(dim=-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


def constant_queries(layer: PerceiverLayer, queries: Tensor) -> Tensor:
    """M (L, C): of queries that no sample is in, the scores of a token x are M x / s, up to what softmax cancels.

    For one head. The key's bias and the token's mean are gone: the one cancels, the other M does not see.
    """
    p = projections(layer)
    q = p.query(normalised(queries, layer.attention.self.layernorm1.eps))  # (L, qk)
    return centred(q @ p.key.weight) / math.sqrt(q.shape[-1])  # (L, C)


def attended_tokens(layer: PerceiverLayer) -> Affine:
    """Of sum_i p_i x_i / s_i (C), the attention's output (D): value and output projection commute with the sum."""
    p = projections(layer)
    out = chain(p.output, p.value)
    return Affine(centred(out.weight), out.bias)


def wide(x: Tensor) -> Tensor:
    """float32 at least."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
