"""Listing inputs: a file, a folder, a glob or a list of them becomes items with stable ids."""

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec
from fsspec.core import url_to_fs
from fsspec.utils import get_protocol


class InputError(ValueError):
    """The input as a whole can't be used: it is missing, empty, or lists the same item twice."""


@dataclass(frozen=True)
class Item:
    """One input object: where it is, which bytes it was listed with, and what it is called for ever."""

    item_id: str  #: hash of the path relative to the input's root: moving the whole input keeps every id
    uri: str
    version: str  #: etag, or size and mtime: another version is another input
    size: int  #: bytes
    member: str | None = None  #: within the uri: a row, a line, or what a tar's members are called
    at: str | None = None  #: where its source finds it within the uri, as JSON


def list_items(uris: str | Sequence[str], suffixes: Sequence[str]) -> list[Item]:
    """List the input, in an order that only depends on its content.

    A folder is walked for files that end in one of `suffixes` (hidden ones left out); a glob or a file is
    taken as it is named. Raises InputError, naming what was looked for and what was found.
    """
    entries = [uris] if isinstance(uris, str) else list(uris)
    if not entries:
        raise InputError("input.uri is an empty list: name at least one file, folder or glob.")
    root = _common_root([_root(entry) for entry in entries])
    items: dict[str, Item] = {}
    for uri, info in (found for entry in entries for found in _expand(entry, suffixes)):
        relative = posixpath.relpath(uri, root)
        item_id = hashlib.sha256(relative.encode()).hexdigest()[:16]
        if item_id in items:
            raise InputError(
                f"The input lists {uri} twice: an item may be named by one entry of input.uri only. "
                "Remove the overlap between the entries."
            )
        items[item_id] = Item(item_id, uri, _version(info), int(info["size"]))
    return sorted(items.values(), key=lambda item: item.uri)


def open_item(uri: str) -> BinaryIO:
    """Open an item's bytes for reading, seekable; the caller closes it."""
    file: BinaryIO = fsspec.open(uri, "rb").open()
    return file


def version_now(uri: str) -> str:
    """The version that an item would be listed with now; FileNotFoundError if it is gone."""
    fs, path = url_to_fs(uri)
    return _version(fs.info(path))


def _expand(entry: str, suffixes: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    fs, path = url_to_fs(entry)
    if _is_glob(path):
        found = {p: i for p, i in fs.glob(path, detail=True).items() if i["type"] == "file"}
        if not found:
            raise InputError(f"Nothing matches {entry}: expected at least one file. Check the pattern.")
    elif fs.isfile(path):
        found = {path: fs.info(path)}
    elif fs.isdir(path):
        everything = {p: i for p, i in fs.find(path, detail=True).items() if not _is_hidden(p, path)}
        found = {p: i for p, i in everything.items() if p.lower().endswith(tuple(suffixes))}
        if not found:
            raise InputError(
                f"No input in {entry}: expected files that end in {', '.join(suffixes)}; found "
                f"{len(everything)} other files. Name another folder, or a glob such as {entry.rstrip('/')}/*."
            )
    else:
        raise InputError(f"No such file or folder: {entry}. Check input.uri, or whether it is mounted here.")
    return ((_with_protocol(fs, entry, p), info) for p, info in found.items())


def _root(entry: str) -> str:
    """The folder that an entry's items are named relative to."""
    fs, path = url_to_fs(entry)
    if _is_glob(path):
        path = path[: next(i for i, char in enumerate(path) if char in "*?[")]
        path = path[: path.rfind("/") + 1].rstrip("/") or "/"
    elif not fs.isdir(path):
        path = posixpath.dirname(path)
    return _with_protocol(fs, entry, path)


def _common_root(roots: list[str]) -> str:
    return roots[0] if len(set(roots)) == 1 else posixpath.commonpath(roots)


def _with_protocol(fs: Any, entry: str, path: str) -> str:
    return path if get_protocol(entry) == "file" else str(fs.unstrip_protocol(path))


def _is_glob(path: str) -> bool:
    return any(char in path for char in "*?[")


def _is_hidden(path: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in posixpath.relpath(path, root).split("/"))


def _version(info: dict[str, Any]) -> str:
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or ""
    return f"{info['size']}-{changed}"
