"""Text models, folded: what is padding is not computed. Shapes: B batch, N bytes, H heads, L latents, C channels."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from perceiver_core.folding.algebra import Affine, normalised, projections, wide
from perceiver_core.folding.engine import Folded
from perceiver_core.folding.stack import FoldedMLP
from perceiver_core.heads.head import PerceiverHead
from perceiver_core.preprocessors import PerceiverTextPreprocessor


class FoldedTextModel(Folded):
    """A model of token ids. Its cross-attention has several heads, narrower than a token: keys and values stay."""

    def __init__(self, model: PerceiverHead, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        perceiver = model.perceiver
        layer = perceiver.encoder.cross_attention
        p = projections(layer)
        self.heads = layer.num_heads
        self.sizes = [p.key.weight.shape[0], p.value.weight.shape[0]]
        self.joined = Affine(
            torch.cat([p.key.weight, p.value.weight]), torch.cat([p.key.bias, p.value.bias])
        ).to(self.dtype)
        latents = perceiver.embeddings.latents
        queries = p.query(normalised(latents, layer.attention.self.layernorm1.eps)).to(self.dtype)
        self.queries = queries.unflatten(-1, (self.heads, -1)).transpose(0, 1).contiguous()  # (H, L, C/H)
        self.output = p.output.to(self.dtype)
        self.residual = latents.detach().to(self.attention_dtype) if layer.use_query_residual else None
        self.eps = layer.attention.self.layernorm2.eps
        self.mlp = FoldedMLP(layer, self.dtype)
        self.preprocessor = cast(PerceiverTextPreprocessor, perceiver.input_preprocessor)

    @torch.no_grad()
    def encode(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        self.check()
        self.preprocessor.check(inputs)
        if attention_mask is not None and attention_mask.shape != inputs.shape:
            raise ValueError(
                f"attention_mask must have shape {tuple(inputs.shape)}; got {tuple(attention_mask.shape)}. "
                "Give one number for each token of the encoder's input."
            )
        keep = (
            torch.ones_like(inputs, dtype=torch.bool) if attention_mask is None else attention_mask != 0
        )  # (B, N)
        empty = ~keep.any(dim=1)
        keep = keep | empty[:, None]
        rows, columns = keep.nonzero(as_tuple=True)  # of all real bytes, one text after the other
        tokens = self.preprocessor.embeddings.weight[inputs[rows, columns]]
        tokens = tokens + self.preprocessor.position_embeddings.weight[columns]  # (bytes, C)
        normal = nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=self.eps)
        joined = self.joined(normal.to(self.dtype))
        contexts = []
        for text, nothing in zip(joined.split(keep.sum(1).tolist()), empty.tolist(), strict=True):
            key, value = (
                part.unflatten(-1, (self.heads, -1)).transpose(0, 1)
                for part in text.split(self.sizes, dim=-1)
            )  # (H, bytes, C/H)
            # A text of padding alone is attended to evenly, as by the plain model.
            queries = torch.zeros_like(self.queries) if nothing else self.queries
            contexts.append(_attend(queries, key, value))
        a = self.output(torch.stack(contexts))  # (B, L, D)
        a = wide(a) if self.residual is None else wide(a) + self.residual
        return self.stack(self.mlp(a))


def _attend(queries: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(H, L, q), (H, N, q) and (H, N, v) -> (L, H * v)."""
    if queries.device.type != "cpu":
        context = nn.functional.scaled_dot_product_attention(queries[None], key[None], value[None])[0]
    else:  # for heads of different widths SDPA's CPU path is no faster, and copies
        scores = torch.matmul(queries, key.transpose(1, 2)).div_(math.sqrt(queries.shape[-1]))
        context = torch.matmul(torch.softmax(scores, dim=-1), value)
    return context.transpose(0, 1).flatten(1)
