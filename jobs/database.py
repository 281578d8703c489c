"""SQLite in the user's state folder: any number of processes, each change whole and on the disk, or not there."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from perceiver_core.errors import PerceiverError

_WAIT_S = 10.0  # for another process that writes


class StoreError(PerceiverError, OSError):
    """A store in the user's state folder can't be read or written."""


@contextmanager
def changing(
    path: Path, version: int, schema: Sequence[str], name: str, remedy: str
) -> Iterator[sqlite3.Connection]:
    """A database for one change, made if there is none; `name` and `remedy` are for its errors. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            _prepare(db, path, version, schema, name)
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(
            f"The {name} {path} can't be used: {error}. Set PERCEIVER_STATE to another folder, or move it away: "
            f"{remedy}."
        ) from error


def _prepare(db: sqlite3.Connection, path: Path, version: int, schema: Sequence[str], name: str) -> None:
    [found] = db.execute("PRAGMA user_version").fetchone()
    if found == 0:
        for statement in schema:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {version}")
    elif found != version:
        raise StoreError(
            f"The {name} {path} is of version {found}, of another perceiver-batch; this one knows {version}. Use that "
            "one, or set PERCEIVER_STATE to another folder."
        )
