"""CSV and JSON Lines: where their records are, and what a record becomes."""

import csv
import datetime
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contents import IMAGE, PAIR, TEXT
from pipelines.items import InputError
from pipelines.limits import Limits
from pipelines.sources.records import Records, _csv_spans
from tests.pipelines.sources.reading import chosen, opened

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ['"', ",", "\n", "\r\n", '"a","b"', "\n\n"]
)


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=12),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_records_are_where_the_writer_put_them(rows: list[list[str]], newline: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    ends = []
    for row in rows:
        before = len(text.getvalue().encode())
        writer.writerow(row)
        ends.append((before, len(text.getvalue().encode()) - before))
    assert list(_csv_spans(io.BytesIO(text.getvalue().encode()), 1 << 20)) == ends


def test_csv_texts_and_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(
        b"\xef\xbb\xbftext,n,score,when,ok,word\r\n"
        b'"one, ""two""\nthree",1,0.5,2026-01-02,true,7up\r\n'
        b"\r\n"
        b"bad \xff,2,,2026-01-03,false,\r\n"
    )
    source = chosen(tmp_path, (TEXT,), keep=["n", "score", "when", "ok", "word"])
    assert isinstance(source, Records)
    assert [str(field.type) for field in source.kept] == ["int64", "double", "date32[day]", "bool", "string"]
    rows = opened(source)
    assert [row["text"] for row in rows] == [b'one, "two"\nthree', b"bad \xff"]
    assert [row["member"] for row in rows] == ["0", "1"]
    kept = [[row[name] for name in ("n", "score", "when", "ok", "word")] for row in rows]
    assert kept == [
        [1, 0.5, datetime.date(2026, 1, 2), True, "7up"],
        [2, None, datetime.date(2026, 1, 3), False, ""],
    ]


def test_bad_csv_records_are_bad_items_alone(tmp_path: Path) -> None:
    lines = [
        "text,n",
        *(f"row {i},{i}" for i in range(1500)),
        "few",
        'odd "quote",3',
        '"a"b,4',
        "late,n/a",
        "late,x",
        '"open,5',
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    rows = opened(chosen(tmp_path / "t.csv", (TEXT,), keep=["n"]))
    assert [(row["text"], row["n"]) for row in rows[:1500]] == [(b"row %d" % i, i) for i in range(1500)]
    few, odd, after, null, wrong, unclosed = rows[1500:]
    assert few["error"].startswith("SourceError: expected 2 cells (text, n), got 1: b'few")
    assert (odd["text"], odd["n"]) == (b'odd "quote"', 3)
    assert "expected a CSV record; got" in after["error"]
    assert (null["text"], null["n"]) == (b"late", None)
    assert "column n: expected int64, as the first table's first rows have it; got 'x'" in wrong["error"]
    assert "unexpected end of data" in unclosed["error"]


def test_csv_of_links_and_partitions(tmp_path: Path) -> None:
    (tmp_path / "lang=de").mkdir()
    (tmp_path / "lang=de/a.jpg").write_bytes(b"first")
    (tmp_path / "lang=de/b.jpg").write_bytes(b"second")
    (tmp_path / "lang=de/t.csv").write_text("first,second\na.jpg,b.jpg\na.jpg,../../b.jpg\n,b.jpg\n")
    rows = opened(chosen(tmp_path, PAIR, format="table", keep=["lang"]))
    assert (rows[0]["first"], rows[0]["second"], rows[0]["lang"]) == (b"first", b"second", "de")
    assert "outside of the input" in rows[1]["error"]
    assert "expected a path or URI; got ''" in rows[2]["error"]


def test_folders_that_are_no_utf8(tmp_path: Path) -> None:
    for lang in ("de", "fran\udce7ais"):
        (tmp_path / f"in\udcff/lang={lang}").mkdir(parents=True)
        (tmp_path / f"in\udcff/lang={lang}/a.jpg").write_bytes(lang.encode(errors="replace"))
        (tmp_path / f"in\udcff/lang={lang}/t.csv").write_text("image\na.jpg\n")
    source = chosen(f"file://{tmp_path}/in%FF", format="table")
    assert [row["image"] for row in opened(source)] == [b"de", b"fran?ais"]
    good, bad = opened(chosen(f"file://{tmp_path}/in%FF", format="table", keep=["lang"]))
    assert (good["image"], good["lang"]) == (b"de", "de")
    assert bad["error"] == (
        "InputError: its folder lang=fran%E7ais is not named in UTF-8. Rename it, or leave lang out of input.keep"
    )


def test_text_that_is_no_utf8_costs_its_own_rows(tmp_path: Path) -> None:
    half = "\ud800"
    rows = [
        {"text": "a", "k": "x"},
        {"text": half, "k": "y"},
        {"text": "b", "k": half},
        {half: 1, "text": "c"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = opened(chosen(tmp_path / "a.jsonl", (TEXT,), keep=["k"]))
    assert [row.get("text") for row in rows] == [b"a", None, None, b"c"]
    assert [row["k"] for row in rows if "error" not in row] == ["x", None]
    assert "UnicodeEncodeError" in rows[1]["error"]
    assert "column k: expected string" in rows[2]["error"]
    (tmp_path / "b.csv").write_bytes(b"text,caf\xe9\na,b\n")
    with pytest.raises(
        InputError, match=r"b\.csv: its header is not UTF-8, in caf%E9\. Write the table in UTF-8"
    ):
        chosen(tmp_path / "b.csv", (TEXT,))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("text\nfirst\n")
    (tmp_path / "b.csv").rename(tmp_path / "in/b.csv")
    (tmp_path / "in/c.csv").write_bytes(b"caf\xe9\nb\n")
    first, second, third = opened(chosen(tmp_path / "in", (TEXT,), format="table"))
    assert (first["text"], second["text"]) == (b"first", b"a")
    assert "has no column text, which is to be the text. Its columns are: caf%E9." in third["error"]


def test_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    records = [
        {"image": "a.jpg", "n": 1, "tags": ["x"], "box": {"w": 1.5}},
        {"image": None, "n": 2},
        {"n": 3},
        {"image": 7, "n": 4},
        {"image": "a.jpg", "n": "five"},
        {"image": "a.jpg"},
    ]
    lines = [json.dumps(record) for record in records]
    (tmp_path / "t.jsonl").write_text("\n".join([*lines[:3], "", *lines[3:], "[1]", '{"image": "a.jpg"']))
    with pytest.raises(InputError, match=r"input.keep asks for n, whose values are of several kinds"):
        chosen(tmp_path / "t.jsonl", keep=["n"])
    rows = opened(chosen(tmp_path / "t.jsonl", columns={"image": "image"}, keep=["tags", "box"]))
    assert [row["member"] for row in rows] == [str(i) for i in range(8)]
    assert (rows[0]["image"], rows[0]["tags"], rows[0]["box"]) == (b"image", ["x"], {"w": 1.5})
    assert (rows[5]["image"], rows[5]["tags"], rows[5]["box"]) == (b"image", None, None)
    assert "column image is null in this row" in rows[1]["error"]
    assert "column image is null in this row" in rows[2]["error"]
    assert "column image: expected a string; got 7" in rows[3]["error"]
    assert "expected a JSON object on its line; got b'[1]'" in rows[6]["error"]
    assert 'expected a JSON object on its line; got b\'{"image": "a.jpg"\'' in rows[7]["error"]


def test_a_long_line_ends_a_csv_and_costs_json_one_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\nshort\n" + "x" * 200 + "\nnever\n")
    rows = opened(chosen(tmp_path / "t.csv", (TEXT,), limits=Limits(text=100)))
    assert rows[0]["text"] == b"short"
    assert rows[1]["member"] == "after row 0"
    assert "a line has more than the 100 bytes that limits.text allows" in rows[1]["error"]
    (tmp_path / "t.jsonl").write_text(
        '{"text": "a"}\n' + json.dumps({"text": "x" * 200}) + '\n{"text": "b"}\n'
    )
    rows = opened(chosen(tmp_path / "t.jsonl", (TEXT,), limits=Limits(text=100)))
    assert [row.get("text") for row in rows] == [b"a", None, b"b"]
    assert rows[1]["error"].startswith("LimitError: bytes of the record: 212 are more than the 100")


def test_long_cells_are_read_whole(tmp_path: Path) -> None:
    text = "x" * 300_000  # more than the csv module takes by default
    (tmp_path / "t.csv").write_text(f"text\n{text}\n")
    assert opened(chosen(tmp_path / "t.csv", (TEXT,)))[0]["text"] == text.encode()


def test_what_makes_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=r"empty\.csv has no column image"):
        chosen(tmp_path / "empty.csv", (IMAGE,))
    (tmp_path / "header.csv").write_text("image\n")
    with pytest.raises(InputError, match="No rows in"):
        opened(chosen(tmp_path / "header.csv"))
    (tmp_path / "twice.csv").write_text("image,image\na,b\n")
    with pytest.raises(InputError, match="names a column twice: image, image"):
        chosen(tmp_path / "twice.csv")
