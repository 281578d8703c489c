"""One look at the schedules: what is due is submitted, each fire once, whoever looks, and however often.

It may be called twice, late, by several processes at once, and be killed anywhere. A fire is a row; whoever is first
takes it in hand; if that one dies, the next one that looks takes it over and submits the same run again, which is there
once.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from jobs.errors import exit_code
from jobs.exit_codes import BAD_SPEC
from jobs.lease import Holder
from jobs.scheduling.due import too_late
from jobs.scheduling.records import Alert, Schedule, Terms, Tick, instant, iso
from jobs.scheduling.spec import ScheduleSpec
from jobs.scheduling.states import TickState
from jobs.scheduling.steps import passing
from jobs.scheduling.store import ScheduleStore
from pipelines.secrets import redacted

_TRIES = 5  # to submit a fire to a target that doesn't answer
_AGAIN = timedelta(minutes=1)  # then; twice as long each time
_CLAIM = timedelta(minutes=15)  # of a process that can't be looked at: then it is taken for dead


@dataclass(frozen=True)
class Outcome:
    """How a run came to rest."""

    state: Literal["done", "failed", "stopped"]
    exit_code: int | None
    reason: str = ""


class Runs(Protocol):
    """What a schedule does with runs."""

    def submit(self, terms: Terms, tick: Tick) -> tuple[str, str]:
        """Hand a fire's run to its target, once however often it is called; its id and output."""

    def look(self, tick: Tick) -> Outcome | None:
        """How a fire's run ended; None while it goes on. Raises PerceiverError where nobody knows."""

    def stop(self, tick: Tick) -> None:
        """Ask a fire's run to stop."""


@dataclass
class Look:
    """What one look came to."""

    ticks: list[Tick] = field(default_factory=list)  #: each change that it made
    alerts: list[Alert] = field(default_factory=list)  #: of fires that were not as they should be
    troubles: list[str] = field(default_factory=list)  #: what it could not do, and will try again


def tick(
    store: ScheduleStore, runs: Runs, now: datetime, say: Callable[[str], None] = lambda _: None
) -> Look:
    """Look after all schedules. What is wrong with one of them hides no other."""
    look = Look()
    for schedule in store.all(removed=True):
        try:
            _Looking(store, runs, now, say, schedule, look).look_after()
        except Exception as error:
            trouble = redacted(f"{schedule.name}: {error or type(error).__name__}")
            say(trouble)
            look.troubles.append(trouble)
    touched = {(one.schedule, one.tick) for one in look.ticks}
    for name in sorted({name for name, _ in touched}):
        look.alerts += [
            alert
            for alert in store.alerts(name)
            if alert.time == iso(now) and (alert.schedule, alert.tick) in touched
        ]
    return look


def fire(
    store: ScheduleStore, runs: Runs, name: str, now: datetime, say: Callable[[str], None] = lambda _: None
) -> Tick:
    """Fire a schedule now, by its rule about overlaps, also while it is paused; the fire as it then is."""
    return _Looking(store, runs, now, say, store.get(name), Look()).fire()


@dataclass(frozen=True)
class _Looking:
    """One look at one schedule."""

    store: ScheduleStore
    runs: Runs
    now: datetime
    say: Callable[[str], None]
    schedule: Schedule
    look: Look

    def look_after(self) -> None:
        name, spec = self.schedule.name, self.schedule.spec
        for one in _oldest_first(self.store.ticks(name, ("submitted", "stopping"))):
            self._settle(one)
        passing("looked")
        self.look.ticks += self.store.find(name, self.now)
        passing("found")
        for one in _oldest_first(self.store.ticks(name, ("claimed",))):
            if _dead(one, self.now):
                taken = self.store.take_over(one, _me(), self.now)
                if taken:
                    self._submit(taken)
        if not self.schedule.paused:
            for one in self._in_turn(spec):
                self._begin(one, spec)
            for one in self._ready()[: -spec.max_catch_up]:
                self._move(one, "skipped", reason=f"{spec.max_catch_up} later ones wait: max_catch_up.")

    def fire(self) -> Tick:
        """Fire now, whatever the clock says."""
        for one in _oldest_first(self.store.ticks(self.schedule.name, ("submitted", "stopping"))):
            self._settle(one)
        added = self.store.add(self.schedule.name, self.now)
        if added.state == "waiting":
            self._begin(added, self.schedule.spec)
        [after] = (one for one in self.store.ticks(self.schedule.name) if one.tick == added.tick)
        return after

    def _settle(self, one: Tick) -> None:
        """See what became of a fire's run."""
        try:
            outcome = self.runs.look(one)
        except Exception as error:
            trouble = redacted(f"{one.schedule}: what became of run {one.run_id} is not known: {error}")
            self.say(trouble)
            self.look.troubles.append(trouble)
            return
        if outcome is None:
            return
        replaced = one.state == "stopping" and outcome.state == "stopped"
        self._move(
            one,
            outcome.state,
            "failed" if outcome.state == "failed" else None,
            reason=one.reason if replaced else outcome.reason,
            exit_code=outcome.exit_code,
        )

    def _ready(self) -> list[Tick]:
        """Those of the waiting whose time has come."""
        waiting = _oldest_first(self.store.ticks(self.schedule.name, ("waiting",)))
        return [one for one in waiting if instant(one.not_before) <= self.now]

    def _in_turn(self, spec: ScheduleSpec) -> list[Tick]:
        """Those that may begin, less those that are too late."""
        for one in self.store.ticks(self.schedule.name, ("waiting",)):
            over = too_late(spec, instant(one.due), self.now)
            if over:
                self._move(one, "missed", "missed", reason=f"{over} {one.reason}".rstrip())
        ready = self._ready()
        if spec.overlap != "replace":
            return ready
        for one in ready[:-1]:
            self._move(one, "skipped", reason="A later fire took its place: overlap is replace.")
        return ready[-1:]

    def _begin(self, one: Tick, spec: ScheduleSpec) -> None:
        """Submit a fire, if it is its turn."""
        got = self.store.claim(one, _me(), self.now, alone=spec.overlap != "allow")
        if got is None:
            return
        if got.tick == one.tick:
            self.look.ticks.append(got)
            self._submit(got)
        elif spec.overlap == "forbid" and not one.made_up:
            run = f", run {got.run_id}," if got.run_id else ""
            self._move(one, "skipped", reason=f"The fire of {got.tick}{run} goes on: overlap is forbid.")
        elif spec.overlap == "replace" and got.state == "submitted":
            self.runs.stop(got)
            self._move(got, "stopping", reason=f"The fire of {one.tick} takes its place: overlap is replace.")

    def _submit(self, one: Tick) -> None:
        """Hand a fire that is in hand to its target."""
        passing("claimed")
        try:
            run_id, output = self.runs.submit(self.store.terms(one.schedule, one.version), one)
        except Exception as error:
            self._not_submitted(one, error)
            return
        passing("sent")
        self._move(one, "submitted", run_id=run_id, output=output)
        passing("recorded")

    def _not_submitted(self, one: Tick, error: Exception) -> None:
        reason = redacted(str(error) or type(error).__name__)
        if exit_code(error) == BAD_SPEC or one.tries >= _TRIES:
            code = exit_code(error)
            self._move(one, "failed", "failed", reason=reason, exit_code=code)
            return
        again = self.now + _AGAIN * 2 ** (one.tries - 1)
        self._move(one, "waiting", reason=reason, not_before=iso(again))
        self.say(f"{one.schedule}: the fire of {one.tick} is tried again after {iso(again)}: {reason}")

    def _move(
        self, one: Tick, state: TickState, alarm: Literal["failed", "missed"] | None = None, **changes: Any
    ) -> None:
        after = self.store.move(one, state, self.now, alarm, **changes)
        if after:  # else somebody else was faster, and it is as that one says
            self.look.ticks.append(after)


def _oldest_first(ticks: Iterable[Tick]) -> list[Tick]:
    return sorted(ticks, key=lambda one: one.tick)


def _me() -> str:
    return json.dumps(asdict(Holder.me()))


def _dead(one: Tick, now: datetime) -> bool:
    """Whether nobody has a claimed fire in hand any more."""
    holder = Holder(**json.loads(one.claimer))
    if holder.lives_here():
        return False
    return holder.known_dead() or now - instant(one.changed) > _CLAIM
