"""summary.json: what a run did, in figures, made of its events: while it goes on, when it ends, and after any kill.

It is written beside events.jsonl as the run goes on, so after a kill it is a minute old at most; `read_summary` makes
it anew of all that happened until then. Its schema is versioned by `v`; fields may be added within a version.
"""

import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, Literal

from jobs import events
from jobs.pace import STAGES, marks_due, pace, queues, seconds_between, share_busy
from jobs.records import Record
from pipelines.storage import Storage

VERSION = 1
_POINTS = 256  # of the timeline, at most: a picture has no room for more

Outcome = Literal["unfinished", "done", "failed", "interrupted", "killed"]
_ENDS: dict[str, Outcome] = {
    "attempt_done": "done", "attempt_failed": "failed", "attempt_interrupted": "interrupted",
}  # fmt: skip


@dataclass(frozen=True)
class AttemptSummary:
    """One attempt."""

    number: int
    host: str
    device: str  #: cpu | cuda
    began: str  #: in UTC
    ended: str | None  #: None of one that goes on or was killed; what it did last is in `seconds`
    outcome: Outcome  #: unfinished: it goes on, or was killed and not resumed yet
    seconds: float  #: from its start to its end, or to the last that is known of it
    shards_before: int  #: that were committed when it began
    shards: int  #: that it committed
    environment: Mapping[str, Any]  #: versions, cores, memory, GPUs
    error: str | None = None  #: the class
    message: str = ""


@dataclass(frozen=True)
class StageSummary:
    """One stage, over all attempts."""

    workers: int  #: of the last attempt
    windows: int
    busy_s: float  #: seconds that its workers have worked, all together
    busy: float | None  #: the share of its workers' time that that was, 0 to 1
    queue: int  #: windows that waited for it at the end
    queue_most: int  #: at any time
    memory_peak: int | None  #: bytes, of one worker


@dataclass(frozen=True)
class Point:
    """One moment of the run."""

    attempt: int
    seconds: float  #: since the run began
    windows: int  #: that the model has done, of all attempts
    queues: Mapping[str, int]  #: windows that wait for each stage
    cores_busy: float  #: the share of the driver's cores, since the point before
    memory: int | None  #: bytes in use on the driver's machine


@dataclass(frozen=True)
class Summary:
    """A run, in figures."""

    run_id: str
    job: str
    task: str
    output: str
    kind: str  #: first | all | changed | retry | incremental
    base: int | None  #: the manifest whose table it goes on from or takes the place of
    fire: str  #: the time that a schedule meant
    outcome: Outcome  #: of the last attempt
    written: str  #: when this was made, in UTC
    seconds: float  #: of all attempts
    windows: int  #: that the model has done
    total: int  #: windows of the run
    rate: float | None  #: windows a second, of the time in which the model worked
    shards: int
    shards_done: int
    items: int
    rows: int
    quarantined: int  #: rows of the quarantine table
    items_quarantined: int | None  #: known once the run is closed
    errors: Mapping[str, int]  #: quarantined rows by class, the most first
    manifest: int | None  #: the number of the table that it published
    decoded_bytes: int  #: windows, as the model gets them
    rows_bytes: int  #: of the table, in memory
    device_peak: int | None  #: bytes, of one GPU
    limit: str  #: one sentence: what limited the last attempt
    stages: Mapping[str, StageSummary]
    retries: Mapping[str, int]  #: of storage that failed in passing, by class
    oom_halvings: int
    workers_replaced: int
    nodes_changed: int
    stalls: int
    news: Mapping[str, Any] | None  #: of input.select: new
    attempts: tuple[AttemptSummary, ...]
    timeline: tuple[Point, ...]
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    v: int = VERSION


def read_summary(storage: Storage, record: Record, job: str) -> Summary:
    """A run's summary, made of its events as they are now. `job`: its name."""
    story = Story()
    for event in events.read(storage, record.run_id):
        story.add(event)
    return story.summary(storage.uri, record, job)


def write_summary(storage: Storage, summary: Summary) -> None:
    """Put it where its run is, in place of the one before."""
    storage.write(_name(summary.run_id), json.dumps(asdict(summary), indent=1).encode())


def _name(run_id: str) -> str:
    return f"runs/{run_id}/summary.json"


class Live:
    """Keeps summary.json up to date with what an attempt notes."""

    def __init__(
        self, storage: Storage, record: Record, job: str, attempt: int, say: Callable[[str], None]
    ) -> None:
        self._storage, self._record, self._job, self._attempt = storage, record, job, attempt
        self._say = say
        self._story: Story | None = None
        self._new: deque[str] = deque()
        self._began = self._written = time.monotonic()

    def hear(self, line: str) -> None:
        """An event, as it is written."""
        self._new.append(line)

    def tick(self) -> None:
        """Write it if it is time; called now and then, beside the work."""
        if self._new and marks_due(self._began, self._written):
            self.write()

    def write(self) -> None:
        """Write it now. Where it can't be, that is said: `read_summary` makes it again."""
        self._written = time.monotonic()
        try:
            write_summary(self._storage, self._made())
        except OSError as error:
            self._say(f"{self._storage.where(_name(self._record.run_id))} could not be written: {error}")

    def _made(self) -> Summary:
        if self._story is None:  # of attempts before; read once, and not while work waits for it
            self._story = Story()
            for event in events.read(self._storage, self._record.run_id):
                if event["attempt"] != self._attempt:
                    self._story.add(event)
        while self._new:
            self._story.add(json.loads(self._new.popleft()))
        return self._story.summary(self._storage.uri, self._record, self._job)


class Story:
    """What events come to, added up as they come; of those that are many, only sums are kept."""

    def __init__(self) -> None:
        self.attempts: list[_Attempt] = []
        self.points: list[Point] = []
        self.shards = self.items = self.done = self.rows = self.quarantined = 0
        self.decoded_bytes = self.rows_bytes = 0
        self.items_quarantined: int | None = None
        self.manifest: int | None = None
        self.device_peak: int | None = None
        self.peaks: dict[str, int] = {}
        self.errors: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()  # of kinds of events
        self.news: Mapping[str, Any] | None = None

    def add(self, event: Mapping[str, Any]) -> None:
        """The next event; of a kind or with fields that aren't known, what is known."""
        kind = event["event"]
        self.counts[kind] += 1
        if not self.attempts or self.attempts[-1].number != event["attempt"]:
            self.attempts.append(_Attempt(event["attempt"], event["time"]))
        attempt = self.attempts[-1]
        attempt.last = event["time"]
        if kind == "attempt_started":
            attempt.started = event
            self.shards, self.items = event["shards"], event["items"]
            self.done = event["done"]
        elif kind == "shard_committed":
            self._shard(event)
            attempt.shards += 1
        elif kind == "progress":
            attempt.mark(event)
        elif kind == "manifest_published":
            self.manifest, self.items, self.rows = event["number"], event["items"], event["rows"]
            self.quarantined, self.items_quarantined = event["quarantined"], event["items_quarantined"]
        elif kind == "retrying":
            self.retries[event["error"]] += 1
        elif kind == "input_compared":
            self.news = {name: event[name] for name in events.KINDS[kind][1] if name in event}
        elif kind in _ENDS:
            attempt.end = event

    def _shard(self, event: Mapping[str, Any]) -> None:
        notes = event["notes"]
        self.done += 1
        self.rows += event["rows"]
        self.quarantined += event["quarantined"]
        self.decoded_bytes += notes.get("decoded_bytes", 0)
        self.rows_bytes += notes.get("rows_bytes", 0)
        self.errors.update(notes.get("errors", {}))
        for stage in STAGES:
            self.peaks[stage] = max(self.peaks.get(stage, 0), notes.get(f"{stage}_peak", 0))
        if "device_peak" in notes:
            self.device_peak = max(self.device_peak or 0, notes["device_peak"])

    def summary(self, output: str, record: Record, job: str) -> Summary:
        """What it comes to so far."""
        attempts = [one.summary(after) for one, after in zip_longest(self.attempts, self.attempts[1:]) if one]
        marked = [one for one in self.attempts if one.marks]
        last = marked[-1].marks[-1] if marked else None
        stages = {stage: self._stage(stage, marked) for stage in STAGES} if marked else {}
        found = (
            pace([marked[-1].started or {}, *marked[-1].marks], math.inf, in_the_end=False)
            if marked
            else None
        )
        worked = sum(one.worked for one in marked)
        done = sum(one.marks[-1]["stages"]["predict"]["windows"] for one in marked)
        return Summary(
            run_id=record.run_id,
            job=job,
            task=record.fingerprint["task"],
            output=output,
            kind=record.kind,
            base=record.base,
            fire=record.fire,
            outcome=attempts[-1].outcome if attempts else "unfinished",
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(sum(one.seconds for one in attempts), 1),
            windows=last["windows"] if last else 0,
            total=last["total"] if last else self._windows(),
            rate=round(done / worked, 3) if worked and done else None,
            shards=self.shards,
            shards_done=self.done,
            items=self.items,
            rows=self.rows,
            quarantined=self.quarantined,
            items_quarantined=self.items_quarantined,
            errors=dict(self.errors.most_common()),
            manifest=self.manifest,
            decoded_bytes=self.decoded_bytes,
            rows_bytes=self.rows_bytes,
            device_peak=self.device_peak,
            limit=found.limit if found else "",
            stages=stages,
            retries=dict(self.retries.most_common()),
            oom_halvings=self.counts["oom_halved"],
            workers_replaced=self.counts["worker_replaced"],
            nodes_changed=self.counts["nodes_changed"],
            stalls=self.counts["stalled"],
            news=self.news,
            attempts=tuple(attempts),
            timeline=tuple(_thinned(self._points(marked))),
            fingerprint=record.fingerprint,
        )

    def _windows(self) -> int:
        return next((one.started["windows"] for one in reversed(self.attempts) if one.started), 0)

    def _stage(self, stage: str, marked: "list[_Attempt]") -> StageSummary:
        ends = [one.marks[-1]["stages"][stage] for one in marked]
        waited = [queues(mark)[stage] for attempt in marked for mark in attempt.marks]
        had = sum(one.worked * end["workers"] for one, end in zip(marked, ends, strict=True))
        busy = sum(end["busy_s"] for end in ends)
        share = share_busy(busy, had)
        return StageSummary(
            workers=ends[-1]["workers"],
            windows=sum(end["windows"] for end in ends),
            busy_s=round(busy, 3),
            busy=None if share is None else round(share, 3),
            queue=waited[-1],
            queue_most=max(waited),
            memory_peak=self.peaks.get(stage) or None,
        )

    def _points(self, marked: "list[_Attempt]") -> list[Point]:
        began = datetime.fromisoformat(self.attempts[0].began) if self.attempts else None
        return [
            Point(
                attempt=one.number,
                seconds=round((datetime.fromisoformat(mark["time"]) - began).total_seconds(), 1),
                windows=mark["windows"],
                queues=queues(mark),
                cores_busy=mark["cores_busy"],
                memory=mark.get("memory"),
            )
            for one in marked
            for mark in one.marks
            if began
        ]


class _Attempt:
    """What is kept of an attempt's events."""

    def __init__(self, number: int, began: str) -> None:
        self.number, self.began, self.last = number, began, began
        self.started: Mapping[str, Any] | None = None
        self.end: Mapping[str, Any] | None = None
        self.marks: list[Mapping[str, Any]] = []  #: every so many-th, and the last
        self.seen, self.every = 0, 1
        self.shards = 0

    def mark(self, event: Mapping[str, Any]) -> None:
        """The next progress event."""
        if self.seen and (self.seen - 1) % self.every:  # that one was kept as the last alone
            self.marks[-1] = event
        else:
            self.marks.append(event)
        self.seen += 1
        if len(self.marks) > _POINTS:
            self.marks, self.every = self.marks[::2], 2 * self.every

    @property
    def worked(self) -> float:
        """Seconds from its first mark to its last."""
        return seconds_between(self.marks[0]["time"], self.marks[-1]["time"])

    def summary(self, after: "_Attempt | None") -> AttemptSummary:
        """As far as it is known, also from the attempt after it; without one it is the last."""
        started, end = self.started or {}, self.end
        before = started.get("done", 0)
        found = (after.started or {}).get("done", 0) if after else 0
        return AttemptSummary(
            number=self.number,
            host=started.get("host", ""),
            device=started.get("device", ""),
            began=self.began,
            ended=end["time"] if end else None,
            outcome=_ENDS[end["event"]] if end else "killed" if after else "unfinished",
            seconds=round(seconds_between(self.began, self.last), 1),
            shards_before=before,
            shards=max(self.shards, found - before),  # a killed one has not noted its last commits, perhaps
            environment=started.get("environment", {}),
            error=end.get("error") if end else None,
            message=end.get("message", "") if end else "",
        )


def _thinned(points: list[Point]) -> list[Point]:
    """At most so many of them, evenly, and the last one."""
    step = math.ceil(len(points) / (_POINTS - 1))
    return points if len(points) <= _POINTS else [*points[:-1:step], points[-1]]
