"""The encoder: latents cross-attend to the inputs once, then to each other, in blocks that share their weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from perceiver_core.attention import PerceiverLayer
from perceiver_core.config import PerceiverConfig


class EncoderOutput(NamedTuple):
    """Latents (B, L, D), and what was asked for besides: states and attention maps in the order of computation."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    cross_attentions: tuple[Tensor, ...] | None


class PerceiverEmbeddings(nn.Module):
    """The trained initial latents."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(config.num_latents, config.d_latents))

    def forward(self) -> Tensor:
        """(1, L, D): no sample is in them, so the batch is added by the first attention."""
        return self.latents[None]


class PerceiverEncoder(nn.Module):
    """Cross-attention to inputs of `kv_dim` channels, then num_blocks times the same self-attention layers."""

    def __init__(self, config: PerceiverConfig, kv_dim: int) -> None:
        super().__init__()
        self.num_blocks = config.num_blocks
        self.cross_attention = PerceiverLayer(
            config,
            is_cross_attention=True,
            qk_channels=config.qk_channels,
            v_channels=config.v_channels,
            num_heads=config.num_cross_attention_heads,
            q_dim=config.d_latents,
            kv_dim=kv_dim,
            widening_factor=config.cross_attention_widening_factor,
            use_query_residual=config.use_query_residual,
        )
        self.self_attends = nn.ModuleList(
            PerceiverLayer(
                config,
                qk_channels=config.qk_channels,
                v_channels=config.v_channels,
                num_heads=config.num_self_attention_heads,
                q_dim=config.d_latents,
                kv_dim=config.d_latents,
                widening_factor=config.self_attention_widening_factor,
            )
            for _ in range(config.num_self_attends_per_block)
        )

    def forward(
        self,
        latents: Tensor,
        inputs: Tensor,
        inputs_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        head_mask: Tensor | None = None,
    ) -> EncoderOutput:
        """latents (1 or B, L, D) and inputs (B, N, kv_dim) -> latents (B, L, D); for head_mask see PerceiverModel."""
        head_masks = self._head_masks(head_mask)
        states: list[Tensor] = []
        maps: list[Tensor] = []
        x, cross_map = self.cross_attention(
            latents, self.cross_attention.keys_values(inputs), inputs_mask, output_attentions
        )
        for block in head_masks:
            if output_hidden_states:
                states.append(x)
            for layer, heads in zip(cast(Iterable[PerceiverLayer], self.self_attends), block, strict=True):
                x, self_map = layer(
                    x, layer.keys_values(x), output_attentions=output_attentions, head_mask=heads
                )
                if output_hidden_states:
                    states.append(x)
                if output_attentions:
                    maps.append(self_map)
        return EncoderOutput(
            x,
            tuple(states) if output_hidden_states else None,
            tuple(maps) if output_attentions else None,
            (cross_map,) if output_attentions else None,
        )

    def _head_masks(self, head_mask: Tensor | None) -> list[list[Tensor | None]]:
        """The mask (H,) of each layer of each block."""
        layers, blocks = len(self.self_attends), self.num_blocks
        if head_mask is None:
            return [[None] * layers] * blocks
        heads = cast(PerceiverLayer, self.self_attends[0]).num_heads
        shape = tuple(head_mask.shape)
        if shape not in ((heads,), (layers, heads), (blocks * layers, heads)):
            raise ValueError(
                f"head_mask must have shape ({heads},), ({layers}, {heads}) or ({blocks * layers}, {heads}): heads, or "
                f"layers of a block or of all {blocks}, and heads; got {shape}."
            )
        rows = list(head_mask.expand(layers, heads) if head_mask.ndim == 1 else head_mask)
        if len(rows) == layers:
            rows = rows * blocks
        return [list(rows[start : start + layers]) for start in range(0, blocks * layers, layers)]
