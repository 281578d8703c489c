"""Self-attention and MLPs as they are, with LayerNorms folded in and projections joined. Shapes: B batch, L latents."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from perceiver_core.attention import PerceiverLayer
from perceiver_core.encoder import PerceiverEncoder
from perceiver_core.folding.algebra import Affine, projections


class FoldedMLP:
    """x + W2 act(W1 LN(x))."""

    def __init__(self, layer: PerceiverLayer, dtype: torch.dtype) -> None:

        p = projections(layer)
        self.first = p.hidden.to(dtype)
        self.second = p.last.to(dtype)
        self.activation = layer.mlp.activation
        self.eps = layer.layernorm.eps

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        hidden = self.activation(self.first(_normalised(x, self.eps, self.first)))
        return x + self.second(hidden)


class FoldedSelfAttention:
    """A self-attention layer: one projection for queries, keys and values."""

    def __init__(self, layer: PerceiverLayer, dtype: torch.dtype) -> None:

        p = projections(layer)
        parts = (p.query, p.key, p.value)
        self.sizes = [part.weight.shape[0] for part in parts]
        self.joined = Affine(torch.cat([x.weight for x in parts]), torch.cat([x.bias for x in parts])).to(
            dtype
        )
        self.output = p.output.to(dtype)
        self.heads = layer.num_heads
        self.eps = layer.attention.self.layernorm1.eps
        self.mlp = FoldedMLP(layer, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        joined = self.joined(_normalised(x, self.eps, self.joined))
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, L, C/H)
            for part in joined.split(self.sizes, dim=-1)
        )
        context = _attend(query, key, value)
        return self.mlp(x + self.output(context.transpose(1, 2).flatten(2)))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, H, L, C/H).

    On a CPU fused attention is slower in bfloat16 for few latents (512 of 8 heads: 5.5 ms against 1.9), and faster in
    float32 and for many (2,048 of 16 heads: 50 ms against 91).
    """
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type != "cpu" or not is_half or query.shape[2] > 1024:
        return nn.functional.scaled_dot_product_attention(query, key, value)
    scores = torch.matmul(query, key.transpose(-1, -2)).div_(math.sqrt(query.shape[-1]))  # (B, H, L, L)
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def _normalised(x: Tensor, eps: float, layer: Affine) -> Tensor:
    """(x - mean)/s in the dtype of the layer that it is for; x is float32 at least, so that its sums hardly round."""
    return nn.functional.layer_norm(x, x.shape[-1:], eps=eps).to(layer.weight.dtype)


class FoldedStack:
    """All blocks of self-attention."""

    def __init__(self, encoder: PerceiverEncoder, dtype: torch.dtype) -> None:

        layers = cast(Iterable[PerceiverLayer], encoder.self_attends)
        self.layers = [FoldedSelfAttention(layer, dtype) for layer in layers]
        self.blocks = encoder.num_blocks

    def __call__(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        for _ in range(self.blocks):
            for layer in self.layers:
                x = layer(x)
        return x
