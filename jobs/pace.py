"""Pace: how far a run is, how fast, and what limits it: an attempt notes `progress` events, and they are read here."""

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psutil

from cluster.local import cores
from jobs.events import Events
from pipelines.meter import Meter

STAGES = ("decode", "predict", "write")

_EVERY_S, _LEAST_OFTEN_S = 10.0, 60.0
_SHARE = (
    60  # of the attempt's own seconds, between two marks: of days, few events, which in a bucket are objects
)
_BUSY = 0.7  # a stage that works less than that does not limit
_CORES_BUSY = 0.9
_WORTH = 1.1  # times as fast: less is not worth saying


class Marks:
    """Where an attempt is, noted as it begins, every ten seconds (of a long one, every minute), and as it ends."""

    def __init__(
        self, meter: Meter, events: Events, before: int, total: int, workers: Mapping[str, int]
    ) -> None:
        self._meter, self._events, self._before, self._total = meter, events, before, total
        self._workers = workers
        self._began, self._noted = time.monotonic(), -math.inf
        self._cores = _cpu_seconds()
        self._windows, self._busy = _Counted(), _Counted()

    def look(self) -> None:
        """Note one if it is time."""
        if marks_due(self._began, self._noted):
            self.note()

    def done(self) -> int:
        """How many windows the model has done by now, of all attempts."""
        return self._of_run(self._windows.on(self._meter.read()))

    def note(self) -> None:
        """Note one now."""
        self._noted = time.monotonic()
        windows, busy = self._windows.on(self._meter.read()), self._busy.on(self._meter.busy())
        before, self._cores = self._cores, _cpu_seconds()
        spent, idle = (now - then for now, then in zip(self._cores, before, strict=True))
        self._events.note(
            "progress",
            windows=self._of_run(windows),
            total=self._total,
            stages={
                stage: {
                    "workers": self._workers[stage],
                    "windows": int(windows[stage]),
                    "busy_s": round(busy[stage], 3),
                }
                for stage in STAGES
            },
            cores=cores(),
            cores_busy=round(1 - idle / spent, 3) if spent > 0 else 0.0,
            memory=psutil.virtual_memory().used,
        )

    def _of_run(self, windows: Mapping[str, float]) -> int:
        return min(self._total, self._before + int(windows["predict"]))


class _Counted:
    """What a meter has counted, also over its loss: the next one began at zero, so all that it has has come since.

    So marks never go back, and whoever reads them may take one from another.
    """

    def __init__(self) -> None:
        self._before: dict[str, float] = {}  # what meters that were lost had, as far as it was read
        self._now: dict[str, float] = {}

    def on(self, read: Mapping[str, float]) -> dict[str, float]:
        """By stage, what has come in all, by what the meter says now."""
        for stage, then in self._now.items():
            if read.get(stage, 0) < then:
                self._before[stage] = self._before.get(stage, 0) + then
        self._now = dict(read)
        return {stage: self._before.get(stage, 0) + read.get(stage, 0) for stage in STAGES}


def marks_due(began: float, noted: float) -> bool:
    """Whether what is kept of an attempt that began then is due, where it was last kept at `noted`; by one's clock."""
    now = time.monotonic()
    return now - noted >= min(_LEAST_OFTEN_S, max(_EVERY_S, (now - began) / _SHARE))


def _cpu_seconds() -> tuple[float, float]:
    """Of the cores that this process may use, since the machine started: all seconds, and those that were idle."""
    times = psutil.cpu_times(percpu=True)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
    ours = [one for core, one in enumerate(times) if core in mine]
    return sum(map(sum, ours)), sum(one.idle + getattr(one, "iowait", 0.0) for one in ours)


@dataclass(frozen=True)
class StagePace:
    """A stage in the last minute or so."""

    stage: str
    workers: int
    windows: int  #: done by this attempt
    queue: int  #: windows that the stage before has done, and this one has not
    busy: (
        float | None
    )  #: the share of its workers' time in which they work, 0 to 1; None: nothing is known yet
    capacity: float | None  #: windows a second, were its workers always at work


@dataclass(frozen=True)
class Pace:
    """A run in the last minute or so."""

    windows: int  #: that the model has done, of all attempts
    total: int
    rate: float | None  #: windows a second; None: nothing is known yet
    seconds_left: float | None
    stages: tuple[StagePace, ...]
    limit: str  #: one sentence: what limits the run, and what would help; or why nothing can be said


def pace(events: Iterable[Mapping[str, Any]], seconds: float = 60.0, in_the_end: bool = True) -> Pace | None:
    """The pace of a run's last attempt over its last `seconds`, from its events; None if it has noted no progress.

    Once all windows are done nothing limits any more, unless it is asked what did, and not what does `in_the_end`.
    """
    found = paced(events, seconds)
    device = next((event["device"] for event in found if event["event"] == "attempt_started"), "cpu")
    marks = [event for event in found if event["event"] == "progress"]
    if not marks:
        return None
    last = marks[-1]
    stages = _stages(marks)
    _, predict, write = stages
    to_do = _to_do(last)
    rate, written = (_rate(marks, stage) for stage in ("predict", "write"))
    left = (to_do - predict.windows) / rate if rate else None
    if predict.windows >= to_do:
        left = (to_do - write.windows) / written if written else 0.0 if write.windows >= to_do else None
    return Pace(
        windows=last["windows"],
        total=last["total"],
        rate=rate,
        seconds_left=left,
        stages=stages,
        limit=_limit(stages, to_do if in_the_end else math.inf, device, last),
    )


def paced(events: Iterable[Mapping[str, Any]], seconds: float = 60.0) -> list[Mapping[str, Any]]:
    """Those events that their `pace` is made of, and that of more events to come: few, however many there are."""
    start: list[Mapping[str, Any]] = []
    marks: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("event") == "attempt_started":
            start, marks = [event], []
        elif event.get("event") == "progress":
            marks.append(event)
    long_ago = (i for i in reversed(range(len(marks))) if _seconds(marks[i], marks[-1]) >= seconds)
    return start + marks[next(long_ago, 0) :]


def _base(marks: Sequence[Mapping[str, Any]], stage: str) -> Mapping[str, Any]:
    """The mark to compare the last one with: the first, but not from before the stage's first worker had work."""
    idle = [
        mark for mark in marks if not (mark["stages"][stage]["windows"] or mark["stages"][stage]["busy_s"])
    ]
    return [marks[0], *idle][-1]


def _rate(marks: Sequence[Mapping[str, Any]], stage: str) -> float | None:
    """A stage's windows a second; None before the first."""
    base = _base(marks, stage)
    passed = _seconds(base, marks[-1])
    return (
        moved(base, marks[-1], stage, "windows") / passed
        if passed and marks[-1]["stages"][stage]["windows"]
        else None
    )


def _seconds(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return seconds_between(one["time"], other["time"])


def seconds_between(one: str, other: str) -> float:
    """From one event's time to another's; never less than nothing, for clocks are set, now and then."""
    return max(0.0, (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds())


def moved(base: Mapping[str, Any], last: Mapping[str, Any], stage: str, what: str) -> float:
    """By how much a stage's windows or seconds are more in a mark than in one before it, of the same attempt."""
    more: float = last["stages"][stage][what] - base["stages"][stage][what]
    return more


def share_busy(busy_s: float, had_s: float) -> float | None:
    """The share of the time they had in which workers worked, 0 to 1; None if they had none."""
    return min(1.0, busy_s / had_s) if had_s > 0 else None  # one flush may tell more seconds than have passed


def queues(mark: Mapping[str, Any]) -> dict[str, int]:
    """How many windows wait for each stage: all that the one before has done, and it hasn't."""
    done = {stage: mark["stages"][stage]["windows"] for stage in STAGES}
    before = [_to_do(mark), *done.values()]
    return {stage: max(0, had - done[stage]) for stage, had in zip(STAGES, before, strict=False)}


def _to_do(mark: Mapping[str, Any]) -> int:
    """The windows of an attempt, done or not."""
    found: int = mark["total"] - mark["windows"] + mark["stages"]["predict"]["windows"]
    return found


def _stages(marks: Sequence[Mapping[str, Any]]) -> tuple[StagePace, ...]:
    last = marks[-1]
    waiting = queues(last)
    stages = []
    for name in STAGES:
        now, base = last["stages"][name], _base(marks, name)
        passed = _seconds(base, last)
        worked = moved(base, last, name, "busy_s")
        windows, busy = moved(base, last, name, "windows"), worked
        if not windows:  # a shard takes longer than that
            windows, busy = now["windows"], now["busy_s"]
        stages.append(
            StagePace(
                stage=name,
                workers=now["workers"],
                windows=now["windows"],
                queue=waiting[name],
                busy=share_busy(worked, passed * now["workers"]),
                capacity=now["workers"] * windows / busy if windows and busy else None,
            )
        )
    return tuple(stages)


def _limit(stages: tuple[StagePace, ...], to_do: float, device: str, last: Mapping[str, Any]) -> str:
    known = {stage: stage.capacity for stage in stages if stage.capacity and stage.busy is not None}
    if stages[-1].windows >= to_do:
        return "nothing limits any more: all windows are done"
    if not stages[1].windows or len(known) < 2:
        return "starting: no window has come through the model yet"
    slowest, *others = sorted(known, key=lambda stage: known[stage])
    assert slowest.busy is not None
    if device == "cpu" and slowest.stage != "write" and last["cores_busy"] >= _CORES_BUSY:
        or_gpu = ", or a GPU," if slowest.stage == "predict" else ""
        return (
            f"{slowest.stage} limits: the {last['cores']} cores are all busy, and only more or faster ones{or_gpu} "
            "would help"
        )
    if slowest.busy < _BUSY:
        return (
            f"no stage limits: the busiest, {slowest.stage}, works {slowest.busy:.0%} of the time; the rest goes into "
            "passing shards on"
        )
    most = known[others[0]] / known[slowest]  # times as fast, until the next one limits
    if most < _WORTH:
        return f"{slowest.stage} and {others[0].stage} limit alike: more workers for one of them would give nothing"
    more = min(slowest.workers, math.ceil(slowest.workers * (most - 1) - 1e-6))
    gain = min(most, 2.0 if slowest.stage == "write" else 1 + more / slowest.workers)
    if device == "cpu" and slowest.stage != "write":
        gain = min(gain, 1 / max(last["cores_busy"], 0.01))  # they share the cores
    return _sentence(slowest, more, gain, device)


def _sentence(slowest: StagePace, more: int, gain: float, device: str) -> str:
    share, workers = f"{slowest.busy:.0%}", slowest.workers
    if slowest.stage == "write":
        return (
            f"write limits: it works {share} of the time; an output that takes twice as much a second would give about "
            f"{gain:.1f}x"
        )
    if slowest.stage == "predict" and device != "cpu":
        busy = "its GPU is" if workers == 1 else f"its {workers} GPUs are"
        add = "a second one" if workers == 1 else f"{more} more"
        return f"predict limits: {busy} busy {share} of the time; {add} would give about {gain:.1f}x"
    add = f"{more} more CPU worker{'s' * (more > 1)}"
    return f"{slowest.stage} limits: {add} would give about {gain:.1f}x"
