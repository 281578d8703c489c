"""A small multimodal model with weights at which a mistake shows, and inputs for it; a cache; a tokenizer."""

import pytest
import torch

from perceiver_core import PerceiverConfig, PerceiverForMultimodalAutoencoding, PerceiverTokenizer


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on one thread: with two on a busy 2-core machine, a test of 0.4 s took 32 s in OpenMP barriers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield threads
    torch.set_num_threads(threads)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of checkpoints of this test's own."""
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


@pytest.fixture
def tokenizer():
    return PerceiverTokenizer()


@pytest.fixture
def config():
    """6 latents; 6 audio patches and 2 x 5 x 9 pixels out."""
    return PerceiverConfig(
        num_latents=6,
        d_latents=16,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=1,
        num_labels=5,
        num_frames=2,
        image_size=8,
        audio_samples_per_frame=21,
        samples_per_patch=7,
        output_shape=(1, 2, 5, 9),
        output_num_channels=11,
        _label_trainable_num_channels=70,
        initializer_range=0.3,
    )


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    return PerceiverForMultimodalAutoencoding(config).eval().requires_grad_(False)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return {"image": torch.rand(2, 2, 3, 8, 12), "audio": torch.randn(2, 42, 1)}
