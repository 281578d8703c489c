"""Storage: where an output lies, a local folder or a bucket. One file each; names are relative to the output.

What all promise: `create` makes a file appear whole or not at all, and only if there is none of that name, however
many try at once. On that alone rests that every row is there exactly once.
"""

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from perceiver_core.errors import PerceiverError

_OF_DISK = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS}


class OutputError(PerceiverError, OSError):
    """The output can't be read or written as it must be."""


@dataclass(frozen=True)
class Stored:
    """A file of the output."""

    name: str  #: relative to the output
    size: int  #: bytes
    modified: float  #: seconds since the epoch, by the storage's clock


#: How far a log was read, as its storage has it; None: not at all.
Place = int | frozenset[str] | None


class Storage(Protocol):
    """A frozen dataclass that travels to the workers. Whatever fails in passing is tried again, then an OutputError.

    FileNotFoundError where there is no file of that name. Names use /.
    """

    @property
    def uri(self) -> str:
        """The output's folder: a local path, or a URI."""

    @property
    def arrow(self) -> Any:
        """The file system for pyarrow to open `where(name)` with; None for local paths."""

    def where(self, name: str) -> str:
        """A file's local path, or its URI."""

    def prepare(self) -> None:
        """Make the output's folder where there are folders. Raises OutputError if it can't be written to."""

    def draft(self) -> AbstractContextManager[Path]:
        """A local path to write a file to, which `create` then takes; removed in the end."""

    def create(self, name: str, draft: Path) -> bool:
        """Make the draft the file of that name, durably, if there is none; whether it is this draft that is there.

        Of one's own, created by an earlier try whose answer was lost, that is True as well.
        """

    def write(self, name: str, data: bytes) -> None:
        """Put a small file there, in place of what was there: at once, a reader sees all of one or of the other."""

    def append(self, name: str, data: bytes) -> None:
        """Add whole lines to a log, for `appended` to read."""

    def appended(self, name: str) -> bytes:
        """All that was added to a log, in order; empty if nothing was. A line that a kill cut short has its own end."""

    def added(self, name: str, place: Place) -> tuple[bytes, Place]:
        """What was added to a log since it was read to a place, and the place to go on from. It costs what is new.

        What several processes add comes in the order in which it is there, where `appended` has it by their clocks.
        """

    def read(self, name: str) -> bytes:
        """All of a small file."""

    def open(self, name: str) -> pa.NativeFile:
        """A file for reading, seekable; the caller closes it. What is read of a local one is mapped, not copied."""

    def exists(self, name: str) -> bool: ...

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        """The names of all files below a folder in order, those after `after`; none if there is no folder."""

    def stat(self, name: str) -> Stored: ...

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""


@contextmanager
def created(storage: Storage, name: str) -> Iterator[Path]:
    """Yield a local path to write to; then it becomes `name`, at once and durably, or gives way to what is there."""
    with storage.draft() as draft:
        yield draft
        storage.create(name, draft)


def create_text(storage: Storage, name: str, text: str) -> bool:
    """Create a small file if there is none of that name; whether it is this one that is there."""
    with storage.draft() as draft:
        draft.write_text(text)
        return storage.create(name, draft)


@contextmanager
def told_of_disk(say: Callable[[str], str]) -> Iterator[None]:
    """An error of the disk that drafts are on, by whatever writes one in the block, as one that says what to do."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno not in _OF_DISK:
            raise
        raise OutputError(say(os.strerror(error.errno))) from error


def check_conditions(storage: Storage) -> None:
    """Raise OutputError unless a file that exists can't be created again, and reads back as it was written.

    Everything rests on that, and not every file system or store does it.
    """
    name = f"runs/tmp/probe-{uuid.uuid4().hex}"
    try:
        if not create_text(storage, name, "first") or storage.read(name) != b"first":
            raise OutputError(
                f"{storage.uri} does not give back what was written to it. Choose another output.uri; of an "
                "S3-compatible store, check its version and AWS_REQUEST_CHECKSUM_CALCULATION=when_required."
            )
        if create_text(storage, name, "other") or storage.read(name) != b"first":
            raise OutputError(
                f"{storage.uri} overwrites files that exist where it was asked not to: two writers could not be told "
                "apart. Choose an output on a POSIX file system, S3, GCS or Azure, or a store that honours "
                "If-None-Match."
            )
    finally:
        storage.delete(name)


def open_storage(uri: str, patience_s: float | None = None) -> Storage:
    """The storage of an output's path or URI; nothing is touched yet, nor is its driver looked for.

    A bucket that fails in passing is asked again for `patience_s`, by default for as long as a run can wait.
    """
    from pipelines.storage.local import LocalStorage
    from pipelines.storage.objects import ObjectStorage

    return ObjectStorage(uri.rstrip("/"), patience_s) if "://" in uri else LocalStorage(os.path.abspath(uri))
