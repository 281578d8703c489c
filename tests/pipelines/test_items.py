"""Listing inputs."""

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipelines.items import InputError, Item, list_items, open_item

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
