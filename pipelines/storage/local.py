"""A local folder, or one that is mounted: files appear by a hard link, which fails where something is."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines import commit_points
from pipelines.storage import OutputError, Place, Stored, told_of_disk

#: Not in data/: DuckDB's and Polars' globs read what begins with a dot, too.
_DRAFTS = "runs/tmp"


@dataclass(frozen=True)
class LocalStorage:
    """Draft, fsync, link, fsync the folder: then the file is there, after a power cut as well."""

    uri: str

    @property
    def arrow(self) -> Any:
        return None

    def where(self, name: str) -> str:
        return str(Path(self.uri, name))

    def prepare(self) -> None:
        with self._told("be written to"):
            Path(self.uri, _DRAFTS).mkdir(parents=True, exist_ok=True)
            with self.draft() as first, self.draft() as second:
                try:
                    os.link(first, second.with_suffix(".link"))
                except OSError as error:
                    if error.errno is None or isinstance(error, FileNotFoundError):
                        raise
                    raise OutputError(
                        f"{self.uri} is on a file system without hard links ({error.strerror}), by which files are "
                        "created only if absent. Choose an output on a POSIX file system, or in a bucket."
                    ) from error
                finally:
                    second.with_suffix(".link").unlink(missing_ok=True)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        path = Path(self.uri, _DRAFTS, uuid.uuid4().hex)
        try:
            with self._told("be written to"):
                path.touch(exist_ok=False)
            commit_points.passing("draft begun")
            with told_of_disk(lambda why: self._advice("be written to", why)):
                yield path
        finally:
            with suppress(OSError):  # what is the matter with the disk was told already
                path.unlink()

    def create(self, name: str, draft: Path) -> bool:
        path = Path(self.uri, name)
        with self._told("be written to"):
            commit_points.passing("draft written")
            _sync(draft)
            commit_points.passing("draft synced")
            try:
                _linked(draft, path)
            except FileExistsError:
                if os.stat(draft).st_nlink == 1:  # NFS: the link was made, and the answer lost
                    return False
            commit_points.passing("created")
            _sync(path.parent)
            commit_points.passing("create acknowledged")
            return True

    def write(self, name: str, data: bytes) -> None:
        path = Path(self.uri, name)
        with self.draft() as draft, self._told("be written to"):
            draft.write_bytes(data)
            _sync(draft)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft, path)
            _sync(path.parent)

    def append(self, name: str, data: bytes) -> None:
        path = Path(self.uri, name)
        with self._told("be written to"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:  # one write: whole lines, whoever else appends
                if file.tell() and not _ends_a_line(file):
                    data = b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def appended(self, name: str) -> bytes:
        return self.added(name, None)[0]

    def added(self, name: str, place: Place) -> tuple[bytes, Place]:
        start = place or 0
        assert isinstance(start, int)
        data, size = b"", 0
        with suppress(FileNotFoundError), self._told("be read"), Path(self.uri, name).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(start)
            data = file.read()
        if size < start:
            raise OutputError(
                f"{self.where(name)} is shorter than it was: expected {start} bytes and what came since, got {size}. "
                "Somebody deleted or replaced it while it was followed: look at it anew."
            )
        return data, start + len(data)

    def read(self, name: str) -> bytes:
        with self._told("be read"):
            return Path(self.uri, name).read_bytes()

    def open(self, name: str) -> pa.NativeFile:
        path = Path(self.uri, name)
        with self._told("be read"):
            if not path.stat().st_size:  # nothing to map
                return pa.BufferReader(b"")
            return pa.memory_map(str(path))

    def exists(self, name: str) -> bool:
        return Path(self.uri, name).exists()

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        root = os.path.join(self.uri, folder)
        with self._told("be listed"):
            yield from (name for name in _below(root, folder) if name > after)

    def stat(self, name: str) -> Stored:
        with self._told("be read"):
            found = Path(self.uri, name).stat()
            return Stored(name, found.st_size, found.st_mtime)

    def delete(self, name: str) -> None:
        with self._told("be written to"):
            Path(self.uri, name).unlink(missing_ok=True)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """What the system says, as an error that says what to do."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, OutputError):
            raise
        except OSError as error:
            raise OutputError(self._advice(what, str(error.strerror))) from error

    def _advice(self, what: str, why: str) -> str:
        return (
            f"{self.uri} can't {what}: {why}. Make room if the disk is full, check its permissions and whether it is "
            "mounted, then run the job again to resume."
        )


def _linked(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(draft, path)


def _below(root: str, folder: str) -> Iterator[str]:
    """The files below a folder in the order of their names; a folder's names in memory at a time."""
    try:
        with os.scandir(root) as found:
            entries = sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in entries:
        if name.endswith("/"):
            yield from _below(os.path.join(root, name[:-1]), f"{folder}/{name[:-1]}" if folder else name[:-1])
        else:
            yield f"{folder}/{name}" if folder else name


def _ends_a_line(file: Any) -> bool:
    """A kill may have cut the last line short: then the next one begins on its own."""
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
