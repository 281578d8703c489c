"""image-classification, of all three kinds of checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from perceiver_core import PerceiverImageProcessor
from perceiver_core.checkpoint import inspect, load
from pipelines.contents import IMAGE
from pipelines.tasks.image_classification import ImageClassification
from tests.conftest import LABELS
from tests.pipelines.tasks.staging import rows_of
from tests.pipelines.tasks.tiny import CONV, FOURIER, LEARNED, save_class


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0)
    for name, size in {"a.png": (40, 50), "b.jpg": (33, 30), "c.webp": (64, 20)}.items():
        PIL.Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "d.gif").write_bytes(b"GIF89a")
    PIL.Image.new("RGB", (1, 1)).save(folder / "e.bmp")
    return folder


@pytest.fixture(scope="module", params=[LEARNED, FOURIER, CONV])
def checkpoint(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_class(request.param, tmp_path_factory.mktemp("checkpoint"))


def test_rows_are_the_models_answers(checkpoint: Path, media: Path) -> None:
    model = load(checkpoint)
    learned = inspect(checkpoint).architecture == LEARNED
    processor = PerceiverImageProcessor(size=28, crop_size=32) if learned else PerceiverImageProcessor()
    rows = rows_of(ImageClassification(top_k=3), checkpoint, media, IMAGE)
    assert rows["width"] == [50, 30, 20]
    assert rows["height"] == [40, 33, 64]
    for n, name in enumerate(("a.png", "b.jpg", "c.webp")):
        with PIL.Image.open(media / name) as image, torch.inference_mode():
            logits = model(processor(image, return_tensors="pt").pixel_values).logits
        scores, labels = logits[0].softmax(-1).topk(3)
        assert rows["labels"][n] == [LABELS[i] for i in labels]
        np.testing.assert_allclose(rows["scores"][n], scores.numpy(), rtol=1e-4)
    assert len({tuple(scores) for scores in rows["scores"]}) == 3
    assert [error.kind for error in rows.failed] == ["MediaError"] * 2
    assert "broken header" in rows.failed[0].message
    assert rows.failed[1].message.startswith("expected an image of at least 2 x 2 pixels")


def test_threshold_and_letterbox(tmp_path: Path, media: Path) -> None:
    checkpoint = save_class(LEARNED, tmp_path / "tiny")
    every = rows_of(ImageClassification(top_k=4), checkpoint, media, IMAGE)
    some = rows_of(ImageClassification(top_k=4, threshold=0.3), checkpoint, media, IMAGE)
    kept = [[score for score in scores if score >= 0.3] for scores in every["scores"]]
    assert some["scores"] == kept
    assert sum(map(len, kept)) < 12
    boxed = rows_of(ImageClassification(fit="letterbox", top_k=4), checkpoint, media, IMAGE)
    assert len(boxed["scores"]) == 4  # the single pixel is a picture, too
    assert boxed["scores"][0] != every["scores"][0]


def test_the_plain_model_answers_alike(tmp_path: Path, media: Path) -> None:
    checkpoint = save_class(CONV, tmp_path / "tiny")
    folded, plain = (
        rows_of(ImageClassification(top_k=4), checkpoint, media, IMAGE, fold=fold) for fold in (True, False)
    )
    assert folded["labels"] == plain["labels"]
    np.testing.assert_allclose(folded["scores"], plain["scores"], rtol=1e-4)
