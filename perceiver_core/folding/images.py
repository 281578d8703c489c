"""Image classifiers, folded: the encoder's cross-attention reads pixels, not tokens."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from perceiver_core.folding.cross_attention import FoldedCrossAttention
from perceiver_core.folding.engine import Folded, one_head
from perceiver_core.folding.parts import part_of, raw_content
from perceiver_core.heads.head import PerceiverHead
from perceiver_core.image_preprocessor import PerceiverImagePreprocessor


class FoldedImageModel(Folded):
    """A model of one image (or frame pair) preprocessor."""

    def __init__(self, model: PerceiverHead, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        encoder = model.perceiver.encoder
        one_head(encoder.cross_attention.num_heads, "The encoder's cross-attention")
        self.preprocessor = cast(PerceiverImagePreprocessor, model.perceiver.input_preprocessor)

    @torch.no_grad()
    def encode(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        self.check()
        raw = raw_content(self.preprocessor, inputs.to(self.model.dtype))  # (B, *grid, R)
        encoder = self.encoder(tuple(raw.shape[1:-1]))
        keep = None if attention_mask is None else attention_mask != 0
        return self.stack(encoder({0: raw.flatten(1, -2)}, keep))

    def encoder(self, grid: tuple[int, ...]) -> FoldedCrossAttention:
        """The cross-attention for inputs of one size."""
        return self.kept(grid, lambda: self._encoder(grid))

    def _encoder(self, grid: tuple[int, ...]) -> FoldedCrossAttention:
        perceiver = self.model.perceiver
        nothing = perceiver.embeddings.latents.new_zeros(0)
        return FoldedCrossAttention(
            perceiver.encoder.cross_attention,
            perceiver.embeddings.latents,
            [part_of("image", self.preprocessor, grid, nothing)],
            self.encoder_dtype,
            self.attention_dtype,
        )
