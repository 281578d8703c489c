"""fold(model): the same answers from far fewer FLOPs."""

from __future__ import annotations

from typing import Any

import torch

from perceiver_core.folding.engine import Folded
from perceiver_core.folding.flow import FoldedFlow
from perceiver_core.folding.images import FoldedImageModel
from perceiver_core.folding.multimodal import FoldedMultimodal
from perceiver_core.folding.parts import FoldError
from perceiver_core.folding.text import FoldedTextModel
from perceiver_core.heads import (
    PerceiverForImageClassificationConvProcessing,
    PerceiverForImageClassificationFourier,
    PerceiverForImageClassificationLearned,
    PerceiverForMaskedLM,
    PerceiverForMultimodalAutoencoding,
    PerceiverForOpticalFlow,
    PerceiverForSequenceClassification,
)

FOLDED = {
    PerceiverForImageClassificationConvProcessing: FoldedImageModel,
    PerceiverForImageClassificationFourier: FoldedImageModel,
    PerceiverForImageClassificationLearned: FoldedImageModel,
    PerceiverForMaskedLM: FoldedTextModel,
    PerceiverForMultimodalAutoencoding: FoldedMultimodal,
    PerceiverForOpticalFlow: FoldedFlow,
    PerceiverForSequenceClassification: FoldedTextModel,
}


def fold(model: Any, dtype: torch.dtype | None = None) -> Folded:
    """An inference module of a head in eval mode: its encode and decode, in real arithmetic the same function.

    `dtype`, by default the model's, is that of the matrix products: float32 weights folded to bfloat16 are rounded
    once, after the algebra, and so nearer to float32 than a model that was bfloat16 before. Sums that run through the
    model (softmax, residuals, variances) are float32 at least.
    The model stays what it is, and what the folded one reads where nothing is to be folded. Once its weights change, or
    move, the folded one refuses to run. Raises FoldError, with the reason, for what cannot be folded.
    """
    kind = FOLDED.get(type(model))
    if kind is None:
        raise FoldError(
            f"fold() takes one of {', '.join(sorted(known.__name__ for known in FOLDED))}; got {type(model).__name__}. "
            "Use the plain model."
        )
    return kind(model, model.dtype if dtype is None else dtype)
