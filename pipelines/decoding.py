"""Decoding what strangers made: a task's probe and preprocess, in a process of their own, with their limits.

The process is started when it is first needed and kept; one that dies, hangs or eats memory costs the item that it
was at, and another is started for the next.
"""

import dataclasses
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import pyarrow as pa
from pydantic import TypeAdapter

from perceiver_core.config import PerceiverConfig
from perceiver_core.errors import PerceiverError
from pipelines.errors import DecodeCrash, DecodeError, DecodeMemory, DecodeTimeout, digest_of_places
from pipelines.limits import Limits
from pipelines.tasks import Task
from pipelines.tensors import in_flight
from pipelines.wire import Channel, GoneError, LateError

Files = Mapping[str, BinaryIO]

_SMALL = 1 << 20  # bytes: contents up to there are sent along with the request
_READ = 64 << 20  # bytes: more are not read at once
_START = 120.0  # seconds that a process may take to start
#: All that a decoder's process is told of our environment: no credentials.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONHOME")


class DecoderError(PerceiverError, RuntimeError):
    """No decoder can be started here: no item's fault."""


class Decoder:
    """Reads headers and windows of one item after the other."""

    def __init__(
        self, task: Task, config: PerceiverConfig, limits: Limits, module: str = "pipelines.decode_child"
    ) -> None:
        self.task, self.config, self.limits = task, config, limits
        self._module = module
        self._child: _Child | None = None

    @property
    def probes(self) -> bool:
        """Whether items' headers are read at all: of the task latents, the checkpoint says."""
        of_checkpoint = getattr(self.task, "probes_for", None)
        return self.task.probes if of_checkpoint is None else of_checkpoint(self.config)

    def probe(self, files: Files) -> tuple[int, str]:
        """How many windows an item has, and what `windows` should know of it.

        Raises LimitError, DecodeError and what reading the files raises; DecoderError where nothing can be decoded.
        """
        [(answer, _)] = self._answers(files, {"do": "probe"}, "reading its headers")
        return answer["windows"], answer["info"]

    def windows(self, files: Files, info: str | None, first: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The windows [first, stop) of an item, one batch each, under the task's input schema in flight."""
        schema = in_flight(self.task.input_schema(self.config))
        request = {"do": "windows", "info": info, "first": first, "stop": stop}
        which = f"windows {first} to {stop - 1}" if stop - first > 1 else f"window {first}"
        for answer, body in self._answers(files, request, f"decoding {which}"):
            if answer["is"] == "window":
                yield _checked(body, schema)

    def close(self) -> None:
        """Stop the process, whatever it is at; another is started if something else is decoded."""
        if self._child is not None:
            self._stop()
            self._child = None

    def _answers(
        self, files: Files, request: dict[str, Any], doing: str
    ) -> Iterator[tuple[dict[str, Any], bytearray]]:
        """Ask for something: the windows that come back, then what is said at the end."""
        sizes = {name: file.seek(0, io.SEEK_END) for name, file in files.items()}
        for name, size in sizes.items():
            self.limits.check("bytes", size, f"bytes of the {name}")
        small = {name: _read(files[name], 0, size) for name, size in sizes.items() if size <= _SMALL}
        about = [{"name": name, "size": size, "here": name in small} for name, size in sizes.items()]
        child = self._started()
        left, whole = self.limits.seconds, False
        lost: Exception | None = None  # the storage's, raised as it is when the process has let go
        try:
            child.channel.send(request | {"files": about}, *small.values(), seconds=left)
            while not whole:
                began = time.monotonic()
                answer, body = child.channel.receive(self.limits.memory, left)
                left -= time.monotonic() - began  # what the storage takes is not the decoder's
                whole = answer["is"] in ("done", "error")
                if left <= 0 and not whole:  # it never paused for so long, and goes on
                    raise LateError
                if answer["is"] == "read":
                    data, lost = _part(files, answer) if lost is None else (b"", lost)
                    child.channel.send({"failed": True} if lost else {}, data, seconds=left)
                elif lost:
                    continue
                elif answer["is"] == "error":
                    whole = not answer["starved"]  # one that was short of memory is not used again
                    raise _raised(answer, self.limits, doing)
                else:
                    yield answer, body
        except GoneError:
            raise child.crash(doing) from None
        except LateError:
            raise DecodeTimeout(
                f"{doing} took more than the {self.limits.seconds:,g} s that limits.seconds allows, and was "
                "stopped. Raise limits.seconds if the item is to be trusted, or leave it out of the input.",
                digest_of_places(["DecodeTimeout", doing.split(maxsplit=1)[0]]),
            ) from None
        finally:
            if not whole:
                self.close()
        if lost:
            raise lost

    def _started(self) -> "_Child":
        """The process, new if there is none, or if the last one died with nothing to do."""
        if self._child is None or not self._child.lives():
            self.close()
            self._child = _Child(self._module)
            self._stop = weakref.finalize(self, self._child.stop)
            self._child.greet(
                {
                    "task": self.task.name,
                    "options": TypeAdapter(type(self.task)).dump_python(self.task, mode="json"),
                    "config": self.config.to_dict(),
                    "limits": dataclasses.asdict(self.limits),
                }
            )
        return self._child


class _Child:
    """A decoder's process, the channel to it, and what it says on stderr."""

    def __init__(self, module: str) -> None:
        ours, theirs = socket.socketpair()
        ends, lifeline = os.pipe()
        self._lifeline: int | None = lifeline
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        environment["OMP_NUM_THREADS"] = environment["OPENBLAS_NUM_THREADS"] = "1"
        environment["MALLOC_ARENA_MAX"] = "1"  # a second one reserves 64 MB of addresses
        # A bounded pool: by default Arrow reserves a gigabyte of addresses, which are limited.
        environment["ARROW_DEFAULT_MEMORY_POOL"] = "system"
        self.channel = Channel(ours)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(ends)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env=environment,
                pass_fds=(theirs.fileno(), ends),
                start_new_session=True,  # Ctrl-C is for its parent
            )
        os.close(ends)

    def greet(self, hello: Mapping[str, Any]) -> None:
        """Tell it what it is for, and wait until it is ready."""
        try:
            self.channel.send(hello, seconds=_START)
            self.channel.receive(0, _START)
        except (GoneError, LateError) as error:
            said = self._tail() or "nothing"
            self.stop()
            raise DecoderError(
                f"The decoder's process did not start ({type(error).__name__}): expected it to be ready within "
                f"{_START:g} s. It said: {said}"
            ) from error

    def lives(self) -> bool:
        return self._process.poll() is None

    def crash(self, doing: str) -> DecodeCrash:
        """What the process died of."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        if code is None:
            how = "closed its channel"
        elif code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
        else:
            how = f"exited with code {code}"
        if code == -signal.SIGKILL:
            how += ", as the kernel does where memory is short"
        said = self._tail()
        places = [line.strip() for line in said.splitlines() if line.lstrip().startswith("File ")]
        where = f", at {places[0].removeprefix('File ')}" if places else ""
        crash = DecodeCrash(
            f"the decoder's process {how} while {doing}{where}. Check that the item plays, encode it again, or "
            "leave it out of the input.",
            digest_of_places(["DecodeCrash", how, *places]),
        )
        crash.killed = code == -signal.SIGKILL
        return crash

    def stop(self) -> None:
        """Kill it and forget it; once is enough."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            self._process.kill()
            self._process.wait()
            os.close(lifeline)
            self.channel.close()
            self._said.close()

    def _tail(self) -> str:
        """The end of what it said on stderr."""
        if self._said.closed:  # stopped while it was waited for
            return ""
        size = self._said.seek(0, io.SEEK_END)
        self._said.seek(max(0, size - 4000))
        return self._said.read().decode(errors="replace").strip()


def _checked(body: bytearray, schema: pa.Schema) -> pa.RecordBatch:
    """A window, from where strangers' bytes were."""
    try:
        batch = pa.ipc.read_record_batch(pa.py_buffer(body), schema)
        batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:  # Arrow's, of a buffer that is shorter than it says
        raise DecodeCrash(
            f"the decoder's process sent a window that is none ({error}). Leave the item out of the input, and "
            "report it: it may have been made for that.",
            digest_of_places(["DecodeCrash", "window"]),
        ) from error
    return batch


def _part(files: Files, answer: Mapping[str, Any]) -> tuple[bytes, Exception | None]:
    """What the process asks for, or why it could not be read."""
    try:
        return _read(files[answer["name"]], answer["offset"], min(answer["length"], _READ)), None
    except Exception as error:
        return b"", error


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _raised(answer: Mapping[str, Any], limits: Limits, doing: str) -> DecodeError:
    """What the process raised, as it is raised here."""
    if not answer["starved"]:
        return DecodeError(answer["message"], answer["digest"], answer["kind"])
    return DecodeMemory(
        f"{doing} needs more than the {limits.memory:,} bytes that limits.memory allows. Raise limits.memory if the "
        "item is to be trusted, or leave it out of the input.",
        answer["digest"],
    )
