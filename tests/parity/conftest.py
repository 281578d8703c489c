"""transformers as the oracle: the same model twice, theirs and ours, with every tensor randomised.

With default weights a model hides most mistakes: dropping all biases or all LayerNorm weights changes nothing at all.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.perceiver import modeling_perceiver

import perceiver_core
from perceiver_core import PerceiverConfig

EXACT = 1e-10

#: Awkward small sizes of each head: several blocks, layers and heads, H != W where upstream can have that.
ENCODER = {
    "num_latents": 6,
    "d_latents": 16,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
    "num_labels": 5,
}
TEXT = {**ENCODER, "d_model": 24, "max_position_embeddings": 21, "num_cross_attention_heads": 4}
SIZES = {
    "PerceiverForMaskedLM": {**TEXT, "qk_channels": 8, "v_channels": 16},
    "PerceiverForSequenceClassification": TEXT,
    "PerceiverForImageClassificationLearned": {**ENCODER, "image_size": 7},
    "PerceiverForImageClassificationFourier": ENCODER,
    "PerceiverForImageClassificationConvProcessing": ENCODER,
    "PerceiverForOpticalFlow": {**ENCODER, "train_size": (5, 7)},
    # 6 audio tokens (42 samples), 12 image tokens (frames of 8 x 12), 5 x 9 pixels out
    "PerceiverForMultimodalAutoencoding": {
        **ENCODER,
        "num_frames": 2,
        "image_size": 3,
        "audio_samples_per_frame": 21,
        "samples_per_patch": 7,
        "output_shape": (1, 2, 5, 9),
        "output_num_channels": 11,
        "_label_trainable_num_channels": 70,
    },
}
IMAGES = {
    "PerceiverForImageClassificationLearned": (3, 7, 7),
    "PerceiverForImageClassificationFourier": (3, 6, 9),
    "PerceiverForImageClassificationConvProcessing": (3, 37, 50),
    "PerceiverForOpticalFlow": (2, 27, 5, 7),
}
POINTS = {"image": torch.tensor([0, 89, 17, 18, 44, 45, 3]), "audio": torch.tensor([5, 0, 3]), "label": None}


class Oracle:
    """Makes pairs of models and inputs for them."""

    @staticmethod
    def randomise(model: nn.Module, seed: int = 0) -> None:
        """Gives every tensor values at which a mistake shows."""
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith("num_batches_tracked"):
                value = torch.tensor(7)
            elif name.endswith((".bias", "running_mean")):
                value = 0.3 * noise
            elif name.endswith("running_var"):
                value = 0.3 + noise.abs()
            elif "layernorm" in name or "batchnorm" in name:
                value = 1 + 0.3 * noise
            elif name.endswith(".weight") and "embeddings" not in name:
                value = 1.5 * tensor[0].numel() ** -0.5 * noise
            else:  # latents, embeddings, position tables, padding, mask tokens
                value = noise
            tensor.copy_(value)

    @staticmethod
    def tiny(**changes: object) -> dict[str, object]:
        """The multimodal head's sizes."""
        return {**SIZES["PerceiverForMultimodalAutoencoding"], **changes}

    def pair(
        self,
        sizes: dict[str, object],
        seed: int = 0,
        head: str = "PerceiverForMultimodalAutoencoding",
        **ours_only: object,
    ) -> tuple[nn.Module, nn.Module]:
        """Theirs and ours, float64, in eval mode, with the same weights."""
        theirs = getattr(modeling_perceiver, head)(transformers.PerceiverConfig(**sizes))
        ours = getattr(perceiver_core, head)(PerceiverConfig.from_dict({**sizes, **ours_only}))
        theirs = theirs.double().eval()
        self.randomise(theirs, seed)
        ours = ours.double().eval()
        ours.load_state_dict(theirs.state_dict(), strict=True)
        return theirs, ours

    def heads_inputs(
        self, head: str, dtype: torch.dtype = torch.float64
    ) -> tuple[Tensor | dict[str, Tensor], dict[str, object]]:
        """Inputs for a head of SIZES, batch 2, and the arguments that it cannot do without."""
        generator = torch.Generator().manual_seed(1)
        if head == "PerceiverForMultimodalAutoencoding":
            return self.inputs(self.tiny(), dtype=dtype), {"subsampled_output_points": POINTS}
        if head in IMAGES:
            return torch.randn(2, *IMAGES[head], generator=generator, dtype=torch.float64).to(dtype), {}
        return torch.randint(0, 262, (2, 13), generator=generator), {}

    @staticmethod
    def inputs(
        sizes: dict[str, object],
        batch: int = 2,
        image: tuple[int, int, int] = (2, 8, 12),
        samples: int = 42,
        dtype: torch.dtype = torch.float64,
    ) -> dict[str, Tensor]:
        """Random multimodal inputs, different for each sample; `image` is frames, height, width."""
        generator = torch.Generator().manual_seed(1)
        frames, height, width = image
        return {
            "image": torch.rand(batch, frames, 3, height, width, generator=generator, dtype=torch.float64).to(
                dtype
            ),
            "audio": torch.randn(batch, samples, 1, generator=generator, dtype=torch.float64).to(dtype),
            "label": torch.zeros(batch, int(sizes["num_labels"]), dtype=dtype),
        }

    @staticmethod
    def error(got: Tensor, expected: Tensor) -> float:
        """Largest difference, relative to the largest expected value."""
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        return ((got - expected).abs().max() / expected.abs().max()).item()

    def worst(self, got: Any, expected: Any) -> float:
        """The largest error of two outputs of one structure: tensors, dicts and tuples of them, output classes."""
        if isinstance(expected, torch.Tensor):
            return self.error(got, expected)
        if hasattr(expected, "keys"):
            assert list(got.keys()) == list(expected.keys())
            return max((self.worst(got[name], expected[name]) for name in expected), default=0.0)
        assert len(got) == len(expected)
        return max((self.worst(*pair) for pair in zip(got, expected, strict=True)), default=0.0)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on one thread: with two on a busy 2-core machine, a test of 0.4 s took 32 s in OpenMP barriers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield threads
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(params=SIZES, ids=lambda name: name.removeprefix("PerceiverFor"))
def head(request):
    """The name of each head in turn."""
    return request.param


@pytest.fixture
def sizes_of():
    """Small sizes of each head."""
    return SIZES
