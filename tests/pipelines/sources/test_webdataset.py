"""WebDataset: samples read in place, and what is wrong with a tar."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contents import IMAGE, PAIR, TEXT, VIDEO
from pipelines.items import InputError
from pipelines.limits import Limits
from pipelines.sources import webdataset
from tests.pipelines.sources.reading import chosen, opened

Member = tuple[str, bytes] | tarfile.TarInfo


def write_tar(path: Path, members: Sequence[Member], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            data = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def special(name: str, type: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, link
    return info


SAMPLES: list[Member] = [
    ("a/1.jpg", b"one"), ("a/1.cls", b"7"), ("a/1.json", b'{"x": 1}'),
    ("a/2.JPG", b"two"), ("a/2.seg.png", b"mask"), ("a/2.txt", "zwölf".encode()),
    ("a.b/3.jpg", b"three"),
]  # fmt: skip


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_samples_are_items_with_their_members(tmp_path: Path, format: int) -> None:
    path = write_tar(tmp_path / "x.tar", SAMPLES, format)
    source = chosen(path, keep=["cls", "json", "txt"])
    assert [str(field.type) for field in source.kept] == ["int64", "string", "string"]
    rows = opened(source)
    assert [row["member"] for row in rows] == ["a/1", "a/2", "a.b/3"]
    assert [row["image"] for row in rows] == [b"one", b"two", b"three"]
    assert [row["cls"] for row in rows] == [7, None, None]
    assert [row["json"] for row in rows] == ['{"x": 1}', None, None]
    assert [row["txt"] for row in rows] == [None, "zwölf", None]
    (tmp_path / "y").mkdir()
    path.rename(tmp_path / "y/x.tar")
    assert [row["id"] for row in opened(chosen(tmp_path / "y"))] == [row["id"] for row in rows]


def test_long_names_and_other_entries_are_no_obstacle(tmp_path: Path) -> None:
    long = "d" * 300
    members: list[Member] = [
        special("a", tarfile.DIRTYPE), ("README", b"no suffix"), ("._1.jpg", b"no key"),
        (f"{long}/1.jpg", b"one"), (f"{long}/1.txt", b"x"),
    ]  # fmt: skip
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        rows = opened(chosen(write_tar(tmp_path / "x.tar", members, format)))
        assert [(row["member"], row["image"]) for row in rows] == [(f"{long}/1", b"one")]


def test_pairs_and_named_suffixes(tmp_path: Path) -> None:
    members: list[Member] = [("1.first.png", b"a"), ("1.second.png", b"b"), ("2.first.png", b"c")]
    path = write_tar(tmp_path / "x.tar", members)
    rows = opened(chosen(path, (VIDEO,), PAIR))
    assert (rows[0]["first"], rows[0]["second"]) == (b"a", b"b")
    assert (
        "no member of it is the second: expected a suffix such as second.jpg; its suffixes are: first.png"
        in (rows[1]["error"])
    )
    several = write_tar(tmp_path / "y.tar", [("1.jpg", b"a"), ("1.png", b"b"), ("2.png", b"c")])
    rows = opened(chosen(several))
    assert "several of its members may be the image: jpg, png. Say which by input.columns" in rows[0]["error"]
    rows = opened(chosen(several, columns={"image": "jpg"}))
    assert rows[0]["image"] == b"a"
    assert "expected a member 2.jpg as the image; its suffixes are: png" in rows[1]["error"]


def test_a_bad_sample_is_one_bad_item(tmp_path: Path) -> None:
    members: list[Member] = [
        ("good1.jpg", b"1"),
        ("/abs.jpg", b"x"),
        ("../up.jpg", b"x"),
        special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.jpg", tarfile.LNKTYPE, "good1.jpg"),
        special("dev.jpg", tarfile.CHRTYPE),
        special("pipe.jpg", tarfile.FIFOTYPE),
        ("dup.jpg", b"x"), ("dup.jpg", b"y"),
        ("good2.jpg", b"2"),
        ("good1.jpg", b"again"),
        ("badcls.jpg", b"x"), ("badcls.cls", b"seven"),
        ("good3.jpg", b"3"), ("good3.cls", b" 3\n"),
    ]  # fmt: skip
    rows = {
        row["member"]: row for row in opened(chosen(write_tar(tmp_path / "x.tar", members), keep=["cls"]))
    }
    assert [rows[name]["image"] for name in ("good1", "good2", "good3")] == [b"1", b"2", b"3"]
    assert rows["good3"]["cls"] == 3
    for name, said in {
        "/abs": "member '/abs.jpg' has an absolute name, or one with '..'",
        "../up": "member '../up.jpg' has an absolute name, or one with '..'",
        "link": "member 'link.jpg' is a link to '/etc/passwd': expected a file",
        "hard": "member 'hard.jpg' is a link to 'good1.jpg': expected a file",
        "dev": "is a device, a pipe or of no known type: expected a file",
        "pipe": "is a device, a pipe or of no known type: expected a file",
        "dup": "it has two members 'dup.jpg'",
        "badcls": "its member cls: expected a whole number; got b'seven'",
    }.items():
        assert rows[name]["error"].startswith("SourceError: "), name
        assert said in rows[name]["error"], name
    [again] = [row for name, row in rows.items() if name.startswith("good1 (at ")]
    assert "its key good1 comes twice in the tar" in again["error"]
    assert len(rows) == 12


def test_a_truncated_tar_gives_what_is_before_and_one_bad_item(tmp_path: Path) -> None:
    members: list[Member] = [
        (f"{i}.{suffix}", bytes([i]) * 700) for i in range(5) for suffix in ("jpg", "bin")
    ]
    whole = write_tar(tmp_path / "x.tar", members, tarfile.USTAR_FORMAT).read_bytes()
    samples = 2 * (512 + 1024)
    for cut, good in (
        (samples * 2 + 512 + 300, 2),
        (samples * 3 + 100, 2),
        (samples * 3, 2),
        (samples * 2 + 1536, 2),
    ):
        (tmp_path / "x.tar").write_bytes(whole[:cut])
        rows = opened(chosen(tmp_path / "x.tar"))
        assert [row["image"][0] for row in rows[:-1]] == list(range(len(rows) - 1))
        assert len(rows) - 1 == good
        assert rows[-1]["member"] == f"(after {good - 1})"
        assert "the tar can't be read after" in rows[-1]["error"]
    damaged = bytearray(whole)
    damaged[samples * 3 + 148 : samples * 3 + 156] = b"broken!!"  # a header's checksum
    (tmp_path / "x.tar").write_bytes(damaged)
    rows = opened(chosen(tmp_path / "x.tar"))
    assert len(rows) == 3
    assert (
        f"no header and no end of the archive at byte {samples * 3:,}: it is truncated or damaged"
        in rows[-1]["error"]
    )
    for content, said in ((b"", "empty file"), (b"no tar" * 200, "expected an uncompressed tar; ")):
        (tmp_path / "x.tar").write_bytes(content)
        [row] = opened(chosen(tmp_path / "x.tar"))
        assert "the tar can't be read from its start: " in row["error"]
        assert said in row["error"]


def test_limits_of_members_and_sizes(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [(f"{i}.jpg", bytes(10 + i)) for i in range(4)])
    rows = opened(chosen(path, limits=Limits(members=2)))
    assert [row["member"] for row in rows] == ["0", "(after 0)"]
    assert "members of the tar: 3 are more than the 2 that limits.members allows" in rows[1]["error"]
    rows = opened(chosen(path, limits=Limits(bytes=12)))
    assert [len(row.get("image", b"")) for row in rows] == [10, 11, 12, 0]
    assert rows[3]["error"].startswith("LimitError: bytes of the image: 13 are more than the 12")


def test_a_header_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    name = special("@LongLink", tarfile.GNUTYPE_LONGNAME)
    name.size = 64 << 20
    (tmp_path / "x.tar").write_bytes(name.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20))
    [row] = opened(chosen(tmp_path / "x.tar"))
    assert "a header asks for 67,108,864 bytes; at most 1,048,576 are read" in row["error"]


def test_large_members_are_views_of_the_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "_SMALL", 4)
    data = bytes(range(256)) * 8
    source = chosen(write_tar(tmp_path / "x.tar", [("1.mp4", data), ("2.mp4", b"next")]), (VIDEO,))
    items = list(source.items())
    with source.reader().open({"uri": items[0].uri, "at": items[0].at}) as one:
        file = one.files["video"]
        assert file.read(10) == data[:10]
        assert file.seek(-5, io.SEEK_END) == len(data) - 5
        assert file.read(100) == data[-5:]
        assert file.read(1) == b""
        file.seek(1000)
        assert file.read(1500) == data[1000:]


def test_what_a_tar_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(
        InputError, match=r"x\.tar\.gz is a compressed tar, which can't be read by index\. Decompress"
    ):
        chosen(tmp_path)
    with pytest.raises(InputError, match="the tars there hold no files with a suffix"):
        opened(chosen(write_tar(tmp_path / "y/y.tar", [("README", b"")])))


KEYS = st.sampled_from(["a", "b", "caf\udce9", "caf%E9", "d/a", "../a", "/a", "a b", ""])
SUFFIXES = st.sampled_from(["jpg", "png", "txt", "cls", "first.png", "", "."])
TYPES = st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])


@settings(max_examples=60, deadline=None)
@given(
    entries=st.lists(st.tuples(KEYS, SUFFIXES, TYPES, st.binary(max_size=5)), max_size=8),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 20_000),
)
def test_any_tar_ends_as_good_and_bad_items(
    tmp_path_factory: pytest.TempPathFactory, entries: Any, flips: Any, cut: int
) -> None:
    members = [
        (f"{key}.{suffix}", data) if type == tarfile.REGTYPE else special(f"{key}.{suffix}", type, "x")
        for key, suffix, type, data in entries
    ]
    path = write_tar(tmp_path_factory.mktemp("any") / "x.tar", members, tarfile.GNU_FORMAT)
    data = bytearray(path.read_bytes()[: max(cut, 1)])
    for at, value in flips:
        data[at % len(data)] = value
    path.write_bytes(data)
    try:
        rows = opened(chosen(path, (IMAGE,), (TEXT,), keep=["cls"]))
    except InputError as error:
        rows, said = [], str(error)
    assert rows or "the tars there hold no files" in said
    assert len({row["id"] for row in rows}) == len(rows)
    pa.array([row["member"] for row in rows], pa.string())  # which they will be


def test_keys_that_are_no_utf8_are_samples_too(tmp_path: Path) -> None:
    keys = ("a", "caf\udce9", "caf%E9", "café", "d\udcff/b")
    members: list[Member] = [(f"{key}.jpg", bytes([n])) for n, key in enumerate(keys)]
    path = write_tar(tmp_path / "x.tar", [*members, ("caf\udce9.jpg", b"again")], tarfile.GNU_FORMAT)
    rows = opened(chosen(path))
    assert [row["member"] for row in rows[:-1]] == ["a", "caf%E9", "caf%E9", "café", "d%FF/b"]
    assert [row["image"] for row in rows[:-1]] == [bytes([n]) for n in range(5)]
    assert len({row["id"] for row in rows}) == 6
    assert rows[-1]["member"].startswith("caf%E9%20%28at%20")
    assert "its key caf" in rows[-1]["error"]
    data = path.read_bytes()[: 5 * 1024 + 512]
    path.write_bytes(data)
    assert opened(chosen(path))[-1]["member"] == "(after d%FF/b)"
