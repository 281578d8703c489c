"""Listing inputs."""

import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import pytest

from pipelines.items import InputError, Item, list_items, open_item, version_now

VIDEO = (".mp4", ".mkv")


def listed(*arguments: Any) -> list[Item]:
    return list(list_items(*arguments))


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_folder_is_walked_for_its_kind_of_files(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/c.MP4", "a/d.mkv", "notes.txt", ".hidden.mp4", "_cache/e.mp4"):
        touch(tmp_path / name)
    items = listed(str(tmp_path), VIDEO)
    assert [os.path.relpath(item.uri, tmp_path) for item in items] == ["a/c.MP4", "a/d.mkv", "b.mp4"]


def test_ids_survive_a_move_and_versions_tell_a_change(tmp_path: Path) -> None:
    touch(tmp_path / "one/a/b.mp4")
    before = listed(str(tmp_path / "one"), VIDEO)[0]
    (tmp_path / "one").rename(tmp_path / "two")
    moved = listed(str(tmp_path / "two"), VIDEO)[0]
    assert (moved.item_id, moved.version) == (before.item_id, before.version)
    touch(tmp_path / "two/a/b.mp4", "longer")
    assert listed(str(tmp_path / "two"), VIDEO)[0].version != before.version


def test_glob_file_and_list_take_what_they_name(tmp_path: Path) -> None:
    odd = touch(tmp_path / "clip.bin")
    other = touch(tmp_path / "deep/clip.mp4")
    assert [item.uri for item in listed(str(odd), VIDEO)] == [str(odd)]
    assert [item.uri for item in listed(f"{tmp_path}/*.bin", VIDEO)] == [str(odd)]
    both = listed([str(odd), str(tmp_path / "deep")], VIDEO)
    assert [item.uri for item in both] == [str(odd), str(other)]
    assert len({item.item_id for item in both}) == 2


def test_same_names_in_two_folders_are_two_items(tmp_path: Path) -> None:
    touch(tmp_path / "x/clip.mp4")
    touch(tmp_path / "y/clip.mp4")
    ids = {item.item_id for item in listed([f"{tmp_path}/x", f"{tmp_path}/y"], VIDEO)}
    assert len(ids) == 2


def test_other_file_systems() -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.mp4", b"abc")
    items = listed("memory://bucket", VIDEO)
    assert [item.uri for item in items] == ["memory:///bucket/a.mp4"]
    with open_item(items[0].uri) as file:
        assert file.read() == b"abc"


def test_what_cannot_be_listed_says_why(tmp_path: Path) -> None:
    missing, notes, clip = tmp_path / "nowhere", touch(tmp_path / "f/notes.txt"), touch(tmp_path / "g/c.mp4")
    with pytest.raises(InputError, match=r"No such file or folder: .*nowhere\. Check input\.uri"):
        listed(str(missing), VIDEO)
    with pytest.raises(InputError, match=r"expected files that end in \.mp4, \.mkv; found 1 other files"):
        listed(str(notes.parent), VIDEO)
    with pytest.raises(InputError, match=r"Nothing matches .*\*\.avi: expected at least one file"):
        listed(f"{tmp_path}/*.avi", VIDEO)
    with pytest.raises(InputError, match=r"lists .*c\.mp4 twice.*Remove the overlap"):
        listed([str(clip), str(clip.parent)], VIDEO)
    with pytest.raises(InputError, match="empty list"):
        listed([], VIDEO)


def test_an_address_that_cannot_be_opened_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"nothing://x can't be opened: .*nothing.*Schemes are such as s3"):
        listed("nothing://x", VIDEO)
    with pytest.raises(InputError, match=r"simplecache::s3://b/x is a chain of file systems: name the files"):
        listed("simplecache::s3://b/x", VIDEO)
    monkeypatch.setattr(fsspec, "get_filesystem_class", Mock(side_effect=ImportError("Please install gcsfs")))
    with pytest.raises(
        InputError,
        match=r"gs://b/x needs a driver .*Please install gcsfs\. pip install 'perceiver-batch\[gcs\]'",
    ):
        listed("gs://b/x", VIDEO)


def test_globs_walk_only_where_they_lead(tmp_path: Path) -> None:
    for name in ("a/x.mp4", "a/b/x.mp4", "c/x.mp4", "c/y.mkv", ".h/x.mp4", "x.mp4"):
        touch(tmp_path / name)
    for pattern, found in {
        "*/x.mp4": [".h/x.mp4", "a/x.mp4", "c/x.mp4"],
        "[ac]/?.m*": ["a/x.mp4", "c/x.mp4", "c/y.mkv"],
        "**/b/*.mp4": ["a/b/x.mp4"],
        "a/**": ["a/b/x.mp4", "a/x.mp4"],
    }.items():
        items = listed(f"{tmp_path}/{pattern}", VIDEO)
        assert [os.path.relpath(item.uri, tmp_path) for item in items] == found, pattern
        theirs = fsspec.filesystem("file").glob(f"{tmp_path}/{pattern}")
        assert [item.uri for item in items] == sorted(path for path in theirs if os.path.isfile(path)), (
            pattern
        )


def test_links_to_files_are_items_and_links_to_nowhere_too(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere/a.mp4", "abc")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").symlink_to(tmp_path / "elsewhere/a.mp4")
    (tmp_path / "in/gone.mp4").symlink_to(tmp_path / "elsewhere/gone.mp4")
    (tmp_path / "in/deep").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "in/pipe.mp4")
    found = listed(str(tmp_path / "in"), VIDEO)
    assert [(Path(item.uri).name, item.size) for item in found] == [("a.mp4", 3), ("gone.mp4", 0)]


def test_names_that_are_no_utf8_are_items_too(tmp_path: Path) -> None:
    for folder in ("one", "one/caf\udce9"):
        for name in ("a.mp4", "caf\udce9.mp4", "caf%E9.mp4", "café.mp4"):
            touch(tmp_path / folder / name, f"{folder}/{name}".encode(errors="replace").decode())
    items = listed(str(tmp_path / "one"), VIDEO)
    for item in items:
        item.uri.encode()
        with open_item(item.uri) as file:
            assert len(file.read()) == item.size
        assert version_now(item.uri) == item.version
    assert len({item.item_id for item in items}) == len({item.uri for item in items}) == 8
    assert [item.uri for item in items].count(f"file://{tmp_path}/one/caf%E9/caf%E9.mp4") == 1
    (tmp_path / "one").rename(tmp_path / "two")
    assert {item.item_id for item in listed(str(tmp_path / "two"), VIDEO)} == {item.item_id for item in items}
    [one] = listed(f"file://{tmp_path}/two/caf%E9/caf%E9.mp4", VIDEO)
    with open_item(one.uri) as file:
        assert file.read() == b"one/caf?/caf?.mp4"
    with pytest.raises(InputError, match=r"lists file://\S*/caf%E9\.mp4 twice"):
        listed([str(tmp_path / "two"), f"{tmp_path}/two/caf\udce9.mp4"], VIDEO)
    touch(tmp_path / "two/deep/caf\udce9.mp4")
    with pytest.raises(InputError, match=r"several kinds of input: caf%E9\.mp4 beside"):
        listed(f"{tmp_path}/two/deep", (".avi",), VIDEO)
