"""events.jsonl: what happened to a run, written as it happens, readable after any kill.

A line is an event: `v`, the version of this schema; `time`, UTC; `run_id`; `attempt`; `event`, its kind; and the kind's
own fields, as KINDS says. Fields and kinds may be added within a version; readers leave out what they don't know. A
line that a kill cut short is followed by whole ones. In a bucket the lines are in objects below events.jsonl/.
"""

import json
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from pipelines.secrets import redacted
from pipelines.storage import OutputError, Place, Storage

VERSION = 1
#: Every kind's meaning and its own fields, which the README repeats.
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "attempt_started": (
        "an attempt holds the lease; `done` of its `shards` were committed before; `environment`: versions, cores, "
        "memory in bytes and GPUs of its driver's machine",
        ("host", "pid", "code", "device", "environment", "shards", "done", "windows", "items"),
    ),
    "input_compared": (
        "of input.select: new: files that were `added` to the input, have `changed`, or have `stale` rows, and items "
        "`retried`; files of the table that are `deleted` from the input, the first of them by name, and whether their "
        "rows are kept",
        ("added", "changed", "stale", "retried", "deleted", "deleted_kept", "deleted_uris"),
    ),
    "shard_committed": (
        "a part is there; `notes`: its seconds by stage, bytes decoded and of its rows, the most memory that its "
        "workers and their GPUs have had, how often batch and chunk were `halved`, and its `errors` by class",
        ("shard", "rows", "quarantined", "notes"),
    ),
    "progress": (
        "where the attempt is, every ten seconds (of a long one, every minute) and at its end: `windows` of the run's "
        "`total` that the model has done; of `stages`, each one's `workers`, and `windows` and `busy_s` so far; how "
        "many `cores` its machine has, `cores_busy`, their share that was busy since the last, and `memory`, the bytes "
        "in use there",
        ("windows", "total", "stages", "cores", "cores_busy", "memory"),
    ),
    "retrying": (
        "storage failed in passing, and is asked again in `wait_s`",
        ("stage", "uri", "error", "message", "wait_s"),
    ),
    "oom_halved": (
        "a device had no memory left: one shard's batch and chunk are halved",
        ("shard", "batch", "chunk"),
    ),
    "worker_replaced": (
        "a worker was sick, and its shard is done again by another",
        ("stage", "shard", "why"),
    ),
    "nodes_changed": (
        "a cluster has so many `nodes` now, and each stage so many `workers`",
        ("nodes", "workers"),
    ),
    "stalled": ("nothing moved for too long: the state, before the attempt fails", ("state",)),
    "lease_taken_over": ("the holder before this one was dead", ("run_id_before", "host", "pid")),
    "budget_exceeded": ("more items failed than the job allows", ("items", "quarantined", "message")),
    "told_less": ("workers had more to tell than is kept", ("left_out",)),
    "manifest_published": (
        "the table is there",
        ("number", "items", "rows", "quarantined", "items_quarantined"),
    ),
    "attempt_done": ("the attempt ended, and the run with it", ("seconds",)),
    "attempt_failed": ("it ended with an error; the same job resumes it", ("error", "message", "traceback")),
    "attempt_interrupted": ("somebody stopped it; the same job resumes it", ()),
}
_EVERY_S = 5.0  # in a bucket, where every write is an object: what is not urgent waits
_URGENT = {*KINDS} - {"shard_committed", "progress", "retrying"}


class Listener(Protocol):
    """Who hears what an attempt has to say, as it is said."""

    def hear(self, line: str) -> None: ...

    def tick(self) -> None: ...

    def write(self) -> None: ...


class Events:
    """What an attempt has to say."""

    def __init__(self, storage: Storage, run_id: str, attempt: int, *listeners: Listener) -> None:
        self._storage, self._run_id, self._attempt = storage, run_id, attempt
        self._listeners = listeners
        self._waiting: list[str] = []
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def note(self, kind: str, at: str | None = None, **fields: Any) -> None:
        """One event; ValueError if its kind has other fields."""
        expected = KINDS[kind][1]
        if fields.keys() != {*expected}:
            raise ValueError(
                f"An event {kind} has the fields {', '.join(expected)}; got {', '.join(fields)}."
            )
        head = {"v": VERSION, "time": at or datetime.now(UTC).isoformat(), "run_id": self._run_id}
        line = redacted(json.dumps(head | {"attempt": self._attempt, "event": kind} | fields, default=str))
        with self._lock:
            self._waiting.append(line)
            for listener in self._listeners:
                listener.hear(line)
        if kind in _URGENT or "://" not in self._storage.uri:
            self.flush()
        else:
            self.tick()

    def tick(self) -> None:
        """Write what has waited for long; called now and then."""
        if time.monotonic() - self._written > _EVERY_S:
            self.flush()

    def look(self) -> None:
        """Let what waits be written, and what is made of it; called now and then, beside the work."""
        self.tick()
        for listener in self._listeners:
            listener.tick()

    def end(self) -> None:
        """Have what is made of them written for the last time."""
        for listener in self._listeners:
            listener.write()

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._storage.append(_name(self._run_id), "".join(f"{line}\n" for line in waiting).encode())
            self._written = time.monotonic()


@contextmanager
def recorded(events: Events) -> Iterator[None]:
    """Note how the attempt ends; a start without an end was killed."""
    began = time.monotonic()
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        fields = {} if interrupted else _told(error)
        try:
            events.note("attempt_interrupted" if interrupted else "attempt_failed", **fields)
        except OutputError as lost:  # what failed may be the storage itself
            error.add_note(f"It could not be noted in events.jsonl: {lost}")
        events.end()
        raise
    events.note("attempt_done", seconds=round(time.monotonic() - began, 1))
    events.end()


def read(storage: Storage, run_id: str) -> Iterator[dict[str, Any]]:
    """The run's events, in order; a line that a kill cut short is left out."""
    return Reader(storage, run_id).new()


class Reader:
    """A run's events as they come: it remembers how far it has read, so that each look costs what is new."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self._storage, self._name = storage, _name(run_id)
        self._place: Place = None
        self._rest = b""  # a line's beginning, whose end may still come

    def new(self) -> Iterator[dict[str, Any]]:
        """The events since the last call, in order; a line that a kill cut short is left out."""
        data, self._place = self._storage.added(self._name, self._place)
        lines = (self._rest + data).split(b"\n")
        self._rest = b"" if _event(lines[-1]) else lines[-1]
        yield from filter(None, map(_event, lines))


def _event(line: bytes) -> dict[str, Any] | None:
    """A line's event; None of one that is not whole."""
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return event


def _told(error: BaseException) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _name(run_id: str) -> str:
    return f"runs/{run_id}/events.jsonl"
