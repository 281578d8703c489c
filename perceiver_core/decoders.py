"""Decoders: they make queries of output points and let them attend to the latents.

Queries do not depend on the sample, so they have no batch: they are made once and all samples share them.
Shapes: B batch, L latents, M output points, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_core.attention import KeysValues, PerceiverLayer
from perceiver_core.config import PerceiverConfig
from perceiver_core.outputs import PerceiverDecoderOutput
from perceiver_core.positions import build_position_encoding


class PerceiverBasicDecoder(nn.Module):
    """Cross-attention of queries to the latents, and a final projection.

    With `position_encoding_only` it makes queries and nothing else. With position_encoding_type "none" it makes none:
    they come from elsewhere.
    """

    def __init__(
        self,
        config: PerceiverConfig,
        output_num_channels: int,
        position_encoding_type: str = "trainable",
        output_index_dims: int | Sequence[int] = 1,
        num_channels: int = 128,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        num_heads: int = 1,
        widening_factor: int = 1,
        use_query_residual: bool = False,
        final_project: bool = True,
        position_encoding_only: bool = False,
        **position_encoding_kwargs: Any,
    ) -> None:
        super().__init__()
        dims = output_index_dims
        self.output_index_dims = (dims,) if isinstance(dims, int) else tuple(dims)
        if position_encoding_type != "none":
            self.output_position_encodings = build_position_encoding(
                position_encoding_type, **position_encoding_kwargs
            )
        if not position_encoding_only:
            self.decoding_cross_attention = PerceiverLayer(
                config,
                is_cross_attention=True,
                qk_channels=qk_channels,
                v_channels=v_channels,
                num_heads=num_heads,
                q_dim=num_channels,
                kv_dim=config.d_latents,
                widening_factor=widening_factor,
                use_query_residual=use_query_residual,
            )
            self.final_layer = (
                nn.Linear(num_channels, output_num_channels) if final_project else nn.Identity()
            )

    @property
    def num_query_channels(self) -> int:
        """Channels of the queries that it makes."""
        return self.output_position_encodings.output_size()

    def queries(self, indices: Tensor) -> Tensor:
        """Flat indices (M,) into the output grid -> (M, num_query_channels)."""
        return self.output_position_encodings.of_outputs(indices, self.output_index_dims)

    def keys_values(self, z: Tensor) -> KeysValues:
        """Keys and values of latents (B, L, D), for any number of calls of attend."""
        return self.decoding_cross_attention.keys_values(z)

    def attend(
        self, query: Tensor, keys_values: KeysValues, output_attentions: bool = False
    ) -> PerceiverDecoderOutput:
        """query (B or 1, M, C) -> logits (B, M, output_num_channels)."""
        x, attention_map = self.decoding_cross_attention(
            query, keys_values, output_attentions=output_attentions
        )
        return PerceiverDecoderOutput(self.final_layer(x), (attention_map,) if output_attentions else None)

    def forward(self, query: Tensor, z: Tensor, output_attentions: bool = False) -> PerceiverDecoderOutput:
        """query (B or 1, M, C) and latents (B, L, D) -> logits (B, M, output_num_channels)."""
        return self.attend(query, self.keys_values(z), output_attentions)


class PerceiverClassificationDecoder(nn.Module):
    """A basic decoder with one output point, the label."""

    def __init__(self, config: PerceiverConfig, **decoder_kwargs: Any) -> None:
        super().__init__()
        self.decoder = PerceiverBasicDecoder(config, output_num_channels=config.num_labels, **decoder_kwargs)

    @property
    def num_query_channels(self) -> int:
        """Channels of the query."""
        return self.decoder.num_query_channels

    def queries(self, indices: Tensor) -> Tensor:
        """(M,) zeros -> (M, num_query_channels)."""
        return self.decoder.queries(indices)

    def forward(self, query: Tensor, z: Tensor, output_attentions: bool = False) -> PerceiverDecoderOutput:
        """query (B or 1, 1, C) and latents (B, L, D) -> logits (B, num_labels)."""
        output = self.decoder(query, z, output_attentions)
        return PerceiverDecoderOutput(output.logits[:, 0], output.cross_attentions)


class PerceiverBasicVideoAutoencodingDecoder(nn.Module):
    """A basic decoder whose output grid is a video of output_shape (batch, frames, height, width)."""

    def __init__(
        self,
        config: PerceiverConfig,
        output_shape: Sequence[int],
        position_encoding_type: str,
        **decoder_kwargs: Any,
    ) -> None:
        super().__init__()
        if len(output_shape) != 4:
            raise ValueError(
                f"output_shape must have 4 numbers (batch, frames, height, width); got {output_shape}."
            )
        self.output_shape = tuple(output_shape)
        self.decoder = PerceiverBasicDecoder(
            config,
            output_index_dims=output_shape[1:],
            position_encoding_type=position_encoding_type,
            **decoder_kwargs,
        )

    @property
    def num_query_channels(self) -> int:
        """Channels of a query."""
        return self.decoder.num_query_channels

    def queries(self, indices: Tensor) -> Tensor:
        """Flat (t, y, x) indices (M,) -> (M, num_query_channels)."""
        return self.decoder.queries(indices)

    def forward(self, query: Tensor, z: Tensor) -> PerceiverDecoderOutput:
        """query (B or 1, T * H * W, C) and latents (B, L, D) -> logits (B, T, H, W, output_num_channels)."""
        output = self.decoder(query, z)
        return PerceiverDecoderOutput(output.logits.unflatten(1, self.output_shape[1:]))


QueryDecoder = PerceiverBasicDecoder | PerceiverClassificationDecoder | PerceiverBasicVideoAutoencodingDecoder


class PerceiverMultimodalDecoder(nn.Module):
    """One decoder for the queries of several modalities, which their own decoders make and this one pads."""

    def __init__(
        self,
        config: PerceiverConfig,
        modalities: Mapping[str, QueryDecoder],
        num_outputs: int | None,  # part of upstream's signature, without effect there too
        output_num_channels: int,
        min_padding_size: int = 2,
        **decoder_kwargs: Any,
    ) -> None:
        super().__init__()
        self.modalities = nn.ModuleDict(modalities)
        channels = max(decoder.num_query_channels for decoder in modalities.values()) + min_padding_size
        self.decoder = PerceiverBasicDecoder(
            config,
            output_num_channels=output_num_channels,
            position_encoding_type="none",
            num_channels=channels,
            **decoder_kwargs,
        )
        self.padding = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(1, channels - decoder.num_query_channels))
                for name, decoder in modalities.items()
            }
        )

    def queries(self, indices: Mapping[str, Tensor]) -> Tensor:
        """{modality: flat indices} -> (M, C), modalities in the order of their names; others are left out."""
        return torch.cat([self._padded_queries(name, indices[name]) for name in sorted(indices)])

    def keys_values(self, z: Tensor) -> KeysValues:
        """Keys and values of latents (B, L, D), for any number of calls of attend."""
        return self.decoder.keys_values(z)

    def attend(
        self, query: Tensor, keys_values: KeysValues, output_attentions: bool = False
    ) -> PerceiverDecoderOutput:
        """query (B or 1, M, C) -> logits (B, M, output_num_channels)."""
        return self.decoder.attend(query, keys_values, output_attentions)

    def _padded_queries(self, name: str, indices: Tensor) -> Tensor:
        padding = self.padding[name]
        decoder = cast(QueryDecoder, self.modalities[name])
        queries = decoder.queries(indices.to(padding.device)).to(padding.dtype)
        return torch.cat([queries, padding.expand(indices.shape[0], -1)], dim=-1)
