"""Which source an input is."""

from pathlib import Path

import pytest

from pipelines.contents import IMAGE, PAIR, TEXT, VIDEO
from pipelines.items import InputError
from pipelines.sources.files import Files
from pipelines.sources.lines import Lines
from pipelines.sources.records import Records
from pipelines.sources.tables import Tables
from pipelines.sources.webdataset import WebDataset
from tests.pipelines.sources.reading import chosen, opened
from tests.pipelines.sources.test_tables import write
from tests.pipelines.sources.test_webdataset import write_tar


def test_names_say_what_an_input_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image\na.jpg\n")
    (tmp_path / "t.jsonl").write_text('{"image": "a.jpg"}\n')
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "odd.bin").write_bytes(b"x")
    write(tmp_path / "t.parquet", {"image": [b"x"]})
    write(tmp_path / "t.arrow", {"image": [b"x"]})
    write(tmp_path / "t.feather", {"image": [b"x"]})
    write_tar(tmp_path / "t.tar", [("1.jpg", b"x")])
    for name, kind in {
        "t.csv": Records, "t.jsonl": Records, "t.parquet": Tables, "t.arrow": Tables, "t.feather": Tables,
        "t.tar": WebDataset, "a.jpg": Files, "odd.bin": Files,
    }.items():  # fmt: skip
        source = chosen(tmp_path / name)
        assert isinstance(source, kind), name
        assert [row["image"] for row in opened(source)] == [b"x"], name
        assert isinstance(chosen(f"{tmp_path}/{name[:-1]}*"), kind), name


def test_a_folder_is_what_it_holds_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "a/t.parquet", {"image": [b"x"]})
    (tmp_path / "a/README.md").touch()
    assert isinstance(chosen(tmp_path / "a"), Tables)
    (tmp_path / "a/z.jpg").touch()
    with pytest.raises(
        InputError, match=r"several kinds of input: .*Say which is meant by input.format, or .*/\*"
    ):
        opened(chosen(tmp_path / "a"))
    assert [row["image"] for row in opened(chosen(tmp_path / "a", format="table"))] == [b"x"]
    assert [Path(item.uri).name for item in chosen(tmp_path / "a", format="files").items()] == ["z.jpg"]
    write_tar(tmp_path / "a/b.tar", [("1.jpg", b"y")])
    assert [row["image"] for row in opened(chosen(tmp_path / "a", format="webdataset"))] == [b"y"]
    (tmp_path / "a/b.csv").write_text("image\n")
    with pytest.raises(InputError, match="several kinds of input"):
        opened(chosen(tmp_path / "a", format="table"))


def test_a_task_of_several_kinds_takes_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").write_bytes(b"x")
    sets = ((VIDEO,), (IMAGE,), (TEXT,), PAIR)
    source = chosen(tmp_path / "a", *sets)
    assert isinstance(source, Files)
    assert source.content == IMAGE
    assert isinstance(chosen(tmp_path / "a", *sets, format="files"), Files)
    (tmp_path / "a/x.mp4").touch()
    with pytest.raises(InputError, match="several kinds of input"):
        opened(chosen(tmp_path / "a", *sets))
    table = write(tmp_path / "t.parquet", {"first": [b"1"], "second": [b"2"], "image": [b"3"]})
    assert [row["image"] for row in opened(chosen(table, *sets))] == [b"3"]
    paired = opened(chosen(table, *sets, columns={"first": "image"}))
    assert (paired[0]["first"], paired[0]["second"]) == (b"3", b"2")
    tar = write_tar(tmp_path / "t.tar", [("1.first.png", b"1"), ("1.second.png", b"2")])
    assert opened(chosen(tar, *sets))[0]["second"] == b"2"
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert isinstance(chosen(tmp_path / "a.txt", *sets), Files)
    assert isinstance(chosen(tmp_path / "a.txt", *sets, format="lines"), Lines)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    (tmp_path / "notes.md").touch()
    hint = "put links to them into a table .* or the files into a tar with names such as 7.first.jpg 7.second.jpg"
    for format in ("files", "auto"):
        with pytest.raises(InputError, match=f"To give first and second of each item, {hint}"):
            chosen(tmp_path, PAIR, format=format)
    with pytest.raises(InputError, match=f"expected files that end in .*\\.tar.*found 2 other files.*{hint}"):
        chosen(tmp_path, (VIDEO,), PAIR)
    with pytest.raises(InputError, match=r"input\.keep is for tables and tars; this input is read as files"):
        chosen(tmp_path, keep=["n"])
    with pytest.raises(InputError, match=r"input\.columns is for tables and tars"):
        chosen(tmp_path, columns={"image": "png"})
    with pytest.raises(InputError, match=r"input\.keep names a column twice: n, n"):
        chosen(tmp_path, keep=["n", "n"])
    with pytest.raises(InputError, match=r"x\.png is no table: expected \.parquet, "):
        chosen(tmp_path / "x.png", format="table")
