"""The decoder's process: a task's probe and preprocess, run beside the files of strangers and nothing else.

It gets bytes by asking its parent for them, so it needs no network, no credentials and no paths. What it may have of
memory and files is fixed before the first byte comes, and it dies with its parent.
"""

import errno
import faulthandler
import fcntl
import io
import os
import resource
import select
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import pyarrow as pa
from pydantic import TypeAdapter

from perceiver_core.config import PerceiverConfig
from pipelines.errors import digest_of
from pipelines.limits import Limits
from pipelines.tasks import TASKS, Task
from pipelines.tensors import in_flight, is_tensor, pack
from pipelines.wire import Channel, GoneError

_OPEN_FILES = 64  # few: what libraries open when they are first used
_SAYS = 1 << 16  # bytes that it may write to any file: its parent keeps what it says on stderr
_LEAST, _MOST = 1 << 16, 1 << 20  # bytes asked for at a time: more and more, while they are read in order
_MESSAGE = 1 << 16  # characters of an error
_CHUNKS = 8  # of each file that are held: sound and picture are read at places of their own


class ReadError(OSError):
    """The parent could not read the file, and knows why."""


class ParentsFile(io.RawIOBase):
    """A file that the parent has open, read ahead."""

    def __init__(self, channel: Channel, name: str, size: int) -> None:
        self._channel, self._name, self._size = channel, name, size
        self._at = 0
        self._chunks: dict[int, bytearray] = {}  # by where they begin, the last used last

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise OSError(errno.EINVAL, f"expected a position of at least 0; got {at}")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def read(self, size: int | None = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < stop:
            begin, chunk = self._chunk(stop)
            part = memoryview(chunk)[self._at - begin : stop - begin]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def _chunk(self, stop: int) -> tuple[int, bytearray]:
        """The chunk that holds the position, with where it begins."""
        ahead = _LEAST
        for begin, chunk in self._chunks.items():
            if begin <= self._at < begin + len(chunk):
                self._chunks[begin] = self._chunks.pop(begin)
                return begin, chunk
            if begin + len(chunk) == self._at:
                ahead = min(2 * len(chunk), _MOST)
        length = min(max(ahead, stop - self._at), self._size - self._at)
        self._channel.send({"is": "read", "name": self._name, "offset": self._at, "length": length})
        head, chunk = self._channel.receive(most=length)
        if "failed" in head:
            raise ReadError(f"{self._name} could not be read")
        if not chunk:
            raise EOFError(f"{self._name} ends at byte {self._at}: expected {self._size} bytes")
        self._chunks[self._at] = chunk
        if len(self._chunks) > _CHUNKS:
            del self._chunks[next(iter(self._chunks))]
        return self._at, chunk


def serve(tasks: Sequence[type[Task]]) -> None:
    """Answer requests until the parent is gone; the arguments are the channel's and the lifeline's descriptors."""
    end, lifeline = (int(argument) for argument in sys.argv[1:])
    _die_with_parent(lifeline)
    faulthandler.enable(all_threads=False)  # a crash says where, on the stderr that the parent keeps
    channel = Channel(socket.socket(fileno=end))
    hello, _ = channel.receive(most=0)
    kind = {task.name: task for task in tasks}[hello["task"]]
    task = TypeAdapter(kind).validate_python(hello["options"])
    config = PerceiverConfig.from_dict(hello["config"])
    limits = Limits(**hello["limits"])
    ample = _confine(limits) + limits.memory * 2 // 3
    channel.send({"is": "ready"})
    while True:
        try:
            request, body = channel.receive(most=sys.maxsize)
        except GoneError:
            return
        before = _peak()
        try:
            for head, batch in _answers(request, _files(request, body, channel), task, config, limits):
                channel.send(head, *(() if batch is None else (batch.serialize(),)))
        except Exception as error:
            # FFmpeg's decoders may call it invalid data where they got no memory.
            starved = any(_is_memory(one) for one in _causes(error)) or before < _peak() > ample
            told = {
                "kind": type(error).__name__,
                "message": str(error)[:_MESSAGE],
                "digest": digest_of(error),
            }
            channel.send({"is": "error", "starved": starved} | told)


def _answers(
    request: Mapping[str, Any],
    files: Mapping[str, BinaryIO],
    task: Task,
    config: PerceiverConfig,
    limits: Limits,
) -> Iterator[tuple[dict[str, Any], pa.RecordBatch | None]]:
    if request["do"] == "probe":
        windows, info = task.probe(files, config, limits)
        yield {"is": "done", "windows": windows, "info": info}, None
        return
    schema = task.input_schema(config)
    span = request["info"], request["first"], request["stop"]
    for window in task.preprocess(files, *span, config, limits):
        yield {"is": "window"}, packed(window, schema)
    yield {"is": "done"}, None


def packed(window: Mapping[str, object], schema: pa.Schema) -> pa.RecordBatch:
    """One window as a row."""
    columns = [
        pack(np.asarray(window[field.name])[None])
        if is_tensor(field.type)
        else pa.array([window[field.name]], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=in_flight(schema))


def _files(request: Mapping[str, Any], body: bytearray, channel: Channel) -> dict[str, Any]:
    """The item's contents: those that came along, and those that are to be asked for."""
    ends = [0]
    for content in request["files"]:
        ends.append(ends[-1] + (content["size"] if content["here"] else 0))
    return {
        content["name"]: io.BytesIO(memoryview(body)[begin:stop])
        if content["here"]
        else ParentsFile(channel, content["name"], content["size"])
        for content, (begin, stop) in zip(request["files"], pairwise(ends), strict=True)
    }


def _die_with_parent(lifeline: int) -> None:
    """Have the kernel end this process when the parent's end of the pipe closes, whatever this one is at.

    Not PR_SET_PDEATHSIG: that comes when the thread ends that started us, and threads of a pool do.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)  # SIGIO, which ends a process that has no handler
    if select.select([lifeline], [], [], 0)[0]:  # it was closed before that
        os._exit(0)


def _confine(limits: Limits) -> int:
    """Limit this process, for good; returns the bytes of addresses that it has already."""
    started = psutil.Process().memory_info().vms
    for what, most in (
        (resource.RLIMIT_AS, started + limits.memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_FSIZE, _SAYS),
    ):
        _, hard = resource.getrlimit(what)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))
    return started


def _peak() -> int:
    """Bytes of addresses that this process had at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmPeak:")]
    return int(line.split()[1]) << 10


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and all that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


if __name__ == "__main__":
    serve(TASKS)
