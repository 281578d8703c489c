"""The multimodal model, folded. Shapes: B batch, N latents, M output points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_core.decoders import PerceiverAbstractDecoder, PerceiverBasicDecoder
from perceiver_core.folding.algebra import affine, chain
from perceiver_core.folding.cross_attention import FoldedCrossAttention
from perceiver_core.folding.engine import Folded, Inputs, one_head
from perceiver_core.folding.parts import FoldError, multimodal_parts, raw_content
from perceiver_core.folding.queries import BLOCK, FoldedDecoder, FoldedQueries, Queries
from perceiver_core.folding.tokens import Axis, fourier_axes
from perceiver_core.heads.head import PerceiverHead
from perceiver_core.modalities import (
    PerceiverMultimodalDecoder,
    PerceiverMultimodalPostprocessor,
    PerceiverMultimodalPreprocessor,
)
from perceiver_core.output_points import OutputPoints, check_points, chunks
from perceiver_core.positions import (
    PerceiverFourierPositionEncoding,
    PerceiverTrainablePositionEncoding,
    output_positions,
)
from perceiver_core.postprocessors import PerceiverAudioPostprocessor, PerceiverClassificationPostprocessor
from perceiver_core.streaming import check_out


class FoldedMultimodal(Folded):
    """PerceiverForMultimodalAutoencoding."""

    def __init__(self, model: PerceiverHead, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        perceiver = model.perceiver
        self.preprocessor = cast(PerceiverMultimodalPreprocessor, perceiver.input_preprocessor)
        decoder = cast(PerceiverMultimodalDecoder, perceiver.decoder)
        post = cast(PerceiverMultimodalPostprocessor, perceiver.output_postprocessor)
        layer = decoder.decoder.decoding_cross_attention
        one_head(perceiver.encoder.cross_attention.num_heads, "The encoder's cross-attention")
        one_head(layer.num_heads, "The decoder's cross-attention")
        if layer.use_query_residual:
            raise FoldError(
                "The decoder must have no residual around its attention; got one. Use the plain model."
            )
        self.decoder = FoldedDecoder(layer, self.dtype, self.attention_dtype)
        self.shapes = {name: _shape(part) for name, part in post.modalities.items()}
        self.queries: dict[str, FoldedQueries] = {}
        for name in sorted(decoder.modalities):
            tail = chain(
                affine(cast(nn.Linear, post.modalities[name].classifier)),
                affine(cast(nn.Linear, decoder.decoder.final_layer)),
            )
            queries = _queries(
                cast(PerceiverAbstractDecoder, decoder.modalities[name]), decoder.padding[name]
            )
            self.queries[name] = FoldedQueries(queries, layer, tail, self.dtype, self.attention_dtype)

    @property
    def encoder_dtype(self) -> torch.dtype:
        """float32 at least: folded, the encoder is 2% of a clip's work, and bfloat16 in it was most of its error."""
        return self.attention_dtype

    @torch.no_grad()
    def encode(self, inputs: Inputs, attention_mask: Tensor | None = None) -> Tensor:
        self.check()
        given = cast(Mapping[str, Tensor], inputs)
        self.preprocessor.check(given)
        raws = {
            name: raw_content(
                cast(Any, self.preprocessor.modalities[name]), given[name].to(self.attention_dtype)
            )
            for name in sorted(self.preprocessor.modalities)
            if not self.preprocessor.is_constant(name)
        }  # {modality: (B, *grid, R)}
        grids = {name: tuple(raw.shape[1:-1]) for name, raw in raws.items()}
        encoder = self.kept(tuple(grids.items()), lambda: self._encoder(grids))
        names = sorted(self.preprocessor.modalities)
        keep = None if attention_mask is None else attention_mask != 0
        return self.stack(encoder({names.index(n): raw.flatten(1, -2) for n, raw in raws.items()}, keep))

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        points: OutputPoints | Mapping[str, Tensor | None] | None = None,
        chunk_size: int | None = None,
        *,
        inputs: Inputs | None = None,
        attention_mask: Tensor | None = None,
        out: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        self.check()
        plain = cast(PerceiverMultimodalDecoder, self.model.perceiver.decoder)
        wanted = plain.requested(points.indices if isinstance(points, OutputPoints) else points)
        every = plain.every_point() if None in wanted.values() else {}
        asked = {name: every[name] if given is None else given for name, given in wanted.items()}
        normalised, values = self.decoder.keys_values(latents)  # (B, N, D), (B, v, N)
        outputs = {
            name: torch.empty(
                latents.shape[0],
                indices.shape[-1],
                self.queries[name].tail.weight.shape[0],
                dtype=self.dtype,
                device=latents.device,
            )
            for name, indices in asked.items()
        }  # {modality: (B, M, outputs)}
        if out is not None:
            outputs = self._rows_of(out, outputs)
        tables = [
            {name: self.queries[name].table(clip) for name in asked} for clip in normalised
        ]  # for each clip and modality
        # Clips and blocks are computed one by one, so that their numbers depend on no other clip and on no batch size.
        block = BLOCK[latents.device.type]
        for name, indices in asked.items():
            queries = self.queries[name]
            check_points(indices, queries.grid)
            if indices.ndim != 1:
                raise ValueError(
                    f"{name} points must have shape (points,), the same for every clip; got {tuple(indices.shape)}. "
                    "Decode clips with points of their own one by one."
                )
            start = 0
            for piece in cast(
                Iterator[Tensor],
                chunks(indices.long(), block if chunk_size is None else min(chunk_size, block)),
            ):
                bags = queries.bags(torch.unravel_index(piece.to(latents.device), queries.grid))
                for b, clip in enumerate(tables):
                    answer = self.decoder.answer(queries, bags, clip[name], values[b])
                    outputs[name][b, start : start + len(piece)] = answer
                start += len(piece)
        return {name: self.shapes[name](output) for name, output in outputs.items()}

    def _rows_of(self, out: Mapping[str, Tensor], rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """The caller's tensors as rows (B, M, outputs). Raises ValueError unless they are those of what is decoded."""
        if out.keys() != rows.keys():
            raise ValueError(
                f"out must have a tensor for each of {sorted(rows)}, which are decoded, and no other; got "
                f"{sorted(out)}."
            )
        for name, own in rows.items():
            check_out(f"out[{name!r}]", out[name], tuple(self.shapes[name](own).shape), own)
        return {name: out[name].view(own.shape) for name, own in rows.items()}

    def _encoder(self, grids: dict[str, tuple[int, ...]]) -> FoldedCrossAttention:
        perceiver = self.model.perceiver
        return FoldedCrossAttention(
            perceiver.encoder.cross_attention,
            perceiver.embeddings.latents,
            multimodal_parts(self.preprocessor, grids),
            self.encoder_dtype,
            self.attention_dtype,
        )


def _shape(postprocessor: nn.Module) -> Callable[[Tensor], Tensor]:
    """From rows (B, M, outputs) to the modality's output."""
    if isinstance(postprocessor, PerceiverClassificationPostprocessor):
        return lambda rows: rows[:, 0]
    if isinstance(postprocessor, PerceiverAudioPostprocessor):
        return lambda rows: rows.flatten(1)
    return lambda rows: rows


def _queries(decoder: PerceiverAbstractDecoder, padding: Tensor) -> Queries:
    """The queries of one modality's decoder, by axes."""
    basic = cast(PerceiverBasicDecoder, getattr(decoder, "decoder", decoder))
    encoding = basic.output_position_encodings
    device = padding.device
    if basic.concat_preprocessed_input or not isinstance(basic.positions_projection, nn.Identity):
        raise FoldError("Queries must be of positions alone, not projected; got others. Use the plain model.")
    grid: tuple[int, ...] = tuple(basic.every_point().shape)
    if isinstance(encoding, PerceiverFourierPositionEncoding):
        grid = cast(tuple[int, ...], basic.index_dims)
        axes = fourier_axes(encoding, [output_positions(n) for n in grid], device)
    else:
        table = cast(PerceiverTrainablePositionEncoding, encoding).position_embeddings.detach().double()
        axes = [Axis(torch.arange(table.shape[1], device=device), table)]
    return Queries(grid, axes, padding.detach().double().flatten(), encoding.output_size())
