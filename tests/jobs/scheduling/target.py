"""A target for schedules' runs that is nothing but a table, a clock that is moved by hand, and schedulers that die."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs import lease
from jobs.scheduling import alerts, tick
from jobs.scheduling.records import Terms, Tick
from jobs.scheduling.spec import ScheduleSpec
from jobs.scheduling.steps import STEPS
from jobs.scheduling.store import ScheduleStore
from jobs.scheduling.tick import Outcome


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


HOUR = timedelta(hours=1)
NOON = at("2026-11-26T12:00:00")


def terms(cron: str = "0 * * * *", target: str = "local", **more: Any) -> Terms:
    """As a job's that has such a schedule."""
    spec = ScheduleSpec(cron=cron, **more)
    return Terms({"name": "nightly", "schedule": spec.model_dump(mode="json")}, target)


def states(store: ScheduleStore, name: str = "nightly") -> list[tuple[str, str]]:
    """The hour and the state of each tick, in order."""
    return [(one.tick[11:16], one.state) for one in reversed(store.ticks(name))]


def run_of(tick: Tick) -> str:
    return hashlib.sha256(f"{tick.schedule} {tick.tick}".encode()).hexdigest()[:12]


@dataclass
class Table:
    """Runs: each is there once, however often it is submitted, and ends when it is told to."""

    going: dict[str, str] = field(default_factory=dict)  #: the tick of each run that goes on
    ended: dict[str, Outcome] = field(default_factory=dict)
    submitted: dict[str, int] = field(default_factory=dict)  #: how often
    order: list[str] = field(default_factory=list)  #: ticks, as their runs began
    asked: set[str] = field(default_factory=set)  #: to stop
    versions: dict[str, str] = field(default_factory=dict)  #: the target of the terms, by tick
    fails: Exception | None = None
    most: int = 0  #: runs that went on at once

    def submit(self, terms: Terms, tick: Tick) -> tuple[str, str]:
        if self.fails:
            raise self.fails
        run_id = run_of(tick)
        self.submitted[run_id] = self.submitted.get(run_id, 0) + 1
        if run_id not in self.going and run_id not in self.ended:
            self.going[run_id] = tick.tick
            self.order.append(tick.tick)
            self.versions[tick.tick] = terms.target
            self.most = max(self.most, len(self.going))
        return run_id, "/out"

    def look(self, tick: Tick) -> Outcome | None:
        return self.ended.get(tick.run_id)

    def stop(self, tick: Tick) -> None:
        self.asked.add(tick.run_id)

    def end(self, run_id: str, outcome: Outcome | None = None) -> None:
        del self.going[run_id]
        self.ended[run_id] = outcome or Outcome("done", 0)

    def end_all(self) -> None:
        for run_id in [*self.going]:
            stopped = run_id in self.asked
            self.end(run_id, Outcome("stopped", 130, "Somebody stopped it.") if stopped else None)


class KilledError(BaseException):
    """What no `except Exception` stops."""


class Steps:
    """Kills at the n-th step that is passed."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.passed: list[str] = []

    def passing(self, step: str) -> None:
        assert step in STEPS
        self.passed.append(step)
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise KilledError(step)

    @contextmanager
    def armed(self, at: int | None) -> Iterator[None]:
        """Kill in the block; what is killed ends it."""
        self.left, self.passed = at, []
        try:
            yield
        except KilledError:
            pass
        finally:
            self.left = None


@contextmanager
def mortal() -> Iterator[Steps]:
    """Schedulers of this process can be killed, and are known to be dead afterwards."""
    steps = Steps()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tick, "passing", steps.passing)
        patch.setattr(alerts, "passing", steps.passing)
        # Who was killed here has this process's number, and it lives.
        patch.setattr(lease.Holder, "lives_here", lambda _: False)
        patch.setattr(lease.Holder, "known_dead", lambda _: True)
        yield steps


def somewhere(draw: random.Random, steps: int = 12) -> int | None:
    """A step to be killed at, or none."""
    return draw.choice([None, draw.randint(1, steps)])
