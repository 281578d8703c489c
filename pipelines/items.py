"""Listing inputs: a file, a folder, a glob or a list of them becomes items with stable ids, one after the other."""

import hashlib
import heapq
import io
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from perceiver_core.errors import PerceiverError
from pipelines.addresses import address, legible, path_of

_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "adl": "azure",
    "http": "http", "https": "http", "hf": "hub",
}  # fmt: skip
_WEB = ("http://", "https://")
_HIDDEN = re.compile(r"/[._]")
_KINDS = 8  # suffixes that are named where none is what was looked for

Found = tuple[str, dict[str, Any]]  # a path or URI, and what its file system says of it


class InputError(PerceiverError, ValueError):
    """The input as a whole can't be used: it is missing, empty, or lists the same item twice."""

    def __init__(self, message: str, found: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.found = tuple(found)  #: the suffixes of what was found instead


@dataclass(frozen=True)
class Item:
    """One input object: where it is, which bytes it was listed with, and what it is called for ever."""

    item_id: str  #: hash of the path relative to the input's root: moving the whole input keeps every id
    uri: str  #: as pipelines.addresses has it
    version: str  #: etag, or size and mtime: another version is another input
    size: int  #: bytes; of a table's rows their mean
    member: str | None = None  #: within the uri: a row, a line, or what a tar's members are called
    at: str | None = None  #: where its source finds it within the uri, as JSON


def list_items(
    uris: str | Sequence[str], suffixes: Sequence[str], others: Sequence[str] = ()
) -> Iterator[Item]:
    """List the input in the order of its URIs, holding one folder's names (of S3, one page) at a time.

    A folder is walked for files that end in one of `suffixes` (hidden ones left out, ones that end in `others`
    refused); a glob or a file is taken as it is named. Raises InputError, naming what was looked for and what was
    found.
    """
    entries = [uris] if isinstance(uris, str) else list(uris)
    if not entries:
        raise InputError("input.uri is an empty list: name at least one file, folder or glob.")
    root = _common_root([root_of(entry) for entry in entries])
    before = None
    streams = (_expand(entry, tuple(suffixes), tuple(others)) for entry in entries)
    for uri, info in heapq.merge(*streams, key=lambda found: found[0]):
        if uri == before:
            raise InputError(
                f"The input lists {address(uri)} twice: an item may be named by one entry of input.uri only. "
                "Remove the overlap between the entries."
            )
        before = uri
        yield Item(_hash(_relative(uri, root)), address(uri), _version(info), int(info["size"] or 0))


def member_id(file: Item, member: str) -> str:
    """The id of what lies within an item: a hash of its path relative to the input's root and of the member."""
    return _hash(f"{file.item_id}\0{member}")


def locate(uri: str) -> tuple[Any, str]:
    """A URI's file system and the path in it. A name with :: in it is a name: chains are not followed."""
    uri = path_of(uri)
    scheme, remote, _ = uri.partition("://")
    if not remote or uri.startswith("/"):
        return LocalFileSystem(), os.path.abspath(uri)
    if "::" in scheme:
        raise InputError(
            f"{uri} is a chain of file systems: name the files themselves, or unpack them first."
        )
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        what = f"pip install 'perceiver-batch[{extra}]'" if extra else "Install it"
        raise InputError(f"{uri} needs a driver that is not installed: {error}. {what}.") from error
    except ValueError as error:
        raise InputError(
            f"{uri} can't be opened: {error}. Schemes are such as s3, gs, az, https, hf."
        ) from error
    return kind(**kind._get_kwargs_from_urls(uri)), str(kind._strip_protocol(uri))


def open_item(uri: str, ahead: int = 4 << 20, redirects: bool = True) -> BinaryIO:
    """Open an item's bytes for reading, seekable; the caller closes it. From afar, `ahead` more bytes are read.

    Without `redirects` no web server can lead elsewhere.
    """
    fs, path = locate(uri)
    if uri.startswith(_WEB) and not redirects:
        fs = type(fs)(allow_redirects=False)
    if isinstance(fs, LocalFileSystem):
        return open(path, "rb")
    with _answering(uri):
        # By name: the default of gcsfs 2026.10 waits for ever for the rest of a short answer.
        file = fs.open(path, "rb", block_size=ahead, cache_type="readahead")
        return io.BufferedReader(_Whole(file, uri), 1 << 16)


def read_span(uri: str, offset: int, size: int) -> bytes:
    """So many bytes of a file from an offset; OSError if it has fewer."""
    fs, path = locate(uri)
    if isinstance(fs, LocalFileSystem):
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    else:
        with _answering(uri):
            data = fs.cat_file(path, start=offset, end=offset + size) if size else b""
    if len(data) != size:
        raise _cut_short(uri, size, offset, len(data))
    return data


def version_now(uri: str) -> str:
    """The version that an item would be listed with now; FileNotFoundError if it is gone."""
    fs, path = locate(uri)
    return _version(fs.info(path))


def root_of(entry: str) -> str:
    """The folder that an entry's items are named relative to."""
    fs, path = locate(entry)
    if _is_glob(path):
        path = path[: next(i for i, char in enumerate(path) if _is_glob(path[: i + 1]))]
        path = path[: path.rfind("/") + 1].rstrip("/") or "/"
    else:
        with _told(entry):
            path = path if _is_folder(fs, path) else posixpath.dirname(path)
    return _with_protocol(fs, path)


class _Whole(io.RawIOBase):
    """A remote file whose short reads are errors: some clients give them for the file's end."""

    def __init__(self, file: Any, uri: str) -> None:
        if file.size is None:
            file.close()
            raise OSError(
                f"{uri}: its server doesn't say how long it is, or leads elsewhere, which links in data may not. "
                "Copy it to a store that does."
            )
        self.file, self.uri = file, uri

    def readinto(self, buffer: Any) -> int:
        at = self.file.tell()
        wanted = min(len(buffer), max(0, self.file.size - at))
        with _answering(self.uri):
            data = self.file.read(wanted)
        if len(data) != wanted:
            raise _cut_short(self.uri, wanted, at, len(data))
        buffer[:wanted] = data
        return wanted

    def seek(self, offset: int, whence: int = 0) -> int:
        return cast(int, self.file.seek(offset, whence))

    def tell(self) -> int:
        return cast(int, self.file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()
        super().close()


@contextmanager
def _answering(uri: str) -> Iterator[None]:
    """Whatever a store's client raises, once it has tried again, as an OSError that names the object."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(
            f"{uri} can't be read: {type(error).__name__}: {error}. Run the job again into another output once its "
            "store answers."
        ) from error


def _cut_short(uri: str, wanted: int, at: int, got: int) -> OSError:
    return OSError(
        f"{uri}: expected {wanted} bytes at {at}, got {got}. The answer was cut short, or the file has changed since "
        "the run was planned: run the job again into another output."
    )


@contextmanager
def _told(entry: str) -> Iterator[None]:
    """Whatever a store's client raises, as an error that says what was listed."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{entry} can't be listed: {type(error).__name__}: {error}. Check the address, whether its store answers, "
            "and the credentials in the environment."
        ) from error


def _expand(entry: str, suffixes: tuple[str, ...], others: tuple[str, ...]) -> Iterator[Found]:
    """What an entry names, sorted."""
    with _told(entry):
        yield from _found(entry, suffixes, others)


def _found(entry: str, suffixes: tuple[str, ...], others: tuple[str, ...]) -> Iterator[Found]:
    fs, path = locate(entry)
    count = seen = 0
    kinds: set[str] = set()
    if _is_glob(path):
        for found, info in _matching(fs, path):
            count += 1
            yield _with_protocol(fs, found), info
        if not count:
            raise InputError(f"Nothing matches {entry}: expected at least one file. Check the pattern.")
    elif not _is_page(path) and fs.isfile(path):
        yield _with_protocol(fs, path), fs.info(path)
    elif _is_folder(fs, path):
        for found, info in _below(fs, path):
            if _is_hidden(found, path):
                continue
            seen += 1
            if len(kinds) < _KINDS:
                kinds.add(legible(posixpath.splitext(found)[1].lower()))
            if found.lower().endswith(suffixes):
                count += 1
                yield _with_protocol(fs, found), info
            elif found.lower().endswith(others):
                raise InputError(
                    f"{entry} holds several kinds of input: {legible(posixpath.basename(found))} beside files that end "
                    f"in {', '.join(suffixes)}. Say which is meant by input.format, or name a glob such as "
                    f"{entry.rstrip('/')}/*{suffixes[0]}."
                )
        if not count:
            there = ", ".join(sorted(kind or "none" for kind in kinds))
            raise InputError(
                f"No input in {entry}: expected files that end in {', '.join(suffixes)}; found "
                f"{f'{seen} other files (ending in {there})' if seen else 'nothing'}. Name another folder, or a glob "
                f"such as {entry.rstrip('/')}/*.",
                sorted(kinds),
            )
    else:
        raise InputError(f"No such file or folder: {entry}. Check input.uri, or whether it is mounted here.")


def _matching(fs: Any, pattern: str) -> Iterator[Found]:
    """The files that match a glob; only folders that may hold some are walked."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _is_glob(part))
    wanted = re.compile(glob_translate(pattern))
    folders = [re.compile(glob_translate("/".join(parts[: i + 1]))) for i in range(len(parts))]

    def enter(folder: str) -> bool:
        depth = folder.count("/")
        if any("**" in part for part in parts[: depth + 1]):
            return True
        return depth < len(parts) - 1 and bool(folders[depth].match(folder))

    base = "/".join(parts[:fixed]) or "/"
    if not fs.isdir(base):
        return
    files = _below(fs, base) if "**" in pattern else _walk(fs, base, enter)
    for path, info in files:
        if wanted.match(path):
            yield path, info


def _below(fs: Any, folder: str) -> Iterator[Found]:
    """All files below a folder, sorted by path."""
    return _s3_pages(fs, folder) if hasattr(fs, "call_s3") else _walk(fs, folder, lambda _: True)


def _walk(fs: Any, folder: str, enter: Callable[[str], bool]) -> Iterator[Found]:
    """The files below a folder, sorted by path, a folder's entries in memory at a time."""
    if isinstance(fs, LocalFileSystem):
        with os.scandir(folder) as found:  # names only: a million infos are a gigabyte
            entries = [entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in found]
        infos: dict[str, Any] = {}
    else:
        folder = folder.rstrip("/")
        # A page links to what isn't below it, too.
        listed = [info for info in fs.ls(f"{folder}/", detail=True) if info["name"].startswith(f"{folder}/")]
        infos = {
            posixpath.basename(info["name"].rstrip("/")) + "/" * (info["type"] == "directory"): info
            for info in listed
        }
        entries = list(infos)
        fs.invalidate_cache(folder)
    for name in sorted(entries):  # with its slash, a folder sorts as the paths in it do
        path = posixpath.join(folder, name)
        if name.endswith("/"):
            if enter(path[:-1]):
                yield from _walk(fs, path[:-1], enter)
            continue
        info = infos.pop(name, {})
        if info.get("size") is None:  # local, or of the web
            info = _stat(fs, path)
        if info["type"] == "file":
            yield path, info


def _stat(fs: Any, path: str) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], fs.info(path))
    except FileNotFoundError:  # a link to nowhere is an item that can't be opened
        return {"size": 0, "type": "file"}


def _s3_pages(fs: Any, folder: str) -> Iterator[Found]:
    """All objects below a prefix, page by page as S3 sorts them: a request per folder could be a million."""
    bucket, _, prefix = folder.partition("/")
    more: dict[str, str] = {}
    while True:
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", **more)
        for info in page.get("Contents", ()):
            if not info["Key"].endswith("/"):
                yield f"{bucket}/{info['Key']}", {"size": info["Size"], **info}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _common_root(roots: list[str]) -> str:
    return roots[0] if len(set(roots)) == 1 else posixpath.commonpath(roots)


def _with_protocol(fs: Any, path: str) -> str:
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _is_glob(path: str) -> bool:
    return any(char in path for char in ("*" if path.startswith(_WEB) else "*?["))


def _is_folder(fs: Any, path: str) -> bool:
    """Of web addresses those that end in a slash: their client would read a whole file to see whether it is one."""
    return _is_page(path) if path.startswith(_WEB) else bool(fs.isdir(path))


def _is_page(path: str) -> bool:
    return path.startswith(_WEB) and path.endswith("/")


def _is_hidden(path: str, root: str) -> bool:
    return _HIDDEN.search("/" + _relative(path, root)) is not None


def _relative(path: str, root: str) -> str:
    start = root.rstrip("/") + "/"
    return path[len(start) :] if path.startswith(start) else posixpath.relpath(path, root)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _version(info: dict[str, Any]) -> str:
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("created") or ""
    return f"{info['size']}-{changed}"
