"""Tables with footers: what a row's cells become, and what is wrong with them."""

import datetime
import io
import random
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from pipelines.contents import LATENTS, PAIR, TEXT, VIDEO
from pipelines.items import InputError
from pipelines.limits import Limits
from pipelines.sources import Source
from pipelines.sources.tables import Tables, TablesReader
from pipelines.tensors import at_rest, rest
from tests.pipelines.sources.reading import chosen, opened


def write(path: Path, columns: dict[str, Any], group: int = 2) -> Path:
    """A table in the format of its name, in groups of two rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=group)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table, max_chunksize=group)
    return path


IMAGES = [b"one", b"two", b"three", b"four", b"five"]
FORMATS = pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])


@FORMATS
def test_rows_are_items_with_their_bytes_and_what_is_kept(tmp_path: Path, suffix: str) -> None:
    when = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in range(1, 6)]
    columns = {
        "jpg": IMAGES,
        "n": pa.array([1, 2, None, 4, 5], pa.int16()),
        "when": pa.array(when, pa.timestamp("ms", "UTC")),
        "tags": [["a"], [], None, ["b", "c"], ["d"]],
        "box": [{"x": 1, "y": None}] * 5,
        "word": pa.array(list("aabba")).dictionary_encode(),
        "unasked": [0] * 5,
    }
    path = write(tmp_path / f"t.{suffix}", columns)
    source = chosen(path, columns={"image": "jpg"}, keep=["n", "when", "tags", "box", "word"])
    assert isinstance(source, Tables)
    assert source.kept.field("n").type == pa.int16()
    assert source.kept.field("when").type == pa.timestamp("ms", "UTC")
    assert source.kept.field("word").type == pa.string()
    items = list(source.items())
    assert [item.member for item in items] == ["0", "1", "2", "3", "4"]
    assert {item.uri for item in items} == {str(path)}
    assert [item.at for item in items][2:4] == ['{"group": 1, "row": 0}', '{"group": 1, "row": 1}']
    assert len({item.item_id for item in items}) == 5
    rows = opened(source)
    assert [row["image"] for row in rows] == IMAGES
    for name in ("n", "tags", "box"):
        assert [row[name] for row in rows] == pa.table({name: columns[name]})[name].to_pylist()
    assert [row["when"] for row in rows] == when
    assert [row["word"] for row in rows] == list("aabba")


@FORMATS
def test_ids_survive_a_move(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "a" / f"t.{suffix}", {"image": IMAGES})
    before = [item.item_id for item in chosen(tmp_path / "a").items()]
    (tmp_path / "a").rename(tmp_path / "b")
    assert [item.item_id for item in chosen(tmp_path / "b").items()] == before


def test_a_struct_of_bytes_and_path_is_as_datasets_write_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(b"linked")
    cells = [
        {"bytes": b"within", "path": "a.jpg"},
        {"bytes": None, "path": "images/a.jpg"},
        {"bytes": None, "path": None},
        None,
    ]
    type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = write(tmp_path / "t.parquet", {"image": pa.array(cells, type)})
    rows = opened(chosen(path))
    assert [row.get("image") for row in rows] == [b"within", b"linked", None, None]
    for row in rows[2:]:
        assert row["error"].startswith(
            "SourceError: column image is null in this row; as the image expected media"
        )


def test_links_are_followed_within_the_input_alone(tmp_path: Path) -> None:
    (tmp_path / "out.jpg").write_bytes(b"secret")
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/a.jpg").write_bytes(b"fine")
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "out.jpg")
    links = [
        "deep/a.jpg",
        f"{tmp_path}/in/deep/a.jpg",
        "../out.jpg",
        "link.jpg",
        "gone.jpg",
        "http://127.0.0.1/a",
        "",
    ]
    path = write(tmp_path / "in/t.parquet", {"image": links})
    rows = opened(chosen(path))
    assert [row.get("image") for row in rows[:2]] == [b"fine", b"fine"]
    errors = [row["error"] for row in rows[2:]]
    assert "'../out.jpg' leads to" in errors[0]
    assert "add its folder to input.roots" in errors[0]
    assert "leads out of the input by a symbolic link" in errors[1]
    assert errors[2].startswith("FileNotFoundError")
    assert "'http://127.0.0.1/a' leads to" in errors[3]
    assert "expected a path or URI; got ''" in errors[4]
    allowed = opened(chosen(path, roots=[str(tmp_path)]))
    assert [row.get("image") for row in allowed[2:4]] == [b"secret", b"secret"]


@FORMATS
@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_texts_are_their_bytes(tmp_path: Path, suffix: str, type: pa.DataType) -> None:
    texts = [b"plain", "grüße".encode(), b"", b"bad \xff"]
    data = pa.array(texts, pa.large_binary() if "large" in str(type) else pa.binary())
    path = write(tmp_path / f"t.{suffix}", {"text": data.view(type)})
    rows = opened(chosen(path, (TEXT,)))
    assert [row["text"] for row in rows] == texts


def test_tensors_are_given_as_npy(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((5, 3, 4)).astype(np.float32)
    field = pa.field("latents", pa.fixed_shape_tensor(pa.float32(), [3, 4]))
    packed = pa.chunked_array([pa.array([row.tobytes() for row in latents], pa.large_binary())])
    for suffix, format in (("arrow", "arrow"), ("parquet", "parquet")):
        schema = at_rest(pa.schema([field]), format)
        table = pa.Table.from_arrays([rest(packed, field.type, format)], schema=schema)
        path = tmp_path / f"t.{suffix}"
        if format == "arrow":
            pyarrow.feather.write_feather(table, path, chunksize=2)
        else:
            pq.write_table(table, path, row_group_size=2)
        rows = opened(chosen(path, (LATENTS,)))
        for row, expected in zip(rows, latents, strict=True):
            got = np.load(io.BytesIO(row["latents"]), allow_pickle=False)
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, expected)


def test_several_contents_of_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"first": [b"a", b"b"], "second": [b"c", None]})
    rows = opened(chosen(path, (VIDEO,), PAIR))
    assert (rows[0]["first"], rows[0]["second"]) == (b"a", b"c")
    assert "column second is null" in rows[1]["error"]


def test_hive_partitions_are_columns_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "lang=de/year=2026/t.parquet", {"image": [b"a"]})
    write(tmp_path / "lang=a%20b/year=2025/t.parquet", {"image": [b"b"]})
    rows = opened(chosen(tmp_path, keep=["lang", "year"]))
    assert [(row["image"], row["lang"], row["year"]) for row in rows] == [
        (b"b", "a b", "2025"),
        (b"a", "de", "2026"),
    ]
    write(tmp_path / "t.parquet", {"image": [b"c"]})
    rows = opened(chosen(tmp_path, keep=["lang"]))
    assert "it lies in no folder lang=..., which input.keep asks for" in rows[-1]["error"]


def test_a_job_that_does_not_fit_the_table_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"jpg": [b"a"], "n": [1]})
    with pytest.raises(
        InputError, match=r"no column image, .*Its columns are: jpg, n\. .*columns: \{image: NAME\}"
    ):
        chosen(path)
    with pytest.raises(InputError, match=r"column n has type int64; as the image expected media bytes"):
        chosen(path, columns={"image": "n"})
    with pytest.raises(
        InputError, match=r"column jpg has type list<.*; as the latents expected a fixed_shape"
    ):
        chosen(write(tmp_path / "u.parquet", {"jpg": [[1.0]]}), (LATENTS,), columns={"latents": "jpg"})
    with pytest.raises(InputError, match=r"input.columns names sound; the task can be given image"):
        chosen(path, columns={"sound": "jpg"})
    with pytest.raises(InputError, match=r"input.keep asks for lost, .*It has: jpg, n"):
        chosen(path, columns={"image": "jpg"}, keep=["lost"])
    with pytest.raises(InputError, match="No rows in"):
        opened(chosen(write(tmp_path / "empty.parquet", {"image": pa.array([], pa.binary())})))


def test_a_table_unlike_the_first_is_one_bad_item(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [b"a"], "n": pa.array([1], pa.int32())})
    write(tmp_path / "b.parquet", {"picture": [b"b"], "n": [1]})
    write(tmp_path / "c.parquet", {"image": [5], "n": [1]})
    write(tmp_path / "d.parquet", {"image": [b"d"]})
    write(tmp_path / "e.parquet", {"image": [b"e", b"f"], "n": [7, 1 << 40]})
    (tmp_path / "f.parquet").write_bytes(b"PAR1 this is none")
    rows = opened(chosen(tmp_path, keep=["n"]))
    assert [(row["member"], row.get("image"), row.get("n")) for row in rows] == [
        ("0", b"a", 1), (None, None, None), (None, None, None), (None, None, None), ("0", b"e", 7), ("1", None, None),
        (None, None, None),
    ]  # fmt: skip
    errors = [row.get("error", "") for row in rows]
    assert "its rows can't be listed: the table has no column image" in errors[1]
    assert "column image has type int64" in errors[2]
    assert "no column n, which input.keep asks for" in errors[3]
    assert "column n: expected int32, as the first table has it; got int64" in errors[5]
    assert "its rows can't be listed: Parquet magic bytes not found" in errors[6]
    with pytest.raises(InputError, match=r"f\.parquet can't be read as the first table: Parquet magic bytes"):
        chosen(tmp_path / "f.parquet")


def test_an_arrow_stream_is_refused_by_name(tmp_path: Path) -> None:
    table = pa.table({"image": IMAGES})
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), table.schema) as file:
        file.write_table(table)
    with pytest.raises(
        InputError, match=r"no Arrow IPC file .*A stream becomes one by pyarrow\.ipc\.new_file"
    ):
        chosen(tmp_path / "t.arrow")


def test_arrow_offsets_that_lie_are_bad_rows_and_no_crash(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 3, 1 << 30, 6], np.int32))
    data = pa.py_buffer(b"abcdef")
    column = pa.Array.from_buffers(pa.binary(), 3, [None, offsets, data])
    batch = pa.RecordBatch.from_arrays([column], names=["image"])
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), batch.schema) as file:
        file.write_batch(batch)
    rows = opened(chosen(tmp_path / "t.arrow"))
    assert len(rows) == 3
    assert all("column image is damaged" in row["error"] for row in rows)


def test_limits_hold_for_cells_and_links(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(11))
    path = write(tmp_path / "t.parquet", {"image": [bytes(10), bytes(11)]})
    rows = opened(chosen(path, limits=Limits(bytes=10)))
    assert rows[0]["image"] == bytes(10)
    assert rows[1]["error"].startswith(
        "LimitError: bytes of the image: 11 are more than the 10 that limits.bytes"
    )
    linked = opened(chosen(write(tmp_path / "u.parquet", {"image": ["a.jpg"]}), limits=Limits(bytes=10)))
    assert "11 are more than the 10 that limits.bytes" in linked[0]["error"]
    texts = opened(
        chosen(write(tmp_path / "v.parquet", {"text": ["a" * 11]}), (TEXT,), limits=Limits(text=10))
    )
    assert "bytes of the text: 11 are more than the 10 that limits.text" in texts[0]["error"]


@FORMATS
def test_a_reader_reads_each_group_once_and_only_the_columns_it_needs(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"image": IMAGES, "n": range(5), "x": [bytes(1 << 20)] * 5}
    source = chosen(write(tmp_path / f"t.{suffix}", columns), keep=["n"])
    read: list[tuple[int, list[str]]] = []
    reader = source.reader()
    assert isinstance(reader, TablesReader)
    items = [asdict(item) for item in source.items()]
    with reader.open(items[0]):
        kind = type(reader.groups)
    whole = kind.read
    monkeypatch.setattr(kind, "read", lambda self, g, c: read.append((g, list(c))) or whole(self, g, c))
    for item in items:
        with reader.open(item) as one:
            assert one.files["image"].read() == IMAGES[int(item["member"])]
        assert reader.table.column_names in (["image", "n"],)
    assert read == [(1, ["image", "n"]), (2, ["image", "n"])]
    reader.close()


def test_threads_share_a_reader(tmp_path: Path) -> None:
    rows = [str(i).encode() * 50 for i in range(400)]
    source: Source = chosen(write(tmp_path / "t.parquet", {"image": rows}, group=7))
    items = [asdict(item) for item in source.items()]
    reader = source.reader()
    wrong: list[str] = []

    def read(start: int) -> None:
        for item in items[start::4]:
            with reader.open(item) as one:
                if one.files["image"].read() != rows[int(item["member"])]:
                    wrong.append(item["member"])

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.close()
    assert wrong == []


def test_a_table_that_shrank_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": IMAGES})
    source = chosen(path)
    items = list(source.items())
    write(path, {"image": IMAGES[:1]})
    rows = opened(source, items)
    assert rows[0]["image"] == b"one"
    assert all("the table has changed since the run was planned" in row["error"] for row in rows[1:])


def test_kept_text_that_is_no_text_is_a_bad_row(tmp_path: Path) -> None:
    text = pa.array([b"fine", b"bad \xff"]).view(pa.string())
    for suffix in ("parquet", "arrow"):
        path = write(tmp_path / f"t.{suffix}", {"image": [b"a", b"b"], "text": text})
        good, bad = opened(chosen(path, keep=["text"]))
        assert (good["image"], good["text"]) == (b"a", "fine")
        assert "column text is damaged, or not UTF-8: string scalar contains invalid UTF8" in bad["error"]


@FORMATS
def test_tables_have_a_limit_of_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t.{suffix}", {"image": IMAGES})
    [row] = opened(chosen(path, limits=Limits(members=4)))
    assert (
        "its rows can't be listed: rows of the table: 5 are more than the 4 that limits.members"
        in row["error"]
    )


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_mutated_tables_end_as_rows_or_errors(tmp_path: Path, suffix: str) -> None:
    """Of 3,000 a format none crashed the process; asking a damaged footer for a column's sizes did."""
    columns = {
        "image": [b"x" * 100, None, b"abc" * 30, b"y"] * 3,
        "n": range(12),
        "text": ["a", "bb", None, "é"] * 3,
        "tags": [[1, 2], [], None, [3]] * 3,
        "word": pa.array(["p", "q"] * 6).dictionary_encode(),
    }
    whole = write(tmp_path / f"t.{suffix}", columns, group=5).read_bytes()
    outcomes = {"refused": 0, "rows": 0}
    for seed in range(600, 720):
        dice, data = random.Random(seed), bytearray(whole)
        at, other, size = dice.randrange(len(data)), dice.randrange(len(data)), dice.randrange(200)
        match dice.choice(["flip", "cut", "splice"]):
            case "flip":
                for _ in range(dice.randint(1, 8)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
            case "cut":
                del data[at:]
            case _:
                data[at : at + size] = data[other : other + size]
        (tmp_path / f"t.{suffix}").write_bytes(data)
        try:
            rows = opened(chosen(tmp_path / f"t.{suffix}", keep=["n", "text", "tags", "word"]))
        except InputError:
            outcomes["refused"] += 1
            continue
        outcomes["rows"] += 1
        assert all("error" in row or isinstance(row["image"], bytes) for row in rows)
    assert min(outcomes.values()) > 10, outcomes
