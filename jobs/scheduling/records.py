"""What is known of schedules and their ticks, as rows of the schedule store."""

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from jobs.scheduling.due import Alarm
from jobs.scheduling.spec import ScheduleSpec
from jobs.scheduling.states import TickState

VERSION = 1
SCHEMA = (
    "CREATE TABLE schedules (name TEXT PRIMARY KEY, version INTEGER NOT NULL, paused INTEGER NOT NULL, "
    "removed INTEGER NOT NULL, since TEXT NOT NULL)",
    "CREATE TABLE versions (schedule TEXT NOT NULL, version INTEGER NOT NULL, applied TEXT NOT NULL, job TEXT NOT "
    "NULL, target TEXT NOT NULL, variables TEXT NOT NULL, installed INTEGER NOT NULL, UNIQUE (schedule, version))",
    "CREATE TABLE ticks (schedule TEXT NOT NULL, tick TEXT NOT NULL, state TEXT NOT NULL, due TEXT NOT NULL, "
    "not_before TEXT NOT NULL, made_up INTEGER NOT NULL, version INTEGER NOT NULL, tries INTEGER NOT NULL, "
    "claimer TEXT NOT NULL, run_id TEXT NOT NULL, output TEXT NOT NULL, exit_code INTEGER, reason TEXT NOT "
    "NULL, changed TEXT NOT NULL, revision INTEGER NOT NULL, UNIQUE (schedule, tick))",
    "CREATE TABLE alerts (schedule TEXT NOT NULL, tick TEXT NOT NULL, kind TEXT NOT NULL, time TEXT NOT NULL, "
    "reason TEXT NOT NULL, run_id TEXT NOT NULL, exit_code INTEGER, webhook TEXT NOT NULL, changed TEXT NOT NULL, "
    "UNIQUE (schedule, tick, kind))",
    "CREATE TABLE events (id INTEGER PRIMARY KEY, time TEXT NOT NULL, schedule TEXT NOT NULL, tick TEXT NOT NULL, "
    "event TEXT NOT NULL, fields TEXT NOT NULL)",
    "CREATE INDEX events_by_schedule ON events (schedule, tick)",
)


@dataclass(frozen=True)
class Terms:
    """What a version of a schedule says."""

    job: Mapping[str, Any]  #: the job, as a document that was checked
    target: str = "local"  #: as runs have it
    variables: tuple[str, ...] = ()  #: names of the environment's variables that go along
    installed: bool = False  #: the target's own perceiver-batch is used

    @property
    def spec(self) -> ScheduleSpec:
        return ScheduleSpec.of(dict(self.job))


@dataclass(frozen=True)
class Schedule:
    """A job that is run at its times."""

    name: str  #: the job's
    version: int  #: how often it was applied with something new
    paused: bool
    removed: bool
    since: str  #: fires until then were found; in UTC
    terms: Terms

    @property
    def spec(self) -> ScheduleSpec:
        return self.terms.spec


@dataclass(frozen=True)
class Tick:
    """One fire of a schedule."""

    schedule: str
    tick: str  #: its time, in UTC: the name of the fire
    state: TickState
    due: str  #: its time with its jitter
    not_before: str  #: of a waiting one: when it is tried next
    made_up: bool = False  #: it was late, or came in a pause
    version: int = 0  #: of the schedule, that it ran; 0 before it was claimed
    tries: int = 0
    claimer: str = ""  #: the process that submits it, as JSON
    run_id: str = ""
    output: str = ""
    exit_code: int | None = None  #: of its run, once that is at rest
    reason: str = ""  #: why it is not what was hoped for
    changed: str = ""  #: in UTC
    revision: int = 0  #: counts its changes: who changes it says which it has seen


@dataclass(frozen=True)
class Alert:
    """A fire that was not as it should be, once for each kind."""

    schedule: str
    tick: str
    kind: Alarm
    time: str  #: in UTC
    reason: str
    run_id: str
    exit_code: int | None
    webhook: str  #: to be sent, being sent, sent, or why it could not be; empty without one
    changed: str


def plain(tick: Tick) -> dict[str, Any]:
    """A tick as JSON has it, less what only those who change it need."""
    return {name: value for name, value in asdict(tick).items() if name not in ("claimer", "revision")}


def iso(time: datetime) -> str:
    """An instant as it is stored: texts that sort as the instants do."""
    return time.astimezone(UTC).isoformat(timespec="seconds")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def columns(kind: type) -> str:
    return ", ".join(field.name for field in fields(kind))


def ticks_of(db: sqlite3.Connection, rest: str, *values: Any) -> list[Tick]:
    found = (Tick(*row) for row in db.execute(f"SELECT {columns(Tick)} FROM ticks {rest}", values))
    return [replace(tick, made_up=bool(tick.made_up)) for tick in found]


def alerts_of(db: sqlite3.Connection, rest: str, *values: Any) -> list[Alert]:
    return [Alert(*row) for row in db.execute(f"SELECT {columns(Alert)} FROM alerts {rest}", values)]
