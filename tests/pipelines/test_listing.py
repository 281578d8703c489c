"""Listings: what was there, its digest, and what changed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contents import IMAGE
from pipelines.items import Item
from pipelines.listing import LISTING, as_items, compare, digest_of, list_files, only
from pipelines.sources.files import Files


class Given:
    """A source of these files."""

    def __init__(self, files: dict[str, str]) -> None:
        self.listed = files

    def files(self) -> Iterator[Item]:
        for name, version in sorted(self.listed.items()):
            yield Item(f"id-{name}", f"/in/{name}", version, len(version))


def listing(files: dict[str, str]) -> pa.Table:
    return list_files(Given(files))  # type: ignore[arg-type]


def test_a_folder_is_listed_with_its_files_versions(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(b"x")
    source = Files((str(tmp_path),), IMAGE)
    before = list_files(source)
    assert before.schema.equals(LISTING)
    assert before["uri"].to_pylist() == [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert list(as_items(before)) == list(source.items())
    assert (
        list(source.items(as_items(only(before, before["item_id"].to_pylist()[1:]))))
        == list(source.items())[1:]
    )
    (tmp_path / "a.png").write_bytes(b"xy")
    os.utime(tmp_path / "b.png", (1, 1))
    (tmp_path / "c.png").touch()
    after = list_files(source)
    assert str(compare(before, after)) == "1 files added, 2 changed, 0 gone"
    assert digest_of(before) != digest_of(after)


def test_names_that_are_no_utf8_are_listed_too(tmp_path: Path) -> None:
    for name in ("b.png", "caf\udce9.png"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_files(Files((str(tmp_path),), IMAGE))
    assert listing["uri"].to_pylist() == [f"{tmp_path}/b.png", f"file://{tmp_path}/caf%E9.png"]
    assert digest_of(listing) == digest_of(list_files(Files((str(tmp_path),), IMAGE)))


FILES = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["v1", "v2"]), max_size=8)


@given(FILES, FILES)
def test_changes_are_what_turns_one_listing_into_the_other(then: dict[str, str], now: dict[str, str]) -> None:
    changes = compare(listing(then), listing(now))
    names = {f"id-{name}": name for name in "abcdefgh"}
    made = {name: version for name, version in then.items() if f"id-{name}" not in changes.gone}
    for file in changes.added | changes.changed:
        assert made.get(names[file]) != now[names[file]]
        made[names[file]] = now[names[file]]
    assert made == now
    assert bool(changes) == (then != now)
    assert (digest_of(listing(then)) == digest_of(listing(now))) == (then == now)


def test_a_file_that_lies_elsewhere_has_changed() -> None:
    before = listing({"a": "v1"})
    moved = before.set_column(1, "uri", pa.array(["/other/a"]))
    assert str(compare(before, moved)) == "0 files added, 1 changed, 0 gone"


def test_a_long_listing_is_told_as_it_grows() -> None:
    heard: list[int] = []
    table = list_files(Given({f"{i:06d}": "v" for i in range(40_000)}), heard.append)  # type: ignore[arg-type]
    assert table.num_rows == 40_000
    assert heard == [16_384, 32_768]
