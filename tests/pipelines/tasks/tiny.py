"""Checkpoints of every class, at sizes that take no time."""

from pathlib import Path

import torch

from perceiver_core import PerceiverConfig
from perceiver_core.checkpoint import save
from perceiver_core.heads import ARCHITECTURES
from tests.conftest import LABELS

LEARNED, FOURIER, CONV = (
    f"PerceiverForImageClassification{kind}" for kind in ("Learned", "Fourier", "ConvProcessing")
)
MASKED, TEXTS, FLOW = (
    "PerceiverForMaskedLM",
    "PerceiverForSequenceClassification",
    "PerceiverForOpticalFlow",
)
D_MODEL = {LEARNED: 512, FOURIER: 261, CONV: 322, MASKED: 32, TEXTS: 32, FLOW: 322}


def save_class(architecture: str, folder: Path, **changes: object) -> Path:
    """A checkpoint with random weights, at which answers differ; learned positions are 28 x 28."""
    config = PerceiverConfig(
        **{
            "architectures": (architecture,),
            "num_latents": 8,
            "d_latents": 16,
            "d_model": D_MODEL[architecture],
            "num_self_attends_per_block": 1,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 8 if architecture in (MASKED, TEXTS) else 1,
            "image_size": 28,
            "max_position_embeddings": 24,
            "initializer_range": 0.3,
            "id2label": dict(enumerate(LABELS)),
        }
        | changes  # type: ignore[arg-type]
    )
    torch.manual_seed(0)
    save(ARCHITECTURES[architecture](config), folder)
    return folder
