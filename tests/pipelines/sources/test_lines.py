"""Lines: where they are, and that they are all there."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contents import IMAGE, TEXT
from pipelines.items import InputError
from pipelines.limits import Limits
from pipelines.sources import lines
from tests.pipelines.sources.reading import chosen, opened


@given(
    parts=st.lists(st.sampled_from([b"\n", b"a", b"bc\r", b"\n\n", b"\xff" * 5, b""]), max_size=30),
    chunk=st.integers(1, 9),
)
def test_spans_are_the_lines(parts: list[bytes], chunk: int) -> None:
    text = b"".join(parts)
    expected = text.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "_CHUNK", chunk)
        spans = list(lines.line_spans(io.BytesIO(text)))
    assert [text[offset : offset + size] for offset, size in spans] == expected


def test_a_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\nthree \xff\n")
    (tmp_path / "b.txt").write_bytes(b"last, without a newline")
    rows = opened(chosen(tmp_path, (TEXT,), format="lines"))
    assert [row["text"] for row in rows] == [b"one", b"", b"three \xff", b"last, without a newline"]
    assert [row["member"] for row in rows] == ["0", "1", "2", "0"]
    assert len({row["id"] for row in rows}) == 4


def test_a_document_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    assert [row["text"] for row in opened(chosen(tmp_path, (TEXT,)))] == [b"one\ntwo\n"]
    rows = opened(chosen(tmp_path, (TEXT,), limits=Limits(text=7)))
    assert rows[0]["error"].startswith(
        "LimitError: bytes of the text: 8 are more than the 7 that limits.text allows"
    )


def test_a_long_line_is_one_bad_item(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"short\n" + b"x" * 11 + b"\nshort too\n")
    rows = opened(chosen(tmp_path, (TEXT,), format="lines", limits=Limits(text=10)))
    assert [row.get("text") for row in rows] == [b"short", None, b"short too"]
    assert "bytes of the text: 11 are more than the 10 that limits.text allows" in rows[1]["error"]


def test_a_file_that_changed_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n")
    source = chosen(tmp_path, (TEXT,), format="lines")
    items = list(source.items())
    (tmp_path / "a.txt").write_bytes(b"one\n")
    assert "expected 3 bytes at 4, got 0: the file has changed" in opened(source, items)[1]["error"]


def test_what_has_no_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match="No lines in"):
        opened(chosen(tmp_path, (TEXT,), format="lines"))
    with pytest.raises(InputError, match=r"format: lines is for texts; the task can be given image"):
        chosen(tmp_path, (IMAGE,), format="lines")
    with pytest.raises(InputError, match="lines have no columns"):
        chosen(tmp_path, (TEXT,), format="lines", keep=["n"])
