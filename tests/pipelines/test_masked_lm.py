"""masked-lm: which bytes are masked, in which window they are filled in, and with what."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_core import PerceiverConfig, PerceiverTokenizer
from perceiver_core.checkpoint import load
from pipelines.contents import TEXT
from pipelines.decoding import Decoder
from pipelines.errors import ItemError
from pipelines.limits import Limits
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sources.choose import choose
from pipelines.sources.files import Files
from pipelines.stages import Decode, check_kept, split_block
from pipelines.tasks.masked_lm import MaskedLM
from pipelines.texts import cut
from tests.pipelines.staging import save_head, stages

CONFIG = PerceiverConfig(max_position_embeddings=50)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("checkpoint") / "lm", "PerceiverForMaskedLM")


def run(folder: Path, checkpoint: Path, texts: dict[str, bytes], **options: Any) -> Any:
    """Rows by the text's name, and errors by its file's."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text)
    fold = options.pop("fold", True)
    limits = options.pop("limits", Limits())
    task = MaskedLM(**({"overlap": 16, "top_k": 3} | options))
    table, errors = stages(task, checkpoint, Files((str(folder),), TEXT), fold=fold, limits=limits)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(Path(row["uri"]).stem, []).append(row)
    return rows, errors


def test_texts_of_a_table_and_what_is_kept_of_it(checkpoint: Path, tmp_path: Path) -> None:
    lines = [
        {"body": "a[MASK]", "author": "x"},
        {"body": None, "author": "y"},
        {"body": "", "author": "z"},
        {"body": "é[MASK]", "author": None},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = MaskedLM(overlap=16)
    source = choose([str(path)], "auto", {"text": "body"}, ["author"], task.contents, Limits())
    check_kept(source.kept, task, CONFIG)
    decode = Decode(task, CONFIG, source, Limits())
    [spans] = shards(cut_shards(list_and_probe(source, [Decoder(task, CONFIG, Limits())]), 64)).values()
    with closing(decode.reader):
        good, failed = split_block(decode.shard(spans))
    assert good.select(["author", "positions"]).to_pylist() == [
        {"author": "x", "positions": [1]},
        {"author": None, "positions": [2]},
    ]
    errors = [ItemError.from_json(error).message for error in failed["error"].to_pylist()]
    assert len(errors) == 2
    assert "null" in errors[0]
    assert errors[1].startswith("expected a text; got 0 bytes")


def answer(model: Any, ids: list[int], places: list[int]) -> Any:
    """Probabilities of the bytes at these places of one text alone, all rows decoded."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
    return logits.softmax(-1)[places, 6:262]


@pytest.mark.parametrize("fold", [True, False])
def test_marked_bytes_are_the_models_answer(checkpoint: Path, tmp_path: Path, fold: bool) -> None:
    texts = {"a": "Wer reitet so sp[MASK]t?", "b": "[MASK] ü [MASK][MASK]", "c": "nothing masked: é"}
    rows, errors = run(tmp_path / "in", checkpoint, {k: v.encode() for k, v in texts.items()}, fold=fold)
    assert not errors
    model, tokenizer = load(checkpoint), PerceiverTokenizer()
    for name, positions in (("a", [16]), ("b", [0, 5, 6])):
        [row] = rows[name]
        assert (row["window"], row["start"], row["positions"]) == (0, 0, positions)
        ids = tokenizer(texts[name])["input_ids"]  # [MASK] becomes its id, one byte
        assert [place for place, index in enumerate(ids) if index == 3] == [p + 1 for p in positions]
        scores, best = answer(model, ids, [p + 1 for p in positions]).topk(3)
        assert row["tokens"] == best.tolist()
        np.testing.assert_allclose(row["scores"], scores.numpy(), rtol=1e-4)
        filled = bytearray(texts[name].replace("[MASK]", "_").encode())
        for position, byte in zip(positions, best[:, 0].tolist(), strict=True):
            filled[position] = byte
        assert row["filled"] == filled.decode(errors="replace")
    [row] = rows["c"]
    assert (row["positions"], row["tokens"], row["scores"], row["filled"]) == ([], [], [], texts["c"])


def test_a_text_without_masks_needs_no_model(tmp_path: Path) -> None:
    task = MaskedLM()
    (tmp_path / "a.txt").write_text("nothing")
    with (tmp_path / "a.txt").open("rb") as file:
        [window] = task.preprocess({"text": file}, None, 0, 1, CONFIG, Limits())
    done = task.predict(None, {"ids": [window["ids"]], "places": [window["places"]]}, 7)
    assert [array.shape for arrays in done.values() for array in arrays] == [(0, 5), (0, 5)]


def test_a_marker_may_stand_for_several_bytes(checkpoint: Path, tmp_path: Path) -> None:
    rows, _ = run(tmp_path / "in", checkpoint, {"a": b"ab[MASK]c[MASK]"}, mask_bytes=2)
    [row] = rows["a"]
    assert row["positions"] == [2, 3, 5, 6]
    model = load(checkpoint)
    ids = [4, *(byte + 6 for byte in b"ab"), 3, 3, ord("c") + 6, 3, 3, 5]
    assert row["tokens"] == answer(model, ids, [3, 4, 6, 7]).topk(3).indices.tolist()


def test_given_positions_are_masked_and_markers_are_text(checkpoint: Path, tmp_path: Path) -> None:
    texts = {"a": "grün [MASK]".encode(), "b": b"shorter"}
    rows, errors = run(tmp_path / "in", checkpoint, texts, positions=((2, 4), (3, 5), (7, 8)))
    [row] = rows["a"]
    assert row["positions"] == [2, 3, 4, 7]
    ids = [4, *(byte + 6 for byte in texts["a"]), 5]
    for place in (3, 4, 5, 8):
        ids[place] = 3
    assert row["tokens"] == answer(load(checkpoint), ids, [3, 4, 5, 8]).topk(3).indices.tolist()
    assert row["filled"].endswith("ASK]")
    assert errors["b.txt"].message == (
        "expected a text of 8 bytes or more, for options.positions reach so far; got 7; leave it out of the input, or "
        "mark its masks as [MASK]"
    )


def test_each_mask_of_a_long_text_is_filled_in_where_most_is_around_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    pieces = [piece.encode() for piece in ("", "äöü a", "äöü " * 19, "bö", "", "üä " * 30, "")]
    rows, errors = run(tmp_path / "in", checkpoint, {"a": b"[MASK]".join(pieces)})
    assert not errors
    model = load(checkpoint)
    whole = b"_".join(pieces)
    masks = np.cumsum([len(piece) + 1 for piece in pieces[:-1]]) - 1
    assert [position for row in rows["a"] for position in row["positions"]] == masks.tolist()
    windows = cut(whole, 48, 16)
    owners = [n for n, w in enumerate(windows) if ((w.own_start <= masks) & (masks < w.own_stop)).any()]
    assert [row["window"] for row in rows["a"]] == owners
    assert 2 < len(owners) < len(windows)  # some windows have nothing to fill in
    for row in rows["a"]:
        for position, tokens in zip(row["positions"], row["tokens"], strict=True):
            start, stop = best_window(whole, position)
            ids = [4, *(byte + 6 for byte in whole[start:stop]), 5]
            for mask in masks[(masks >= start) & (masks < stop)]:
                ids[mask - start + 1] = 3
            assert tokens == answer(model, ids, [position - start + 1])[0].topk(3).indices.tolist()
        window = windows[row["window"]]
        assert row["start"] == window.own_start
        filled = bytearray(whole[window.own_start : window.own_stop])
        for position, tokens in zip(row["positions"], row["tokens"], strict=True):
            filled[position - window.own_start] = tokens[0]
        assert row["filled"] == filled.decode(errors="replace")


def best_window(text: bytes, position: int) -> tuple[int, int]:
    """The window, of all that there are, in which a byte is furthest from a cut."""

    def margin(span: tuple[int, int]) -> float:
        left = position - span[0] if span[0] else np.inf
        right = span[1] - 1 - position if span[1] < len(text) else np.inf
        return min(left, right)

    spans = [(w.start, w.stop) for w in cut(text, 48, 16) if w.start <= position < w.stop]
    return max(spans, key=margin)


@given(st.lists(st.text(st.sampled_from("aé😀["), max_size=9), min_size=1, max_size=6), st.integers(1, 3))
def test_markers_are_found(pieces: list[str], mask_bytes: int) -> None:
    text = "[MASK]".join(pieces).encode()
    expected = text.split(b"[MASK]")
    whole, masked = MaskedLM(mask_bytes=mask_bytes)._masked(text)
    rest = np.delete(np.frombuffer(whole, np.uint8), masked).tobytes()
    assert rest == b"".join(expected)
    assert len(masked) == (len(expected) - 1) * mask_bytes
    assert {whole[at : at + 1] for at in masked} <= {b"_"}
    whole.decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k must be from 1 to 256, as many as there are bytes; got 0."),
        ({"top_k": 257}, "top_k must be from 1 to 256, as many as there are bytes; got 257."),
        ({"mask_bytes": 0}, "mask_bytes must be at least 1; got 0."),
        ({"positions": ((4, 4),)}, r"positions must be spans with 0 <= start < stop; got [4, 4]."),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MaskedLM(**options)


def test_what_is_no_text_is_an_error_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    texts = {"empty": b"", "latin": "naïf".encode("latin-1"), "long": b"x" * 101, "good": b"x[MASK]"}
    rows, errors = run(tmp_path / "in", checkpoint, texts, limits=Limits(text=100))
    assert rows.keys() == {"good"}
    assert {name: (error.stage, error.kind) for name, error in errors.items()} == {
        "empty.txt": ("decode", "TextError"),
        "latin.txt": ("decode", "TextError"),
        "long.txt": ("decode", "LimitError"),
    }
    assert errors["latin.txt"].message.startswith("expected UTF-8; got b'\\xeff' at byte 2 of 4")
