"""A log in a bucket: every addition to it is a file of its own, a piece, whose name begins with its time."""

import os
import time
import uuid
from collections.abc import Collection
from threading import Lock

#: How much later than another of its time a piece may come. Its writer tries for minutes; and clocks differ, but stores
#: refuse who is more than 15 minutes off.
_LATE_NS = 3600 * 10**9


def next_piece(log: str) -> str:
    """The name of a log's next piece, nobody else's."""
    return f"{log}/{_next_time():020d}-{os.getpid():010d}-{uuid.uuid4().hex}"


def long_before(pieces: Collection[str]) -> str:
    """The name after which a log's pieces are that may be new to whoever has read these; empty: all may."""
    if not pieces:
        return ""
    log, _, last = max(pieces).rpartition("/")
    return f"{log}/{max(0, int(last.partition('-')[0]) - _LATE_NS):020d}"


_clock = Lock()
_last_time = 0


def _next_time() -> int:
    """The time in nanoseconds, which in a process doesn't repeat or go back: its lines stay in order."""
    global _last_time  # noqa: PLW0603
    with _clock:
        _last_time = max(time.time_ns(), _last_time + 1)
        return _last_time
