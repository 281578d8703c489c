"""The schedule store: which schedules there are, and what became of each of their ticks. SQLite, beside the run store.

A tick is one row, whoever finds it, however often. Each change of one is made by who has seen it as it is, goes by the
table of jobs/scheduling/states.py, and leaves an event, and an alert where there is cause for one, in the same
transaction.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.database import changing
from jobs.scheduling.cron import newest
from jobs.scheduling.due import Alarm, found
from jobs.scheduling.records import (
    SCHEMA,
    VERSION,
    Alert,
    Schedule,
    Terms,
    Tick,
    alerts_of,
    columns,
    instant,
    iso,
    ticks_of,
)
from jobs.scheduling.states import GOING, TickState, check_tick
from jobs.store import state_folder
from perceiver_core.errors import PerceiverError

_FILE = "schedules.db"
_MOST = 1000  # ticks that are recorded of those that nobody looked at
_SENDING = timedelta(minutes=5)  # then whoever was sending an alert is taken for dead
SENT, TO_SEND, IN_HAND = "sent", "to be sent", "being sent"


class UnknownScheduleError(PerceiverError, LookupError):
    """There is no schedule of that name."""


@dataclass(frozen=True)
class ScheduleStore:
    """The schedules of one user on one machine; any number of processes may look after them."""

    folder: Path

    def apply(self, name: str, terms: Terms, now: datetime) -> tuple[Schedule, bool]:
        """Have a schedule by these terms from now on; whether they are new ones. Ticks keep what they ran."""
        with self._open() as db:
            known = _schedule(db, name)
            if known and not known.removed:
                if not known.paused:
                    _find(db, known, now)
                if known.terms == terms:
                    return known, False
            version = known.version + 1 if known else 1
            paused = known is not None and known.paused and not known.removed
            since = known.since if known and paused else iso(now)  # a pause ends as it is resumed
            db.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    name, version, iso(now), json.dumps(dict(terms.job)), terms.target,
                    json.dumps(terms.variables), terms.installed,
                ),
            )  # fmt: skip
            db.execute(
                "INSERT INTO schedules VALUES (?, ?, ?, 0, ?) ON CONFLICT (name) DO UPDATE SET version = "
                "excluded.version, paused = excluded.paused, removed = 0, since = excluded.since",
                (name, version, paused, since),
            )
            _note(db, now, name, "", "applied", version=version)
            return _known(db, name), True

    def all(self, removed: bool = False) -> list[Schedule]:
        """The schedules, by name; those that were removed, too, if they are asked for."""
        with self._open() as db:
            every = [
                _known(db, name)
                for [name] in db.execute("SELECT name FROM schedules ORDER BY name").fetchall()
            ]
        return [one for one in every if removed or not one.removed]

    def get(self, name: str) -> Schedule:
        """A schedule, also one that was removed. Raises UnknownScheduleError."""
        with self._open() as db:
            return _known(db, name)

    def terms(self, name: str, version: int) -> Terms:
        """What a version of a schedule said."""
        with self._open() as db:
            return _terms(db, name, version)

    def pause(self, name: str, now: datetime) -> Schedule:
        """Fire no more, until it is resumed; what was due before is found first."""
        with self._open() as db:
            seen = _there(db, name)
            if not seen.paused:
                _find(db, seen, now)
                db.execute("UPDATE schedules SET paused = 1, since = ? WHERE name = ?", (iso(now), name))
                _note(db, now, name, "", "paused")
            return _known(db, name)

    def resume(self, name: str, now: datetime) -> Schedule:
        """Fire again; of what came in the pause, what `catch_up` says."""
        with self._open() as db:
            seen = _there(db, name)
            if seen.paused:
                _find(db, seen, now, paused=True)
                db.execute("UPDATE schedules SET paused = 0, since = ? WHERE name = ?", (iso(now), name))
                _note(db, now, name, "", "resumed")
            return _known(db, name)

    def remove(self, name: str, now: datetime) -> Schedule:
        """Fire never again; what runs goes on, and the history stays."""
        with self._open() as db:
            _there(db, name)
            db.execute("UPDATE schedules SET removed = 1 WHERE name = ?", (name,))
            for tick in ticks_of(db, "WHERE schedule = ? AND state = 'waiting'", name):
                _change(db, tick, "skipped", now, reason="The schedule was removed.")
            _note(db, now, name, "", "removed")
            return _known(db, name)

    def find(self, name: str, now: datetime) -> list[Tick]:
        """The ticks of a schedule until now that were not known before, all of them recorded."""
        with self._open() as db:
            schedule = _known(db, name)
            return [] if schedule.paused or schedule.removed else _find(db, schedule, now)

    def add(self, name: str, now: datetime) -> Tick:
        """A fire that somebody asks for, of this second; the one that there is already, if there is one."""
        with self._open() as db:
            _there(db, name)
            tick = Tick(name, iso(now), "waiting", iso(now), iso(now), reason="Somebody asked for it.")
            _insert(db, tick, now)
            return _tick(db, tick)

    def ticks(self, name: str = "", states: Sequence[TickState] = (), limit: int = -1) -> list[Tick]:
        """The ticks of a schedule, or all, in these states, or all, the latest first."""
        where = ["1", *(["schedule = ?"] if name else [])]
        where += [f"state IN ({', '.join('?' * len(states))})"] if states else []
        with self._open() as db:
            order = "ORDER BY tick DESC, schedule LIMIT ?"
            return ticks_of(db, f"WHERE {' AND '.join(where)} {order}", *filter(None, [name]), *states, limit)

    def claim(self, seen: Tick, claimer: str, now: datetime, alone: bool) -> Tick | None:
        """Take a waiting tick in hand; None if it isn't any more as it was seen.

        Where it must be `alone` and another tick of its schedule is going, that one.
        """
        with self._open() as db:
            if _tick(db, seen) != seen:
                return None
            if alone:
                others = ticks_of(
                    db,
                    f"WHERE schedule = ? AND state IN ({', '.join('?' * len(GOING))}) ORDER BY tick DESC LIMIT 1",
                    seen.schedule,
                    *GOING,
                )
                if others:
                    return others[0]
            version = seen.version or _known(db, seen.schedule).version
            return _change(db, seen, "claimed", now, claimer=claimer, version=version, tries=seen.tries + 1)

    def take_over(self, seen: Tick, claimer: str, now: datetime) -> Tick | None:
        """Take a claimed tick out of dead hands; None if it isn't any more as it was seen."""
        with self._open() as db:
            if _tick(db, seen) != seen:
                return None
            return _change(db, seen, "claimed", now, claimer=claimer, tries=seen.tries + 1)

    def move(
        self, seen: Tick, state: TickState, now: datetime, alarm: Alarm | None = None, **changes: Any
    ) -> Tick | None:
        """Bring a tick into a state, with what else has changed of it; None if it isn't any more as it was seen.

        Raises TickStateError if the state can't follow the one that the tick was seen in.
        """
        check_tick(seen.tick, seen.state, state)
        with self._open() as db:
            if _tick(db, seen) != seen:
                return None
            after = _change(db, seen, state, now, **changes)
            if alarm:
                _alert(db, after, alarm, now)
            return after

    def alerts(self, name: str) -> list[Alert]:
        """The alerts of a schedule, the latest first."""
        with self._open() as db:
            return alerts_of(db, "WHERE schedule = ? ORDER BY time DESC, tick DESC", name)

    def to_send(self, now: datetime) -> list[Alert]:
        """The alerts that the caller has to send, and that nobody else will."""
        with self._open() as db:
            found = alerts_of(
                db, "WHERE webhook = ? OR (webhook = ? AND changed < ?) ORDER BY time, tick",
                TO_SEND, IN_HAND, iso(now - _SENDING),
            )  # fmt: skip
            for alert in found:
                _sent(db, alert, IN_HAND, now)
            return found

    def sent(self, alert: Alert, how: str, now: datetime) -> None:
        """That an alert was sent, or why it could not be."""
        with self._open() as db:
            _sent(db, alert, how, now)
            said = {} if how == SENT else {"reason": how}
            event = "webhook_sent" if how == SENT else "webhook_failed"
            _note(db, now, alert.schedule, alert.tick, event, kind=alert.kind, **said)

    def events(self, name: str) -> list[dict[str, Any]]:
        """All that happened to a schedule and its ticks, in order."""
        with self._open() as db:
            rows = db.execute(
                "SELECT time, schedule, tick, event, fields FROM events WHERE schedule = ? ORDER BY id",
                (name,),
            ).fetchall()
        return [
            {"time": time, "schedule": schedule, "tick": tick, "event": event} | json.loads(fields)
            for time, schedule, tick, event, fields in rows
        ]

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return changing(
            self.folder / _FILE, VERSION, SCHEMA, "schedule store", "then apply the job files again"
        )


def user_schedules() -> ScheduleStore:
    """The schedule store of whoever runs this."""
    return ScheduleStore(state_folder())


def _schedule(db: sqlite3.Connection, name: str) -> Schedule | None:
    row = db.execute(
        "SELECT name, version, paused, removed, since FROM schedules WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        return None
    name, version, paused, removed, since = row
    return Schedule(name, version, bool(paused), bool(removed), since, _terms(db, name, version))


def _terms(db: sqlite3.Connection, name: str, version: int) -> Terms:
    job, target, variables, installed = db.execute(
        "SELECT job, target, variables, installed FROM versions WHERE schedule = ? AND version = ?",
        (name, version),
    ).fetchone()
    return Terms(json.loads(job), target, tuple(json.loads(variables)), bool(installed))


def _known(db: sqlite3.Connection, name: str) -> Schedule:
    schedule = _schedule(db, name)
    if schedule is None:
        names = ", ".join(name for [name] in db.execute("SELECT name FROM schedules ORDER BY name"))
        have = f"There are: {names}." if names else "There are none."
        raise UnknownScheduleError(
            f"There is no schedule {name} here. {have} One is made of a job file with a section schedule: perceive "
            "schedule apply FILE."
        )
    return schedule


def _there(db: sqlite3.Connection, name: str) -> Schedule:
    schedule = _known(db, name)
    if schedule.removed:
        raise UnknownScheduleError(
            f"The schedule {name} was removed: its history is there, but it fires no more. Apply its job file again: "
            "perceive schedule apply FILE."
        )
    return schedule


def _find(db: sqlite3.Connection, schedule: Schedule, now: datetime, paused: bool = False) -> list[Tick]:
    name, spec, after = schedule.name, schedule.spec, instant(schedule.since)
    if now <= after:  # the clock was put back: what was found stays
        return []
    times, more = newest(spec.cron, spec.zone, after, now, _MOST)
    if more:
        _note(db, now, name, "", "passed_over", since=schedule.since, before=iso(times[0]))
    new = []
    for one in found(name, spec, times, now, paused):
        due = iso(one.due)
        tick = Tick(name, iso(one.tick), one.state, due, due, one.made_up, reason=one.reason)
        if _insert(db, tick, now):
            new.append(_tick(db, tick))
            if one.alarm:
                _alert(db, new[-1], one.alarm, now)
    if times:
        db.execute("UPDATE schedules SET since = ? WHERE name = ?", (iso(now), name))
    return new


def _tick(db: sqlite3.Connection, seen: Tick) -> Tick:
    [now] = ticks_of(db, "WHERE schedule = ? AND tick = ?", seen.schedule, seen.tick)
    return now


def _insert(db: sqlite3.Connection, tick: Tick, now: datetime) -> bool:
    """Record a tick; False if it is there already: that is what makes each fire one."""
    row = asdict(replace(tick, changed=iso(now)))
    done = db.execute(
        f"INSERT INTO ticks ({columns(Tick)}) VALUES ({', '.join('?' * len(row))}) ON CONFLICT DO NOTHING",
        tuple(row.values()),
    )
    if done.rowcount:
        _note(db, now, tick.schedule, tick.tick, tick.state, **_told(tick))
    return bool(done.rowcount)


def _change(db: sqlite3.Connection, seen: Tick, state: TickState, now: datetime, **changes: Any) -> Tick:
    changes = {"reason": ""} | changes
    after = replace(seen, state=state, changed=iso(now), revision=seen.revision + 1, **changes)
    db.execute(
        f"UPDATE ticks SET {', '.join(f'{name} = ?' for name in asdict(after))} WHERE schedule = ? AND tick = ?",
        (*asdict(after).values(), seen.schedule, seen.tick),
    )
    _note(db, now, seen.schedule, seen.tick, state, **_told(after))
    return after


def _told(tick: Tick) -> dict[str, Any]:
    """What an event says of a tick, beside its state."""
    said = {name: getattr(tick, name) for name in ("reason", "run_id", "exit_code", "version", "tries")}
    return {name: value for name, value in said.items() if value not in ("", None, 0)}


def _alert(db: sqlite3.Connection, tick: Tick, kind: Alarm, now: datetime) -> None:
    webhook = TO_SEND if _known(db, tick.schedule).spec.webhook else ""
    alert = Alert(
        tick.schedule, tick.tick, kind, iso(now), tick.reason, tick.run_id, tick.exit_code, webhook, iso(now)
    )
    row = asdict(alert)
    db.execute(
        f"INSERT INTO alerts ({columns(Alert)}) VALUES ({', '.join('?' * len(row))}) ON CONFLICT DO NOTHING",
        tuple(row.values()),
    )
    _note(db, now, tick.schedule, tick.tick, "alert", kind=kind, **_told(tick))


def _sent(db: sqlite3.Connection, alert: Alert, how: str, now: datetime) -> None:
    db.execute(
        "UPDATE alerts SET webhook = ?, changed = ? WHERE schedule = ? AND tick = ? AND kind = ?",
        (how, iso(now), alert.schedule, alert.tick, alert.kind),
    )


def _note(db: sqlite3.Connection, now: datetime, schedule: str, tick: str, event: str, **fields: Any) -> None:
    db.execute(
        "INSERT INTO events (time, schedule, tick, event, fields) VALUES (?, ?, ?, ?, ?)",
        (iso(now), schedule, tick, event, json.dumps(fields)),
    )
