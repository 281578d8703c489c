"""What becomes of a schedule's fires as they are found: which are to run, and when, and which are not, and why."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from jobs.durations import spoken
from jobs.scheduling.spec import ScheduleSpec

#: A fire that is found later than this after its time is late: who looks every minute or so finds none.
LATE = timedelta(minutes=10)

Alarm = Literal["failed", "late", "missed"]


@dataclass(frozen=True)
class Found:
    """A fire, as it was found."""

    tick: datetime
    due: datetime  #: its time, with its jitter
    state: Literal["waiting", "skipped", "missed"]
    reason: str = ""
    alarm: Alarm | None = None
    made_up: bool = False  #: late, or of a pause, and to run all the same


def found(
    name: str, spec: ScheduleSpec, ticks: Sequence[datetime], now: datetime, paused: bool = False
) -> list[Found]:
    """The fires of a schedule that were found now, in order; `paused`: all of them came in a pause.

    What came in a pause is late, but no cause for alarm.
    """
    due = [tick + jitter(name, tick, spec.spread) for tick in ticks]
    late = [paused or now - at > LATE for at in due]
    made_up = _made_up(spec, late)
    return [_found(spec, tick, due[n], late[n], n in made_up, now, paused) for n, tick in enumerate(ticks)]


def jitter(name: str, tick: datetime, spread: timedelta) -> timedelta:
    """How much later a fire comes: whole seconds, less than `spread`, the same whenever it is asked."""
    drawn = int.from_bytes(hashlib.sha256(f"{name} {tick.isoformat()}".encode()).digest()[:8], "big")
    return timedelta(seconds=drawn % max(1, int(spread.total_seconds())))


def too_late(spec: ScheduleSpec, due: datetime, now: datetime) -> str:
    """Why a fire may not begin any more; empty if it may."""
    deadline = spec.deadline
    if deadline is None or now - due <= deadline:
        return ""
    return f"It could not begin within {spec.start_deadline} of its time: start_deadline."


def _made_up(spec: ScheduleSpec, late: Sequence[bool]) -> set[int]:
    """Which of the late ones are made up for."""
    behind = [n for n, is_late in enumerate(late) if is_late]
    if spec.catch_up == "all":
        return {*behind[-spec.max_catch_up :]}
    return {len(late) - 1} & {*behind} if spec.catch_up == "latest" else set()


def _found(
    spec: ScheduleSpec, tick: datetime, due: datetime, late: bool, made_up: bool, now: datetime, paused: bool
) -> Found:
    by = f"It was found {spoken((now - due).total_seconds())} after its time"
    over = too_late(spec, due, now)
    if late and not made_up and not over:
        if spec.catch_up == "latest":
            return Found(tick, due, "skipped", "A later fire stands for it: catch_up is latest.")
        over = f"{by}, and " + (
            "catch_up is none."
            if spec.catch_up == "none"
            else f"{spec.max_catch_up} later ones are made up for."
        )
    if over:
        if paused:
            return Found(tick, due, "skipped", f"The schedule was paused. {over}")
        return Found(tick, due, "missed", over, "missed")
    if late:
        return Found(tick, due, "waiting", f"{by}.", None if paused else "late", made_up=True)
    return Found(tick, due, "waiting")
