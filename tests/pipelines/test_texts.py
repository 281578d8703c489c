"""Texts: what is one, where long ones are cut, and that ids are the tokenizer's."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perceiver_core import PerceiverConfig, PerceiverTokenizer
from pipelines.limits import LimitError, Limits
from pipelines.texts import TextError, check_overlap, cut, padded, read_text, token_ids

CHARACTERS = st.characters(exclude_categories=["Cs"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a text; got 0 bytes; leave it out of the input, or null in a table"),
        (
            b"abc \xff\xfed",
            r"expected UTF-8; got b'\xff\xfed' at byte 4 of 7 (invalid start byte); save the text as UTF-8",
        ),
        (
            b"caf\xc3",
            r"expected UTF-8; got b'\xc3' at byte 3 of 4 (unexpected end of data); save the text as UTF-8",
        ),
        ("\ud800".encode("utf-8", "surrogatepass"), "expected UTF-8; got b'\\xed\\xa0\\x80' at byte 0 of 3"),
    ],
)
def test_what_is_no_text(data: bytes, message: str) -> None:
    with pytest.raises(TextError) as caught:
        read_text(io.BytesIO(data), Limits())
    assert str(caught.value).startswith(message)


def test_a_text_may_be_as_long_as_the_limit() -> None:
    assert read_text(io.BytesIO(b"12345"), Limits(text=5)) == b"12345"
    with pytest.raises(LimitError, match=r"bytes of a text: 7 are more than the 5 that limits\.text allows"):
        read_text(io.BytesIO(b"1234567"), Limits(text=5))


@given(st.text(CHARACTERS, min_size=1, max_size=300), st.integers(16, 60), st.data())
@example("\U0001f600" * 50, 17, None)
def test_windows_cover_a_text_and_cut_no_character(text: str, size: int, draw: st.DataObject | None) -> None:
    data = text.encode()
    overlap = 4 if draw is None else draw.draw(st.integers(0, (size - 8) // 2))
    windows = cut(data, size, overlap)
    assert b"".join(data[w.own_start : w.own_stop] for w in windows) == data
    assert windows[0].start == 0
    assert windows[-1].stop == len(data)
    for window in windows:
        assert window.start <= window.own_start <= window.own_stop <= window.stop
        assert window.stop - window.start <= size
        data[window.start : window.stop].decode()
        data[window.own_start : window.own_stop].decode()
        if len(data) > size:
            assert window.stop - window.start > size - 4
    for before, after in itertools.pairwise(windows):
        assert before.start < after.start <= before.stop - overlap
        assert before.own_stop == after.own_start
        # What a byte has around it in its own window is, but for a character's length, no less than in the other.
        seam = before.own_stop
        assert abs((before.stop - seam) - (seam - after.start)) <= 7
    assert (len(windows) == 1) == (len(data) <= size)


def test_a_long_text_in_windows() -> None:
    spans = [(w.start, w.stop, w.own_start, w.own_stop) for w in cut(b"x" * 25, 10, 2)]
    assert spans == [(0, 10, 0, 9), (8, 18, 9, 16), (15, 25, 16, 25)]
    data = ("x" * 9 + "é" + "y" * 8).encode()
    spans = [(w.start, w.stop, w.own_start, w.own_stop) for w in cut(data, 10, 2)]
    assert spans == [(0, 9, 0, 8), (7, 17, 8, 13), (9, 19, 13, 19)]


def test_overlaps_that_there_are() -> None:
    config = PerceiverConfig(max_position_embeddings=50)
    check_overlap(20, config)
    for overlap in (-1, 21):
        with pytest.raises(
            ValueError, match=rf"overlap must be from 0 to 20, .* 48 bytes .*; got {overlap}\."
        ):
            check_overlap(overlap, config)


@given(st.text(CHARACTERS, max_size=40).filter(lambda text: "[" not in text))
def test_ids_are_the_tokenizers(text: str) -> None:
    assert token_ids(text.encode()).tolist() == PerceiverTokenizer()(text)["input_ids"]


def test_special_tokens_in_a_text_are_bytes() -> None:
    expected = PerceiverTokenizer()("a [SEP] b", split_special_tokens=True)["input_ids"]
    assert token_ids(b"a [SEP] b").tolist() == expected


def test_padding() -> None:
    ids, mask = padded([token_ids(b"a"), token_ids(b"abc")])
    assert ids.tolist() == [[4, 103, 5, 0, 0], [4, 103, 104, 105, 5]]
    assert np.array_equal(mask, [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
