"""A nightly schedule over a bucket that grows, changes and shrinks, by a clock that is put on and back, by schedulers
that are killed at random and are sometimes not there at all: each fire once, each item once, at its newest version.

Runs are real ones, planned, committed shard by shard, killed at commit points, closed by manifests; but without Ray.
"""

import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

from jobs.attempt import run_job
from jobs.scheduling.records import Terms, Tick
from jobs.scheduling.store import ScheduleStore
from jobs.scheduling.tick import Outcome, tick
from jobs.spec import parse_job
from jobs.which import which
from pipelines import reader
from pipelines.items import version_now
from tests.faults.ledger import balance
from tests.jobs.bucket import BAD, Bucket
from tests.jobs.inprocess import Kill, Killed
from tests.jobs.scheduling.target import mortal, somewhere
from tests.pipelines.committing import NoProgress

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SCHEDULERS = 3


@dataclass
class Machine:
    """A target: what is submitted to it is done when it gets to it, if it isn't killed."""

    going: dict[str, tuple[Terms, str]] = field(default_factory=dict)
    ended: dict[str, Outcome] = field(default_factory=dict)
    fires: dict[str, str] = field(default_factory=dict)  #: the run of each
    kills: int = 0

    def submit(self, terms: Terms, tick: Tick) -> tuple[str, str]:
        job = parse_job(dict(terms.job))
        found = which(job, NoProgress(), fire=tick.tick)
        run_id = found.record.run_id
        assert self.fires.setdefault(tick.tick, run_id) == run_id  # whoever submits it again means the same
        if found.table is not None:
            self.ended.setdefault(run_id, Outcome("done", 0))
        elif run_id not in self.ended:
            self.going.setdefault(run_id, (terms, tick.tick))
        return run_id, job.output.uri

    def look(self, tick: Tick) -> Outcome | None:
        return self.ended.get(tick.run_id)

    def stop(self, tick: Tick) -> None:
        raise AssertionError("overlap is forbid")

    def work(self, kill: Kill, draw: random.Random, calm: bool) -> None:
        for run_id, (terms, fire) in [*self.going.items()]:
            resumed = draw.random() < 0.5
            for at in (draw.choice([None, None, draw.randint(1, 60)]), None):
                kill.arm(None if calm else at)
                with suppress(Killed):
                    result = run_job(parse_job(dict(terms.job)), NoProgress(), fire=fire)
                    self.ended[run_id] = Outcome("done", result.exit_code)
                kill.arm(None)
                self.kills += run_id not in self.ended
                if run_id in self.ended or not resumed:
                    break
            # What nobody resumes, the next fire's run finishes first.
            self.ended.setdefault(run_id, Outcome("failed", 5, "It was killed."))
            del self.going[run_id]


def change(bucket: Bucket, draw: random.Random) -> None:
    """A day of a bucket's life."""
    for _ in range(draw.choice([0, 1, 1, 2])):
        bucket.put(f"item-{bucket.times}", BAD if draw.random() < 0.1 else b"x" * draw.randint(1, 40))
    names = sorted(bucket.files)
    if draw.random() < 0.3:
        bucket.put(draw.choice(names), b"y" * draw.randint(1, 40))
    if draw.random() < 0.1 and len(names) > 3:
        bucket.remove(draw.choice(names))


def live(
    folder: Path, model: Path, kill: Kill, first: date, days: int, zone: str, cron: str
) -> tuple[ScheduleStore, Machine, Bucket, datetime]:
    """So many days, from noon to noon; the last one is calm."""
    draw, clock = random.Random(f"{zone} {first}"), ZoneInfo(zone)
    store, machine, bucket = ScheduleStore(folder / "state"), Machine(), Bucket(folder, model)
    bucket.document["input"] = {"uri": str(bucket.folder), "select": "new", "deleted": "drop"}
    rules = {"cron": cron, "timezone": zone, "catch_up": "latest", "jitter": "10m"}
    for name in "abc":
        bucket.put(name, name.encode())
    terms = Terms(parse_job(bucket.document | {"schedule": rules}).model_dump(mode="json"))
    noon = datetime(first.year, first.month, first.day, 12, tzinfo=clock).astimezone(UTC)
    store.apply("texts", terms, noon)
    away, paused = 0, False
    for day in range(days):
        night = noon + day * DAY
        calm = day == days - 1
        change(bucket, draw)
        away = 0 if calm else away - 1 if away > 0 else draw.choice([0] * 30 + [1, 3])
        if paused or (draw.random() < 0.03 and not calm):
            (store.resume if paused else store.pause)("texts", night)
            paused = not paused
        if away:
            continue
        for hour in (8, 13, 15, 18, 21):  # in UTC, before and after
            for _ in range(SCHEDULERS):
                now = night + timedelta(hours=hour, minutes=draw.randint(0, 60))
                with mortal() as steps, steps.armed(None if calm else somewhere(draw)):
                    look = tick(store, machine, now)
                    assert not look.troubles, look.troubles
            if calm or draw.random() < 0.8:
                machine.work(kill, draw, calm)
    return store, machine, bucket, noon + days * DAY - DAY / 4


def check(store: ScheduleStore, machine: Machine, bucket: Bucket, first: date, days: int) -> Counter[str]:
    ticks = store.ticks("texts")
    zone = store.get("texts").spec.zone
    # One for each night, whatever the clock did in it.
    local = [datetime.fromisoformat(one.tick).astimezone(zone).date() for one in reversed(ticks)]
    assert local == [first + n * DAY for n in range(1, days + 1)]
    states = Counter(one.state for one in ticks)
    assert {*states} <= {"done", "failed", "skipped"}
    assert {one.tick for one in ticks if one.state in ("done", "failed")} == machine.fires.keys()
    # Each run that did anything is one fire's, and each version of each item was planned by one of them.
    out = Path(bucket.out)
    began = [*out.glob("runs/*/run.json")]
    records = [json.loads(path.read_text()) for path in began]
    fires = [record["fire"] for record in records]
    assert len(fires) == len({*fires})
    assert {*fires} <= machine.fires.keys()
    planned = Counter(
        (row["item_id"], row["version"])
        for path, record in zip(began, records, strict=True)
        for row in pq.read_table(
            path.with_name(record["planned"]) / "plan.parquet", columns=["item_id", "version"]
        ).to_pylist()
    )
    assert {*planned.values()} == {1}
    # The table: each item that is there once, at its newest version.
    bucket.check(bucket.files)
    index = reader.index(bucket.out).select(["uri", "version"]).to_pylist()
    assert len(index) == len(bucket.files)
    assert {row["uri"]: row["version"] for row in index} == {
        str(path): version_now(str(path)) for path in bucket.folder.iterdir()
    }
    assert not balance(bucket.out).wrong
    return states


@pytest.mark.parametrize(
    ("zone", "cron", "first"),
    [
        ("America/New_York", "30 2 * * *", date(2026, 3, 1)),  # 02:30 is left out on the 8th
        ("Australia/Lord_Howe", "45 1 * * *", date(2026, 3, 28)),  # 01:45 comes twice on April the 5th
    ],
)
def test_a_fortnight_with_a_change_of_clocks(
    in_memory: Path, texts_model: Path, kill: Kill, zone: str, cron: str, first: date
) -> None:
    store, machine, bucket, _ = live(in_memory, texts_model, kill, first, 14, zone, cron)
    check(store, machine, bucket, first, 14)
    assert machine.kills


@pytest.mark.e2e
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("zone", "cron"), [("America/New_York", "30 2 * * *"), ("Australia/Lord_Howe", "45 1 * * *")]
)
def test_a_year(in_memory: Path, texts_model: Path, kill: Kill, zone: str, cron: str) -> None:
    first, days = date(2026, 1, 1), 365
    store, machine, bucket, _ = live(in_memory, texts_model, kill, first, days, zone, cron)
    states = check(store, machine, bucket, first, days)
    assert states["skipped"] > 5
    assert states["done"] > 250
    assert machine.kills > 50
