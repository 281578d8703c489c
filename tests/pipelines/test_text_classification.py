"""text-classification: the model's labels, of whole texts and of windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_core import PerceiverTokenizer
from perceiver_core.checkpoint import load
from pipelines.contents import TEXT
from pipelines.sources.files import Files
from pipelines.tasks.text_classification import TextClassification
from pipelines.texts import cut
from tests.pipelines.staging import save_head, stages

NAMES = ["poem", "prose", "recipe"]
LONG = "Flour, three eggs, a pinch of salt; café au lait beside it. " * 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("checkpoint") / "text", "PerceiverForSequenceClassification")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name, text in {"a": "Röslein rot", "b": "[SEP] is no token here", "long": LONG}.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "empty.txt").touch()
    return folder


def scores(checkpoint: Path, text: bytes) -> np.ndarray:
    """perceiver_core's answer on a text alone."""
    ids = PerceiverTokenizer()(text.decode(), split_special_tokens=True)["input_ids"]
    with torch.inference_mode():
        return load(checkpoint)(torch.tensor([ids])).logits.softmax(-1)[0].numpy()


@pytest.mark.parametrize("fold", [True, False])
def test_every_window_is_the_models_answer(checkpoint: Path, texts: Path, fold: bool) -> None:
    task = TextClassification(top_k=3, overlap=16)
    rows, errors = stages(task, checkpoint, Files((str(texts),), TEXT), fold=fold)
    long = LONG.encode()
    windows = [("a", 0, "Röslein rot".encode()), ("b", 0, b"[SEP] is no token here")]
    windows += [("long", w.start, long[w.start : w.stop]) for w in cut(long, 48, 16)]
    assert rows.num_rows == len(windows) > 6
    number: dict[str, int] = {}
    for row, (name, start, text) in zip(rows.to_pylist(), windows, strict=True):
        assert (Path(row["uri"]).stem, row["start"], row["bytes"]) == (name, start, len(text))
        assert row["window"] == number.get(name, 0)
        number[name] = row["window"] + 1
        expected = scores(checkpoint, text)
        order = np.argsort(-expected)
        assert row["labels"] == [NAMES[i] for i in order]
        np.testing.assert_allclose(row["scores"], expected[order], rtol=1e-4)
    assert errors["empty.txt"].message.startswith("expected a text; got 0 bytes")


@pytest.mark.parametrize("long", ["truncate", "error"])
def test_what_becomes_of_long_texts(checkpoint: Path, texts: Path, long: Any) -> None:
    task = TextClassification(top_k=1, overlap=0, long=long)
    rows, errors = stages(task, checkpoint, Files((str(texts / "long.txt"),), TEXT))
    if long == "error":
        assert rows.num_rows == 0
        assert errors["long.txt"].message == (
            f"expected a text of at most 48 bytes, as many as the checkpoint reads at once; got {len(LONG.encode())}; "
            "cut it, or set options.long to windows or truncate"
        )
        return
    [row] = rows.to_pylist()
    expected = scores(checkpoint, LONG.encode()[:48])
    assert (row["window"], row["start"], row["bytes"]) == (0, 0, 48)
    assert row["labels"] == [NAMES[int(expected.argmax())]]


def test_a_threshold(checkpoint: Path, texts: Path) -> None:
    task = TextClassification(top_k=3, overlap=0, threshold=0.5)
    rows, _ = stages(task, checkpoint, Files((str(texts),), TEXT))
    assert all(score >= 0.5 for row in rows["scores"].to_pylist() for score in row)
    assert {len(row) for row in rows["labels"].to_pylist()} <= {0, 1}


def test_as_many_labels_as_the_checkpoint_has(checkpoint: Path) -> None:
    config = load(checkpoint).config
    with pytest.raises(ValueError, match="top_k is 4, but the checkpoint has 3 labels"):
        TextClassification(top_k=4, overlap=0).check(config)
    with pytest.raises(ValueError, match="overlap must be from 0 to 20"):
        TextClassification(top_k=3).check(config)
