"""The one layer of Perceiver IO, used three times: encoder cross-attention, self-attention, decoder cross-attention.

    a   = O(softmax(Q(LN1 x) K(LN2 y)^T / sqrt(d)) V(LN2 y)) [+ x]
    out = a + W2 act(W1 LN(a))

x are the queries (B, M, C), y what they attend to (B, N, C'). In self-attention y is x and LN2 is LN1.
Shapes: B batch, M queries, N keys, H heads, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig

#: hidden_act, by upstream's names
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "gelu": nn.functional.gelu,
        "gelu_new": partial(nn.functional.gelu, approximate="tanh"),
        "gelu_pytorch_tanh": partial(nn.functional.gelu, approximate="tanh"),
        "mish": nn.functional.mish,
        "relu": nn.functional.relu,
        "silu": nn.functional.silu,
        "swish": nn.functional.silu,
        "tanh": torch.tanh,
    }
)

KeysValues = tuple[Tensor, Tensor]  # (B, H, N, qk/H), (B, H, N, v/H)


class AttentionProjections(nn.Module):
    """LayerNorms and the query, key and value projections; `attention.self` in a checkpoint."""

    def __init__(
        self, q_dim: int, kv_dim: int, qk_channels: int, v_channels: int, is_cross_attention: bool
    ) -> None:
        super().__init__()
        self.layernorm1 = nn.LayerNorm(q_dim)
        if is_cross_attention:
            self.layernorm2 = nn.LayerNorm(kv_dim)
        self.query = nn.Linear(q_dim, qk_channels)
        self.key = nn.Linear(kv_dim, qk_channels)
        self.value = nn.Linear(kv_dim, v_channels)


class AttentionOutput(nn.Module):
    """The output projection; `attention.output` in a checkpoint."""

    def __init__(self, v_channels: int, q_dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(v_channels, q_dim)


class Attention(nn.Module):
    """Names only: `attention.self` and `attention.output` of a checkpoint."""

    def __init__(self, projections: AttentionProjections, output: AttentionOutput) -> None:
        super().__init__()
        self.self = projections
        self.output = output


class MLP(nn.Module):
    """The feed-forward part."""

    def __init__(self, channels: int, widening_factor: int, config: PerceiverConfig) -> None:
        super().__init__()
        name = config.hidden_act
        if name not in ACTIVATIONS:
            raise ValueError(f"hidden_act must be one of {sorted(ACTIVATIONS)}; got {name!r}.")
        if name == "gelu" and config.reference == "deepmind":
            name = "gelu_pytorch_tanh"  # what jax.nn.gelu computes; upstream's "gelu" is the exact one
        self.dense1 = nn.Linear(channels, widening_factor * channels)
        self.activation = ACTIVATIONS[name]
        self.dense2 = nn.Linear(widening_factor * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense2(self.activation(self.dense1(x)))
        return out


class PerceiverLayer(nn.Module):
    """The layer equation above; `q_dim` channels in and out.

    Without `qk_channels`, a cross-attention takes q_dim or kv_dim for it, as the config's
    `cross_attention_shape_for_attention` says, and `v_channels` is `qk_channels` unless given.
    """

    def __init__(
        self,
        config: PerceiverConfig,
        is_cross_attention: bool = False,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        num_heads: int = 1,
        *,
        q_dim: int,
        kv_dim: int,
        widening_factor: int = 4,
        use_query_residual: bool = True,
    ) -> None:
        super().__init__()
        by_keys = is_cross_attention and config.cross_attention_shape_for_attention == "kv"
        qk_channels = qk_channels or (kv_dim if by_keys else q_dim)
        v_channels = v_channels or qk_channels
        if qk_channels % num_heads or v_channels % num_heads:
            raise ValueError(
                f"qk_channels and v_channels must be multiples of the number of heads; got {qk_channels} and "
                f"{v_channels} for {num_heads} heads."
            )
        if not is_cross_attention and v_channels != q_dim:
            raise ValueError(
                f"Self-attention adds its output to its input, so v_channels must be {q_dim}; got {v_channels}. "
                "Leave v_channels at None or make it equal to d_latents."
            )
        self.num_heads = num_heads
        self.dropout = config.attention_probs_dropout_prob
        self.is_cross_attention = is_cross_attention
        self.use_query_residual = use_query_residual
        self.attention = Attention(
            AttentionProjections(q_dim, kv_dim, qk_channels, v_channels, is_cross_attention),
            AttentionOutput(v_channels, q_dim),
        )
        self.layernorm = nn.LayerNorm(q_dim)
        self.mlp = MLP(q_dim, widening_factor, config)
        self.mlp_rows = config.chunk_size_feed_forward

    def keys_values(self, y: Tensor) -> KeysValues:
        """Keys and values of y (B, N, kv_dim), which any number of forward calls can then share."""
        w = self.attention.self
        y = w.layernorm2(y) if self.is_cross_attention else w.layernorm1(y)
        return self._split_heads(w.key(y)), self._split_heads(w.value(y))

    def forward(
        self,
        x: Tensor,
        keys_values: KeysValues,
        mask: Tensor | None = None,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x (B or 1, M, q_dim) -> (B, M, q_dim), and the attention map (B, H, M, N) if asked for.

        `mask`, broadcastable to (B, H, M, N), is added to the scores. `head_mask` (H,) scales what each head says, and
        its map. Queries where `query_mask` (B, M) is False attend to nothing. Queries that all samples share may come
        with batch 1: they are then normalised and projected once.
        """
        w = self.attention.self
        keys, values = keys_values
        queries = self._split_heads(w.query(w.layernorm1(x)))  # (B or 1, H, M, qk/H)
        queries = queries.expand(keys.shape[0], -1, -1, -1)
        dropout = self.dropout if self.training else 0.0
        attention_map = None
        if output_attentions:
            scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])  # (B, H, M, N)
            probabilities = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            attention_map = nn.functional.dropout(probabilities, dropout)
            context = attention_map @ values  # (B, H, M, v/H)
        else:
            context = nn.functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, dropout_p=dropout
            )
        if head_mask is not None:
            scale = head_mask.to(context.dtype)[:, None, None]  # (H, 1, 1)
            context = context * scale
            attention_map = None if attention_map is None else attention_map * scale
        if query_mask is not None:
            context = context * query_mask[:, None, :, None]  # (B, 1, M, 1)
        a = self.attention.output.dense(context.transpose(1, 2).flatten(2))  # (B, H, M, v/H) -> (B, M, q_dim)
        if self.use_query_residual:
            a = a + x  # x before LN1
        return a + self._feed_forward(a), attention_map

    def _feed_forward(self, a: Tensor) -> Tensor:
        if not self.mlp_rows:
            return self.mlp(self.layernorm(a))
        return torch.cat([self.mlp(self.layernorm(rows)) for rows in a.split(self.mlp_rows, dim=1)], dim=1)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, N, C) -> (B, H, N, C/H)
