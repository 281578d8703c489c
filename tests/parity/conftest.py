"""transformers as the oracle: the same model twice, theirs and ours, with every tensor randomised.

With default weights a model hides most mistakes: dropping all biases or all LayerNorm weights changes nothing at all.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import transformers
from torch import Tensor, nn

from perceiver_core import PerceiverConfig, PerceiverForMultimodalAutoencoding


class Oracle:
    """Makes pairs of models and inputs for them."""

    @staticmethod
    def randomise(model: nn.Module, seed: int = 0) -> None:
        """Gives every tensor values at which a mistake shows."""
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            if name.endswith(".bias"):
                value = 0.3 * noise
            elif "layernorm" in name:
                value = 1 + 0.3 * noise
            elif name.endswith(".weight"):
                value = 1.5 * tensor.shape[1] ** -0.5 * noise
            else:  # latents, position tables, padding, mask tokens
                value = noise
            tensor.copy_(value)

    @staticmethod
    def tiny(**changes: object) -> dict[str, object]:
        """Awkward small sizes: 6 audio tokens (42 samples), 12 image tokens (frames of 8 x 12), 5 x 9 pixels out."""
        sizes = {
            "num_latents": 6,
            "d_latents": 16,
            "num_blocks": 2,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 4,
            "num_cross_attention_heads": 1,
            "num_labels": 5,
            "num_frames": 2,
            "image_size": 3,
            "audio_samples_per_frame": 21,
            "samples_per_patch": 7,
            "output_shape": (1, 2, 5, 9),
            "output_num_channels": 11,
            "_label_trainable_num_channels": 70,
        }
        return {**sizes, **changes}

    def pair(
        self, sizes: dict[str, object], seed: int = 0
    ) -> tuple[transformers.PerceiverForMultimodalAutoencoding, PerceiverForMultimodalAutoencoding]:
        """Theirs and ours, float64, in eval mode, with the same weights."""
        theirs = transformers.PerceiverForMultimodalAutoencoding(transformers.PerceiverConfig(**sizes))
        ours = PerceiverForMultimodalAutoencoding(PerceiverConfig(**sizes))
        theirs = theirs.double().eval()
        self.randomise(theirs, seed)
        ours = ours.double().eval()
        ours.load_state_dict(theirs.state_dict(), strict=True)
        return theirs, ours

    @staticmethod
    def inputs(
        sizes: dict[str, object],
        batch: int = 2,
        image: tuple[int, int, int] = (2, 8, 12),
        samples: int = 42,
        dtype: torch.dtype = torch.float64,
    ) -> dict[str, Tensor]:
        """Random inputs, different for each sample; `image` is frames, height, width."""
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
