"""summary.json: what events come to, while a run goes on, when it ends, and after a kill."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.events import Events, recorded
from jobs.records import Record, read_record
from jobs.summary import VERSION, Live, Story, Summary, read_summary
from pipelines.storage import OutputError, Storage, open_storage
from tests.jobs.bucket import Bucket

RECORD = Record("run1", "first", None, {"task": "latents"})
BEGAN = datetime(2026, 11, 26, tzinfo=UTC)


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat()


def event(kind: str, when: float, attempt: int = 1, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "time": at(when), "attempt": attempt, **fields}


def started(seconds: float, attempt: int = 1, done: int = 0) -> dict[str, Any]:
    return event(
        "attempt_started",
        seconds,
        attempt,
        host="h",
        device="cpu",
        shards=10,
        done=done,
        windows=100,
        items=50,
    )


def mark(
    seconds: float, windows: tuple[int, int, int], busy_s: float, before: int = 0, attempt: int = 1
) -> Any:
    stages = {
        stage: {"workers": 2, "windows": done, "busy_s": busy_s}
        for stage, done in zip(("decode", "predict", "write"), windows, strict=True)
    }
    fields = {"windows": before + windows[1], "total": 100, "stages": stages, "cores": 2, "cores_busy": 0.5}
    return event("progress", seconds, attempt, **fields, memory=123)


def told(*happened: dict[str, Any]) -> Summary:
    story = Story()
    for one in happened:
        story.add(one)
    return story.summary("out", RECORD, "job")


def test_a_killed_and_resumed_run(killed: Bucket) -> None:
    storage = open_storage(killed.out)
    [run_id] = {name.split("/")[1] for name in storage.names("runs") if name.endswith("run.json")}
    record = read_record(storage, run_id)
    assert record
    before = read_summary(storage, record, "texts")
    assert (before.outcome, before.manifest, before.items_quarantined) == ("failed", None, None)
    assert 0 < before.shards_done < before.shards == 4
    result = killed.run()
    made = read_summary(storage, record, "texts")
    assert made.outcome == "done"
    assert (made.shards_done, made.manifest) == (4, 1)
    assert (made.rows, made.quarantined, made.items) == (result.rows, result.quarantined, result.items)
    assert made.errors == {"TextError": 2}
    assert [(one.number, one.outcome) for one in made.attempts] == [(1, "failed"), (2, "done")]
    assert made.attempts[1].shards_before == before.shards_done
    assert made.attempts[1].environment["packages"].keys() >= {"torch", "ray", "perceiver-batch"}
    assert made.decoded_bytes > 0 < made.rows_bytes
    assert made.fingerprint == record.fingerprint
    # The file is that, as it was at the end.
    kept = json.loads(storage.read(f"runs/{run_id}/summary.json"))
    assert kept == json.loads(json.dumps(asdict(made))) | {"written": kept["written"]}
    assert (kept["v"], kept["run_id"]) == (VERSION, run_id)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "out"))
    storage.prepare()
    return storage


def kept(storage: Storage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(storage.read("runs/run1/summary.json"))
    return found


def test_it_is_there_while_the_run_goes_on_and_after_a_kill(storage: Storage) -> None:
    said: list[str] = []

    def attempt(number: int) -> tuple[Events, Live]:
        live = Live(storage, RECORD, "job", number, said.append)
        return Events(storage, "run1", number, live), live

    def begins(events: Events, done: int) -> None:
        events.note(
            "attempt_started", host="h", pid=1, code="0", device="cpu", environment={}, shards=4, done=done,
            windows=4, items=4,
        )  # fmt: skip
        events.note("shard_committed", shard=done, rows=1, quarantined=0, notes={"decode_peak": 7})

    events, live = attempt(1)
    begins(events, 0)
    events.look()  # it isn't time yet
    assert not storage.exists("runs/run1/summary.json")
    live.write()
    assert (kept(storage)["outcome"], kept(storage)["shards_done"]) == ("unfinished", 1)
    # Killed here; what came after the last writing is in the events.
    events.note("shard_committed", shard=1, rows=1, quarantined=0, notes={"decode_peak": 9})
    assert read_summary(storage, RECORD, "job").shards_done == 2
    events, live = attempt(2)
    with recorded(events):
        begins(events, 3)  # a third one was committed, and there was no time left to note it
    last = kept(storage)
    assert [(one["outcome"], one["shards"]) for one in last["attempts"]] == [("killed", 3), ("done", 1)]
    assert (last["outcome"], last["shards_done"]) == ("done", 4)
    assert not said


def test_a_file_that_cannot_be_written_ends_no_run(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def full(*_: Any) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(type(storage), "write", full)
    with recorded(Events(storage, "run1", 1, Live(storage, RECORD, "job", 1, said.append))):
        pass
    assert said == [f"{storage.where('runs/run1/summary.json')} could not be written: no room"]
    assert read_summary(storage, RECORD, "job").outcome == "done"


def test_where_the_time_went() -> None:
    made = told(
        started(0),
        mark(2, (0, 0, 0), 0),
        mark(12, (40, 20, 10), 10),
        started(20, attempt=2, done=1),
        mark(21, (0, 0, 0), 0, before=10, attempt=2),
        mark(31, (90, 60, 60), 5, before=10, attempt=2),
        mark(41, (90, 90, 90), 8, before=10, attempt=2),
        event("manifest_published", 42, 2, number=3, items=50, rows=99, quarantined=1, items_quarantined=1),
        event("attempt_done", 43, 2, seconds=23.0),
    )
    assert (made.windows, made.total, made.seconds) == (100, 100, 12 + 23)
    assert made.rate == pytest.approx((20 + 90) / (10 + 20), abs=1e-3)
    decode = made.stages["decode"]
    assert (decode.windows, decode.busy_s) == (130, 18)
    assert decode.busy == pytest.approx(18 / (2 * 30))
    assert (made.stages["predict"].queue_most, made.stages["predict"].queue) == (30, 0)
    assert [(one.attempt, one.seconds) for one in made.timeline] == [
        (1, 2),
        (1, 12),
        (2, 21),
        (2, 31),
        (2, 41),
    ]
    assert made.timeline[1].queues == {"decode": 60, "predict": 20, "write": 10}
    assert [one.outcome for one in made.attempts] == ["killed", "done"]
    # What limited it, though all of it is done.
    assert made.limit.startswith("no stage limits: the busiest, decode, works 20% of the time; ")


def test_what_went_wrong_is_counted() -> None:
    retry = {"stage": "decode", "uri": "s3://b/k", "message": "slow", "wait_s": 1}
    made = told(
        started(0),
        event("retrying", 1, error="Throttled", **retry),
        event("retrying", 2, error="Reset", **retry),
        event("retrying", 3, error="Throttled", **retry),
        event("oom_halved", 4, shard=1, batch=1, chunk=2),
        event("worker_replaced", 5, stage="predict", shard=1, why="sick"),
        event("of another version", 6, what="ever"),
        event("stalled", 7, state={}),
        event("attempt_failed", 8, error="StalledError", message="It stood still.", traceback=""),
    )
    assert made.retries == {"Throttled": 2, "Reset": 1}
    assert (made.oom_halvings, made.workers_replaced, made.stalls) == (1, 1, 1)
    [one] = made.attempts
    assert (one.error, one.message, one.outcome, one.seconds) == (
        "StalledError",
        "It stood still.",
        "failed",
        8,
    )
    assert made.stages == {}
    assert made.rate is None


@settings(max_examples=25)
@given(st.integers(1, 3000))
def test_of_a_long_run_the_timeline_is_thinned(count: int) -> None:
    made = told(started(0), *(mark(10.0 * n, (n, n, n), n) for n in range(count)))
    assert 0 < len(made.timeline) <= 256
    assert made.timeline[-1].seconds == 10 * (count - 1)
    steps = {b.seconds - a.seconds for a, b in pairwise(made.timeline[:-1])}
    assert len(steps) <= 1  # evenly
    assert len(made.timeline) >= min(count, 128)
    assert made.stages["write"].windows == count - 1
    json.dumps(asdict(made))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=4))
def test_of_many_attempts_too(counts: list[int]) -> None:
    story, now = Story(), 0.0
    for attempt, count in enumerate(counts, 1):
        story.add(started(now, attempt))
        for n in range(count):
            now += 10
            story.add(mark(now, (n, n, n), n, attempt=attempt))
    made = story.summary("out", RECORD, "job")
    assert 0 < len(made.timeline) <= 256
    assert made.timeline[-1].seconds == now
    assert made.stages["predict"].windows == sum(counts) - len(counts)
