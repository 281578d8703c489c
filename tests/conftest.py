"""What several rooms' tests need: a tiny checkpoint, a few real clips, a Ray that stays on this machine."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluster.local import Resources, local_ray
from perceiver_core import PerceiverConfig, PerceiverForMultimodalAutoencoding
from perceiver_core.checkpoint import save
from tests.strange import make_strange_media

os.environ["HF_HUB_OFFLINE"] = "1"
# Before any test imports ray, which reads them once: loopback only, and a token for all Rays that tests start.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run store that is nobody's."""
    os.environ["PERCEIVER_STATE"] = str(tmp_path_factory.mktemp("state"))


LABELS = ["apple", "bell", "cat", "drum"]


def tiny_config(height: int = 24, width: int = 32) -> PerceiverConfig:
    """The published architecture at the smallest size that still has H != W and several heads."""
    return PerceiverConfig(
        num_latents=8,
        d_latents=16,
        d_model=704,
        num_self_attends_per_block=1,
        num_self_attention_heads=2,
        num_cross_attention_heads=1,
        image_size=8,
        output_shape=(1, 16, height, width),
        output_num_channels=8,
        _label_trainable_num_channels=4,
        id2label=dict(enumerate(LABELS)),
    )


def save_tiny(folder: Path, height: int = 24, width: int = 32) -> Path:
    torch.manual_seed(0)
    save(PerceiverForMultimodalAutoencoding(tiny_config(height, width)), folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def ray_here() -> Iterator[Resources]:
    """One Ray for all tests that need one, with a logical GPU, so that both kinds of pools can be placed."""
    with local_ray(cpus=4, gpus=1) as resources:
        yield resources


@pytest.fixture(scope="session")
def gpu() -> None:
    """For tests that need one: `make gpus`."""
    assert torch.cuda.is_available(), "make gpus needs a GPU that PyTorch sees: look at perceive doctor"


@pytest.fixture(scope="session")
def strange_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each kind that tests/strange.py knows."""
    return make_strange_media(tmp_path_factory.mktemp("strange"))
