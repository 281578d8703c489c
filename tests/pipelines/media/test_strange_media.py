"""Each strange item through the decoder's process: correct windows, or an error that a person understands."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.decoding import Decoder
from pipelines.errors import ItemError
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from pipelines.tensors import unpack
from tests.conftest import tiny_config
from tests.strange import LIMITS, STRANGE, Strange

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """One for all: what one item does to it must not harm the next."""
    made = Decoder(MultimodalAutoencoding(top_k=2), CONFIG, LIMITS)
    yield made
    made.close()


@pytest.mark.parametrize("strange", STRANGE, ids=lambda strange: strange.name)
def test_strange_media(strange: Strange, strange_media: Path, decoder: Decoder) -> None:
    stage, batches = "probe", []
    try:
        with (strange_media / strange.name).open("rb") as file:
            files = {"video": file}
            windows, info = decoder.probe(files)
            stage = "decode"
            batches = list(decoder.windows(files, info, 0, windows))
    except Exception as caught:
        error = ItemError.of(caught, stage)
        assert (error.stage, error.kind) == (strange.stage, strange.error), error.message
        assert re.search(strange.message, error.message), error.message
        assert re.search(r"; [a-z ,/0-9]+$|\. [A-Z].+\.$", error.message), "it does not say what to do"
        return
    assert not strange.error
    assert [batch["window"][0].as_py() for batch in batches] == list(range(strange.windows))
    assert sum(batch["frames"][0].as_py() for batch in batches) == strange.frames
    assert (sum(batch["samples"][0].as_py() for batch in batches) > 0) == strange.sound
    schema = MultimodalAutoencoding().input_schema(CONFIG)
    for batch in batches:
        sound = unpack(batch["audio"], schema.field("audio").type)
        assert np.abs(sound).max() <= 1
        assert (np.abs(sound).max() > 0.05) == strange.sound
        assert unpack(batch["video"], schema.field("video").type).shape == (1, 16, 24, 32, 3)
