"""Optical flow, folded: the decoder's queries are the tokens. Shapes: B batch, N tokens, L latents, D of a latent."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn

from perceiver_core.decoders import PerceiverOpticalFlowDecoder
from perceiver_core.folding.algebra import Affine, affine, centred, chain, projections
from perceiver_core.folding.cross_attention import FoldedPart
from perceiver_core.folding.engine import Inputs, one_head
from perceiver_core.folding.images import FoldedImageModel
from perceiver_core.folding.linear import linear
from perceiver_core.folding.parts import FoldError, raw_content
from perceiver_core.heads.head import PerceiverHead
from perceiver_core.output_points import check_points
from perceiver_core.streaming import check_out

BLOCK = {"cpu": 1024, "cuda": 1 << 16}  # tokens that attend at a time


class FoldedFlow(FoldedImageModel):
    """PerceiverForOpticalFlow."""

    def __init__(self, model: PerceiverHead, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        decoder = cast(PerceiverOpticalFlowDecoder, model.perceiver.decoder)
        layer = decoder.decoder.decoding_cross_attention
        one_head(layer.num_heads, "The decoder's cross-attention")
        if layer.use_query_residual:
            raise FoldError(
                "The decoder must have no residual around its attention; got one. Use the plain model."
            )
        p = projections(layer)
        wide = self.attention_dtype
        self.size = decoder.output_image_shape
        # scores of token x with latent z: [query.weight^T (key z)] x / s, and the query's bias with the key
        weight = centred(p.query.weight) / math.sqrt(p.query.weight.shape[0])  # (qk, C)
        self.keys = chain(Affine(weight.T, weight.new_zeros(weight.shape[1])), p.key).to(wide)  # D -> C
        bias = p.query.bias / math.sqrt(p.query.weight.shape[0])
        self.key_bias = Affine((bias @ p.key.weight)[None], (bias @ p.key.bias)[None]).to(wide)  # D -> 1
        self.values = chain(p.output, p.value).to(wide)  # D -> C: what the attention says, projected
        self.eps = layer.attention.self.layernorm2.eps
        self.hidden = p.hidden.to(wide)  # a seventh of the products, and in bfloat16 half of the error
        self.layer_eps = layer.layernorm.eps
        self.activation = layer.mlp.activation
        final = affine(cast(nn.Linear, decoder.decoder.final_layer))
        final = Affine(final.weight / decoder.rescale_factor, final.bias / decoder.rescale_factor)
        self.tail = chain(final, p.last).to(wide)
        self.direct = Affine(final.weight, torch.zeros_like(final.bias)).to(wide)

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        points: Any = None,
        chunk_size: int | None = None,
        *,
        inputs: Inputs | None = None,
        attention_mask: Tensor | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, L, D) and the patches that they were made of -> flow (B, H, W, 2), or (B, M, 2) at the points."""
        self.check()
        if not isinstance(inputs, Tensor):
            raise ValueError(
                "This model's queries are made of its inputs: decode() must be given `inputs` too; got None. "
                "Give what encode() was given."
            )
        raw = raw_content(self.preprocessor, inputs.to(self.model.dtype))  # (B, H, W, R)
        if tuple(raw.shape[1:-1]) != self.size:
            raise ValueError(
                f"Flow is decoded at every position of an input of {self.size}; got one of {tuple(raw.shape[1:-1])}. "
                "Cut frames of another size into tiles: flow.estimate_flow does."
            )
        part = cast(FoldedPart, self.encoder(self.size).parts[0])
        count = math.prod(self.size)
        rows = torch.arange(count, device=latents.device)[None]
        if points is not None:
            check_points(points, self.size)
            rows = points.to(latents.device).long().reshape(-1, points.shape[-1])  # (1 or B, M)
        flow = latents.new_empty(latents.shape[0], rows.shape[1], 2, dtype=self.dtype)  # (B, M, 2)
        if out is not None:
            shaped = flow.unflatten(1, self.size) if points is None else flow
            check_out("out", out, tuple(shaped.shape), flow)
            flow = out.view(flow.shape)
        for b, own in enumerate(raw.flatten(1, -2).to(self.attention_dtype)):
            self._decode(latents[b], own, part, rows[b if len(rows) > 1 else 0], chunk_size, flow[b])
        return flow.unflatten(1, self.size) if points is None else flow

    def _decode(
        self,
        latents: Tensor,
        raw: Tensor,
        part: FoldedPart,
        rows: Tensor,
        chunk_size: int | None,
        out: Tensor,
    ) -> None:
        """One frame pair's flow at some tokens (M,) into out (M, 2)."""
        z = nn.functional.layer_norm(
            latents.to(self.attention_dtype), latents.shape[-1:], eps=self.eps
        )  # (L, D)
        of_content, tables, fixed = part.for_scores(self.keys(z))
        # One row for each entry of each axis, and the query's bias: a token's scores are a sum of axes + 1 of them.
        table = torch.cat([tables[0] + fixed, *tables[1:], self.key_bias(z).T])  # (sum of n + 1, L)
        starts = [0, *accumulate(rows.shape[0] for rows in tables)]
        values = self.values(z)  # (L, C)
        common = values.mean(0) if self.dtype != self.attention_dtype else values.new_zeros(())
        # Shares of the latents sum to 1, so what all values have in common need not go through a product that rounds:
        # in bfloat16 that, and the MLP in float32, bring the error from 3% of the largest flow to 0.6%.
        values = (values - common).to(self.dtype).T.contiguous()  # (C, L)
        inverse = part.inverse_deviations(raw)  # (N,)
        limit = BLOCK[out.device.type]
        for piece, flow in zip(*(x.split(min(chunk_size or limit, limit)) for x in (rows, out)), strict=True):
            entries = (*torch.unravel_index(piece, part.grid), torch.zeros_like(piece))
            bags = torch.stack([entry + start for entry, start in zip(entries, starts, strict=True)], dim=1)
            shares = inverse[piece, None].expand_as(bags).clone()  # (M, axes + 1)
            shares[:, -1] = 1
            # One pass over (M, L) where gathers, sums and the division take six.
            scores = nn.functional.embedding_bag(bags, table, mode="sum", per_sample_weights=shares)  # (M, L)
            scores.addmm_(raw[piece] * inverse[piece, None], of_content.T)
            torch.softmax(scores, dim=1, out=scores)
            y = linear(scores.to(self.dtype), values) + common  # (M, C), float32 at least
            hidden = self.activation(
                self.hidden(nn.functional.layer_norm(y, y.shape[-1:], eps=self.layer_eps))
            )
            flow.copy_(self.tail(hidden) + self.direct(y))
