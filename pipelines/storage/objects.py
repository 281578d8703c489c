"""A bucket: files appear by a conditional upload, which the store refuses where something is."""

import functools
import io
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pyarrow as pa
from fsspec.asyn import sync
from pyarrow.fs import FSSpecHandler, PyFileSystem

from pipelines import commit_points, transient
from pipelines.items import InputError, locate
from pipelines.storage import OutputError, Place, Stored, told_of_disk
from pipelines.storage.pieces import long_before, next_piece

#: The drivers that pass a condition on to their store, in every way in which they upload.
_DRIVERS = {"s3fs", "gcsfs", "adlfs"}
_CHUNK = 4 << 20  # compared at a time, and read ahead
_MOST = 32 << 20  # read at a time
_UPLOADS = 4  # parts of one file at a time, in memory: of S3 50 MB each; adlfs's default is 128 of them
_READS = 16  # files of a log at a time

_T = TypeVar("_T")
_Page = tuple[list[str], str | None]  # keys, and the next page's token


@dataclass(frozen=True)
class ObjectStorage:
    """S3, GCS and Azure by their fsspec drivers, each with the credentials of the environment."""

    uri: str
    patience_s: float | None = None  #: by default transient.PATIENCE_S

    @property
    def arrow(self) -> Any:
        return PyFileSystem(_ArrowHandler(self))

    def where(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def prepare(self) -> None:
        self._tried("", "be written to", self._check_driver)
        next(self.names("runs"), None)  # a bucket that isn't there, or may not be listed, is found out

    @contextmanager
    def draft(self) -> Iterator[Path]:
        folder = _drafts(tempfile.gettempdir(), os.getpid())
        path = folder / f"{_space()}-{os.getpid()}-{uuid.uuid4().hex}"

        def advice(why: str) -> str:
            return (
                f"{folder}, where files are written before they go to {self.uri}, can't be written to: {why}. Make "
                "room there, or set TMPDIR, then run the job again to resume."
            )

        try:
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
                path.touch(exist_ok=False)
            except OSError as error:
                raise OutputError(advice(str(error.strerror))) from error
            commit_points.passing("draft begun")
            with told_of_disk(advice):
                yield path
        finally:
            with suppress(OSError):  # what is the matter with the disk was told already
                path.unlink()

    def create(self, name: str, draft: Path) -> bool:
        draft.stat()  # a missing draft is no missing bucket
        commit_points.passing("draft written")
        is_ours = self._tried(name, "be created", partial(self._put, name, draft))
        if is_ours:
            commit_points.passing("created")
            commit_points.passing("create acknowledged")
        return is_ours

    def write(self, name: str, data: bytes) -> None:
        self._tried(name, "be written", lambda: self._fs.pipe_file(self._path(name), data))

    def append(self, name: str, data: bytes) -> None:
        self.write(next_piece(name), data)

    def appended(self, name: str) -> bytes:
        return self.added(name, None)[0]

    def added(self, name: str, place: Place) -> tuple[bytes, Place]:
        read = place or frozenset()
        assert isinstance(read, frozenset)
        names = [one for one in self.names(name, long_before(read)) if one not in read]
        read = read.union(names)
        late = long_before(read)
        place = frozenset(one for one in read if one > late)
        if len(names) < 2:
            return b"".join(map(self.read, names)), place
        with ThreadPoolExecutor(min(_READS, len(names))) as pool:
            return b"".join(pool.map(self.read, names)), place

    def read(self, name: str) -> bytes:
        return self._tried(name, "be read", partial(self._read, name), missing=True)

    def open(self, name: str) -> pa.NativeFile:
        return pa.PythonFile(_PatientFile(self, name), mode="r")

    def exists(self, name: str) -> bool:
        try:
            return bool(self.stat(name))
        except FileNotFoundError:
            return False

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        bucket, root = self._tried(folder, "be listed", lambda: self._path("")).split("/", 1)
        prefix = f"{root}{folder}/" if folder else root
        token: str | None = None
        while True:
            page = partial(_page, self._fs, bucket, prefix, after and root + after, token)
            keys, token = self._tried(folder, "be listed", page)
            names = (key.removeprefix(root) for key in keys if not key.endswith("/"))
            yield from (name for name in names if name > after)
            if not token:
                return

    def stat(self, name: str) -> Stored:
        info = self._tried(name, "be read", lambda: self._fs.info(self._path(name)), missing=True)
        if info["type"] != "file":
            raise FileNotFoundError(f"{self.where(name)} is not there.")
        modified = info.get("LastModified") or info.get("mtime") or info["last_modified"]
        return Stored(name, int(info["size"]), modified.timestamp())

    def delete(self, name: str) -> None:
        def delete() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

        self._tried(name, "be deleted", delete)

    @property
    def _fs(self) -> Any:
        """The driver, which remembers no listing: others write here, too."""
        fs, _ = locate(self.uri)
        return type(fs)(*fs.storage_args, **{**fs.storage_options, "use_listings_cache": False})

    def _path(self, name: str) -> str:
        """A file's path as the driver has it: its bucket first."""
        return str(self._fs._strip_protocol(self.uri)).rstrip("/") + f"/{name}"

    def _check_driver(self) -> None:
        fs, _ = locate(self.uri)
        if type(fs).__module__.split(".")[0] not in _DRIVERS:
            raise OutputError(
                f"{self.uri} can't be an output: files can be created only if absent in local folders, and on S3, GCS "
                "and Azure. Name a path, or a URI that begins with s3://, gs:// or az://."
            )

    def _put(self, name: str, draft: Path) -> bool:
        """Upload on the condition that nothing is there; whether what is there then is the draft."""
        fs, path = self._fs, self._path(name)
        try:
            fs.put_file(str(draft), path, mode="create", max_concurrency=_UPLOADS)
        except Exception as error:
            if not (_is_taken(error) or _is_lost(error)):
                raise
            same = _is_same(fs, path, draft)
            if same is None:
                next(self.names("runs"), None)  # OutputError, if it is the bucket
                raise ConnectionAbortedError(f"The upload was lost: {_first_line(error)}") from error
            return same
        return True

    def _read(self, name: str) -> bytes:
        # In one answer, so that it is of one version; then its length, which an answer cut short hasn't.
        data: bytes = self._fs.cat_file(self._path(name), max_concurrency=1)
        size = self._fs.info(self._path(name))["size"]
        if len(data) != size:
            raise ConnectionAbortedError(f"Expected {size} bytes, got {len(data)}")
        return data

    def _tried(self, name: str, what: str, request: Callable[[], _T], missing: bool = False) -> _T:
        """What the store answers, asked again while it fails in passing. With `missing`, files may be missing."""
        uri = self.where(name) if name else self.uri
        patience = transient.PATIENCE_S if self.patience_s is None else self.patience_s
        try:
            return transient.retrying(patience)(request)
        except (InputError, OutputError):
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) or getattr(error, "status_code", None) == 404:
                if missing:
                    raise FileNotFoundError(f"{uri} is not there.") from error
                raise OutputError(
                    f"{uri} can't {what}: its bucket isn't there ({_first_line(error)}). Create it, or correct "
                    "output.uri."
                ) from error
            advice = (
                f"It was tried for {patience:.0f} s: once its store answers, run the job again to resume."
                if transient.is_transient(error)
                else "Check the address and what the credentials in the environment allow, then run the job again to "
                "resume."
            )
            raise OutputError(
                f"{uri} can't {what}: {type(error).__name__}: {_first_line(error)}. {advice}"
            ) from error


class _ArrowHandler(FSSpecHandler):
    """pyarrow's way to the store, by URIs as by the driver's paths; it reads as patiently as ObjectStorage does."""

    def __init__(self, storage: ObjectStorage) -> None:
        super().__init__(storage._fs)
        self.storage = storage

    def normalize_path(self, path: str) -> str:
        return str(self.fs._strip_protocol(path))

    def open_input_file(self, path: str) -> pa.NativeFile:
        root = self.storage._path("")
        return self.storage.open(self.normalize_path(path).removeprefix(root))

    open_input_stream = open_input_file

    def get_file_info(self, paths: list[str]) -> list[Any]:
        ask = partial(super().get_file_info, paths)
        return self.storage._tried("", "be listed", ask)


class _PatientFile(io.RawIOBase):
    """A file of the store, read ahead. fsspec's own files are not used: gcsfs's hang where an answer is cut short."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self.storage, self.name = storage, name
        self.size = storage.stat(name).size
        self.at = self.start = 0
        self.ahead = memoryview(b"")  # what lies from `start`

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer).cast("B")
        done = 0
        while done < len(wanted) and self.at < self.size:
            if not self.start <= self.at < self.start + len(self.ahead):
                self._read_ahead(len(wanted) - done)
            piece = self.ahead[self.at - self.start :][: len(wanted) - done]
            wanted[done : done + len(piece)] = piece
            done += len(piece)
            self.at += len(piece)
        return done

    def _read_ahead(self, wanted: int) -> None:
        end = min(self.size, self.at + max(_CHUNK, min(wanted, _MOST)))
        fs, path = self.storage._fs, self.storage._path(self.name)
        span = partial(_span, fs, path, self.at, end)
        self.ahead = memoryview(self.storage._tried(self.name, "be read", span, missing=True))
        self.start = self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _is_taken(error: BaseException) -> bool:
    """Whether the store said that something is there: drivers dress its 412 differently.

    s3fs knows it only where the answer names the condition, which S3-compatible stores leave out; and where a driver
    cleans up, that may fail and hide it.
    """
    one: BaseException | None = error
    while one is not None:
        answer = getattr(one, "response", None)
        status = (
            answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
        )
        if isinstance(one, FileExistsError) or 412 in (status, getattr(one, "status_code", None)):
            return True
        one = one.__cause__ or one.__context__
    return False


def _is_lost(error: BaseException) -> bool:
    """Whether an upload in parts is gone: ended by a try whose answer was lost, or by another's. Or its bucket is."""
    codes = (getattr(error, "code", None), getattr(error, "error_code", None))
    return isinstance(error, FileNotFoundError) or 410 in codes or "InvalidBlockList" in codes


def _is_same(fs: Any, path: str, draft: Path) -> bool | None:
    """Whether a draft's bytes are what is there; None if nothing is. Parts of two attempts differ near their ends."""
    end = draft.stat().st_size
    try:
        if fs.info(path)["size"] != end:
            return False
        with draft.open("rb") as file:
            while end > 0:
                start = max(0, end - _CHUNK)
                there = _span(fs, path, start, end)
                file.seek(start)
                if file.read(end - start) != there:
                    return False
                end = start
    except FileNotFoundError:
        return None
    return True


def _span(fs: Any, path: str, start: int, end: int) -> bytes:
    """Bytes of a file; an answer that was cut short is an error that passes."""
    data: bytes = fs.cat_file(path, start=start, end=end, max_concurrency=1)
    if len(data) != end - start:
        raise ConnectionAbortedError(f"Expected {end - start} bytes at {start}, got {len(data)}")
    return data


def _page(fs: Any, bucket: str, prefix: str, after: str, token: str | None) -> _Page:
    """Some of the keys below a prefix, in order."""
    if hasattr(fs, "call_s3"):
        more = {"ContinuationToken": token} if token else {"StartAfter": after} if after else {}
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        return [info["Key"] for info in page.get("Contents", ())], page.get("NextContinuationToken")
    if hasattr(fs, "service_client"):
        return sync(fs.loop, _azure_keys, fs, bucket, prefix), None
    page = fs.call(
        "GET", "b/{}/o", bucket, json_out=True, prefix=prefix, startOffset=after or None, pageToken=token
    )
    return [info["name"] for info in page.get("items", ())], page.get("nextPageToken")


async def _azure_keys(fs: Any, bucket: str, prefix: str) -> list[str]:
    """All of them: accounts with folders list these as blobs, and sort them otherwise."""
    async with fs.service_client.get_container_client(bucket) as container:
        blobs = container.list_blobs(name_starts_with=prefix, include=["metadata"])
        return sorted([blob.name async for blob in blobs if not _is_azure_folder(blob.metadata or {})])


def _is_azure_folder(metadata: dict[str, str]) -> bool:
    return "true" in (
        metadata.get("hdi_isfolder"),
        metadata.get("Hdi_isfolder"),
        metadata.get("is_directory"),
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _space() -> int:
    """Which of this machine's name spaces process numbers are of."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


@functools.cache
def _drafts(temporary: str, process: int) -> Path:
    """This process's folder of drafts, without those that dead ones left."""
    folder = Path(temporary, f"perceive-drafts-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise PermissionError(0, "it is another user's")
        for draft in folder.iterdir():
            space, _, rest = draft.name.partition("-")
            owner = rest.partition("-")[0]
            # Those of other containers, whose numbers mean nothing here, may live.
            if space == str(_space()) and owner.isdigit() and not psutil.pid_exists(int(owner)):
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}, where files are written before they go to their store, can't be written to: "
            f"{error.strerror}. Set TMPDIR to a folder that can."
        ) from error
    return folder
