"""The run store: which runs there are, where they were sent, and their last known state. SQLite, in the user's folder.

It is an index: the truth of a run is in its output's runs/ folder, from which a lost store is made anew.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.database import StoreError, changing
from jobs.states import State, check
from perceiver_core.errors import PerceiverError

__all__ = ["Run", "RunStore", "StoreError", "UnknownRunError", "state_folder", "user_store"]

VERSION = 1
_FILE = "runs.db"


class UnknownRunError(PerceiverError, LookupError):
    """No run of that name is in the store."""


@dataclass(frozen=True)
class Run:
    """A run, as the store knows it."""

    run_id: str
    name: str  #: the job's
    task: str
    output: str
    state: State
    attempt: int = 0  #: the last one; 0 before the first has begun
    target: str = (
        ""  #: as jobs.finding.target_named has it; nothing where `perceive run` did it in its own process
    )
    submission: str = ""  #: the last one's id at the target
    created: str = ""  #: in UTC
    updated: str = ""  #: in UTC
    exit_code: int | None = None
    message: str = ""  #: why it is not what was hoped for


_COLUMNS = tuple(field.name for field in fields(Run))
_SCHEMA = (
    "CREATE TABLE runs (run_id TEXT PRIMARY KEY, name TEXT NOT NULL, task TEXT NOT NULL, output TEXT NOT NULL, "
    "state TEXT NOT NULL, attempt INTEGER NOT NULL, target TEXT NOT NULL, submission TEXT NOT NULL, "
    "created TEXT NOT NULL, updated TEXT NOT NULL, exit_code INTEGER, message TEXT NOT NULL)",
    "CREATE INDEX runs_by_output ON runs (output)",
)


def state_folder() -> Path:
    """Where the store and local submissions are: PERCEIVER_STATE, else where the system keeps a user's state."""
    told = os.environ.get("PERCEIVER_STATE")
    if told:
        return Path(told).expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "perceiver-batch"


@dataclass(frozen=True)
class RunStore:
    """The runs of one user on one machine; any number of processes may write to it."""

    folder: Path

    def add(self, run: Run) -> Run:
        """Add a run, or say anew what is known of one but its state; the run as it is now there."""
        now = _now()
        with self._open() as db:
            db.execute(
                f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
                "ON CONFLICT (run_id) DO UPDATE SET name = excluded.name, output = excluded.output, "
                "updated = excluded.updated",
                tuple(asdict(replace(run, created=run.created or now, updated=now)).values()),
            )
            return _one(db, run.run_id)

    def move(self, seen: Run, state: State, **changes: Any) -> Run | None:
        """Bring a run into a state, with what else has changed of it; None if it isn't any more as it was seen.

        Raises StateError if the state can't follow the one that the run was seen in.
        """
        after = replace(seen, state=state, **changes)
        if after == seen:
            return seen
        if state != seen.state:
            check(seen.run_id, seen.state, state)
        after = replace(after, updated=_now())
        with self._open() as db:
            done = db.execute(
                f"UPDATE runs SET {', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE run_id = ? AND updated = ?",
                (*asdict(after).values(), seen.run_id, seen.updated),
            )
            return after if done.rowcount else None

    def change(self, run_id: str, state: State, **changes: Any) -> Run:
        """`move` by whoever knows what became of a run, whatever others have seen of it meanwhile."""
        while True:
            with self._open() as db:
                seen = _one(db, run_id)
            after = self.move(seen, state, **changes)
            if after:
                return after

    def get(self, run_id: str) -> Run | None:
        with self._open() as db:
            found = _rows(db, "WHERE run_id = ?", run_id)
            return found[0] if found else None

    def find(self, start: str) -> Run:
        """The run whose id, or only run whose job's name, begins so. Raises UnknownRunError."""
        with self._open() as db:
            found = _rows(db, "WHERE substr(run_id, 1, ?) = ? ORDER BY updated DESC", len(start), start)
            found = found or _rows(db, "WHERE name = ? ORDER BY updated DESC", start)
        if len(found) == 1:
            return found[0]
        if not found:
            raise UnknownRunError(
                f"There is no run {start} here. perceive list shows those that are known; of others give the output's "
                "folder or URI instead, or bring them here with perceive list --from OUTPUT."
            )
        names = ", ".join(f"{run.run_id} ({run.output})" for run in found[:5])
        raise UnknownRunError(f"{start} may be {len(found)} runs: {names}. Give more of the id.")

    def list(self, states: Sequence[State] = (), limit: int = -1) -> list[Run]:
        """The runs in these states, or all, those first that were last heard of."""
        where = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        with self._open() as db:
            return _rows(db, f"{where} ORDER BY updated DESC, run_id LIMIT ?", *states, limit)

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        remedy = "perceive list --from OUTPUT makes it anew from what the outputs hold"
        return changing(self.folder / _FILE, VERSION, _SCHEMA, "run store", remedy)


def user_store() -> RunStore:
    """The store of whoever runs this."""
    return RunStore(state_folder())


def _one(db: sqlite3.Connection, run_id: str) -> Run:
    found = _rows(db, "WHERE run_id = ?", run_id)
    if not found:
        raise UnknownRunError(f"There is no run {run_id} in the store.")
    return found[0]


def _rows(db: sqlite3.Connection, rest: str, *values: Any) -> list[Run]:
    return [Run(*row) for row in db.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs {rest}", values)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
