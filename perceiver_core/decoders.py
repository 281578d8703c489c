"""Decoders: they make queries of output points and let them attend to the latents.

Queries depend on the sample only where they are made of its input; all others are made once and all samples share them.
Shapes: B batch, N input tokens, L latents, M output points, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core.attention import KeysValues, PerceiverLayer
from perceiver_core.config import PerceiverConfig
from perceiver_core.output_points import Points, check_points
from perceiver_core.outputs import PerceiverDecoderOutput
from perceiver_core.positions import build_position_encoding


class PerceiverAbstractDecoder(nn.Module):
    """What every decoder can do. Most wrap a basic decoder, `decoder`, and change what comes of it.

    `decoder_query` makes queries, `attend` answers them in a flat row each, `shaped` gives the answers of all output
    points their final shape, and `forward` is attend and shaped.
    """

    decoder: PerceiverBasicDecoder

    @property
    def num_query_channels(self) -> int:
        """Channels of the queries that it makes, if it only makes queries."""
        return self.decoder.num_query_channels

    @property
    def queries_are_of_inputs(self) -> bool:
        """Whether the queries are made of the input tokens, not of positions alone."""
        return self.decoder.queries_are_of_inputs

    def every_point(self) -> Points:
        """Indices of all output points."""
        return self.decoder.every_point()

    def decoder_query(
        self,
        inputs: Tensor,
        modality_sizes: Mapping[str, int] | None = None,
        inputs_without_pos: Tensor | None = None,
        subsampled_points: Tensor | None = None,
    ) -> Tensor:
        """Queries (B, M, C) of the points (M,) or (B, M), by default of all.

        inputs (B, N, C) are the preprocessed tokens; where queries are not made of them, they give batch size, device
        and dtype and can be anything that has these.
        """
        return self.decoder.decoder_query(inputs, modality_sizes, inputs_without_pos, subsampled_points)

    def keys_values(self, z: Tensor) -> KeysValues:
        """Keys and values of latents (B, L, D), for any number of calls of attend."""
        return self.decoder.keys_values(z)

    def attend(
        self,
        query: Tensor,
        keys_values: KeysValues,
        query_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> PerceiverDecoderOutput:
        """query (B or 1, M, C) -> logits (B, M, output_num_channels)."""
        return self.decoder.attend(query, keys_values, None, output_attentions)

    def shaped(self, logits: Tensor) -> Tensor:
        """Logits (B, M, C) of all output points -> the decoder's output."""
        return logits

    def forward(
        self,
        query: Tensor,
        z: Tensor,
        query_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> PerceiverDecoderOutput:
        """query (B or 1, M, C) and latents (B, L, D) -> the decoder's output."""
        output = self.attend(query, self.keys_values(z), query_mask, output_attentions)
        return PerceiverDecoderOutput(self.shaped(output.logits), output.cross_attentions)


class PerceiverProjectionDecoder(PerceiverAbstractDecoder):
    """Projects the mean of the latents to label logits (B, num_labels); it has no queries."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.classifier = nn.Linear(config.d_latents, config.num_labels)

    @property
    def num_query_channels(self) -> int:
        return 0

    @property
    def queries_are_of_inputs(self) -> bool:
        return False

    def every_point(self) -> Points:
        return torch.zeros(1, dtype=torch.long)

    def decoder_query(
        self,
        inputs: Tensor,
        modality_sizes: Mapping[str, int] | None = None,
        inputs_without_pos: Tensor | None = None,
        subsampled_points: Tensor | None = None,
    ) -> Tensor:
        """Nothing: (B, 1, 0)."""
        return inputs.new_empty(inputs.shape[0], 1, 0)

    def keys_values(self, z: Tensor) -> KeysValues:
        return z, z

    def attend(
        self,
        query: Tensor,
        keys_values: KeysValues,
        query_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> PerceiverDecoderOutput:
        z, _ = keys_values
        return PerceiverDecoderOutput(self.classifier(z.mean(dim=1, keepdim=True)))  # (B, 1, num_labels)

    def shaped(self, logits: Tensor) -> Tensor:
        return logits[:, 0]


class PerceiverBasicDecoder(PerceiverAbstractDecoder):
    """Cross-attention of queries to the latents, and a final projection.

    With `position_encoding_only` it makes queries and nothing else. With position_encoding_type "none" it makes none:
    they come from elsewhere.
    """

    def __init__(
        self,
        config: PerceiverConfig,
        output_num_channels: int,
        position_encoding_type: str = "trainable",
        output_index_dims: int | Sequence[int] | None = None,
        num_channels: int = 128,
        subsampled_index_dims: int
        | Sequence[int]
        | None = None,  # of upstream's signature, without effect there too
        qk_channels: int | None = None,
        v_channels: int | None = None,
        num_heads: int = 1,
        widening_factor: int = 1,
        use_query_residual: bool = False,
        concat_preprocessed_input: bool = False,
        final_project: bool = True,
        position_encoding_only: bool = False,
        **position_encoding_kwargs: Any,
    ) -> None:
        super().__init__()
        dims = output_index_dims
        self.index_dims = (dims,) if isinstance(dims, int) else None if dims is None else tuple(dims)
        self.position_encoding_only = position_encoding_only
        self.concat_preprocessed_input = concat_preprocessed_input
        self.masks_queries = config.reference == "deepmind"
        self.position_channels: int | None = None
        self.output_channels = output_num_channels if final_project else num_channels
        if position_encoding_type != "none":
            self.output_position_encodings, self.positions_projection = build_position_encoding(
                position_encoding_type, **position_encoding_kwargs
            )
            projected = int(position_encoding_kwargs.get("project_pos_dim", -1))
            self.position_channels = (
                projected if projected > 0 else self.output_position_encodings.output_size()
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
        """Channels of the queries with `position_encoding_only`; otherwise, as upstream, of the output."""
        if self.position_channels is None:
            raise ValueError(
                "A decoder with position_encoding_type 'none' makes no queries, so they have no channels. "
                "Give it a position encoding, or make the queries elsewhere."
            )
        return self.position_channels if self.position_encoding_only else self.output_channels

    @property
    def queries_are_of_inputs(self) -> bool:
        return self.concat_preprocessed_input

    def every_point(self) -> Tensor:
        return torch.arange(math.prod(self._grid()))

    def decoder_query(
        self,
        inputs: Tensor,
        modality_sizes: Mapping[str, int] | None = None,
        inputs_without_pos: Tensor | None = None,
        subsampled_points: Tensor | None = None,
    ) -> Tensor:
        if self.position_channels is None:
            raise ValueError(
                "A decoder with position_encoding_type 'none' makes no queries; give attend or forward your own."
            )
        grid = self._grid()
        points = self.every_point() if subsampled_points is None else subsampled_points
        check_points(points, grid)
        features = self.output_position_encodings.of_outputs(points.to(inputs.device), grid)
        features = self.positions_projection(features.to(inputs.dtype))  # (M, C) or (B, M, C)
        queries = features if features.ndim == 3 else features.expand(inputs.shape[0], -1, -1)  # (B, M, C)
        if not self.concat_preprocessed_input:
            return queries
        if inputs_without_pos is None:
            raise ValueError(
                "With concat_preprocessed_input, queries are made of the inputs: inputs_without_pos (batch, points, "
                "channels) must be given; got None. Use a model with a preprocessor, or pass them to decoder_query."
            )
        content = inputs_without_pos if subsampled_points is None else _rows(inputs_without_pos, points)
        return torch.cat([content, queries], dim=-1)  # (B, M, content + positions)

    def keys_values(self, z: Tensor) -> KeysValues:
        return self.decoding_cross_attention.keys_values(z)

    def attend(
        self,
        query: Tensor,
        keys_values: KeysValues,
        query_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> PerceiverDecoderOutput:
        """query (B or 1, M, C) -> logits (B, M, output_num_channels).

        A `query_mask` (B, M), False where the original model lets a query attend to nothing, counts only with the
        config's reference "deepmind": upstream takes it and ignores it.
        """
        x, attention_map = self.decoding_cross_attention(
            query,
            keys_values,
            output_attentions=output_attentions,
            query_mask=query_mask if self.masks_queries else None,
        )
        return PerceiverDecoderOutput(self.final_layer(x), (attention_map,) if output_attentions else None)

    def _grid(self) -> tuple[int, ...]:
        if self.index_dims is not None:
            return self.index_dims
        rows = getattr(self.output_position_encodings, "index_dims", None)  # a table knows its length
        if rows is None:
            raise ValueError(
                "Fourier queries need the output's size: output_index_dims must be given; got None. "
                "Build the decoder with output_index_dims=(height, width) or the like."
            )
        return rows


class PerceiverClassificationDecoder(PerceiverAbstractDecoder):
    """A basic decoder with one output point, the label: logits (B, num_labels)."""

    def __init__(self, config: PerceiverConfig, **decoder_kwargs: Any) -> None:
        super().__init__()
        self.decoder = PerceiverBasicDecoder(
            config, output_num_channels=config.num_labels, output_index_dims=1, **decoder_kwargs
        )

    def shaped(self, logits: Tensor) -> Tensor:
        return logits[:, 0]


class PerceiverOpticalFlowDecoder(PerceiverAbstractDecoder):
    """A decoder whose queries are the preprocessed inputs, positions included: flow (B, H, W, 2) / rescale_factor."""

    def __init__(
        self,
        config: PerceiverConfig,
        output_image_shape: Sequence[int],
        output_num_channels: int = 2,
        rescale_factor: float = 100.0,
        **decoder_kwargs: Any,
    ) -> None:
        super().__init__()
        self.output_image_shape = tuple(output_image_shape)
        self.rescale_factor = rescale_factor
        self.decoder = PerceiverBasicDecoder(
            config, output_num_channels=output_num_channels, **decoder_kwargs
        )

    @property
    def queries_are_of_inputs(self) -> bool:
        return True

    def every_point(self) -> Tensor:
        return torch.arange(math.prod(self.output_image_shape))

    def decoder_query(
        self,
        inputs: Tensor,
        modality_sizes: Mapping[str, int] | None = None,
        inputs_without_pos: Tensor | None = None,
        subsampled_points: Tensor | None = None,
    ) -> Tensor:
        points = math.prod(self.output_image_shape)
        if inputs.ndim != 3 or inputs.shape[1] != points:
            raise ValueError(
                f"Flow is decoded at every position of an input of {self.output_image_shape}, {points} "
                f"tokens; got tokens of shape {tuple(inputs.shape)}. "
                "Cut frames of another size into tiles: flow.estimate_flow does."
            )
        if subsampled_points is None:
            return inputs
        check_points(subsampled_points, self.output_image_shape)
        return _rows(inputs, subsampled_points)

    def attend(
        self,
        query: Tensor,
        keys_values: KeysValues,
        query_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> PerceiverDecoderOutput:
        output = super().attend(query, keys_values, None, output_attentions)
        return PerceiverDecoderOutput(output.logits / self.rescale_factor, output.cross_attentions)

    def shaped(self, logits: Tensor) -> Tensor:
        return logits.unflatten(1, self.output_image_shape)  # (B, H * W, 2) -> (B, H, W, 2)


class PerceiverBasicVideoAutoencodingDecoder(PerceiverAbstractDecoder):
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
        self.output_shape = tuple(output_shape)  # its batch is read by nobody
        self.decoder = PerceiverBasicDecoder(
            config,
            output_index_dims=output_shape[1:],
            position_encoding_type=position_encoding_type,
            **decoder_kwargs,
        )

    def shaped(self, logits: Tensor) -> Tensor:
        return logits.unflatten(1, self.output_shape[1:])  # (B, T * H * W, C) -> (B, T, H, W, C)


def _rows(x: Tensor, points: Tensor) -> Tensor:
    """Rows of x (B, N, C) at points (M,) or (B, M): (B, M, C)."""
    points = points.to(x.device).long().expand(x.shape[0], points.shape[-1])  # (B, M)
    return x.gather(1, points[..., None].expand(-1, -1, x.shape[-1]))
