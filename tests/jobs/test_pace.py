"""The pace of a run, from the progress that it notes: rates, queues, and what limits it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import events
from jobs import pace as paces
from jobs.events import Events, read
from jobs.metrics import Account
from jobs.pace import STAGES, Marks, Pace, pace
from jobs.records import Record
from jobs.summary import Story
from pipelines.storage import open_storage
from tests.pipelines.told import Told

START = datetime(2026, 11, 25, 10, tzinfo=UTC)
WORKERS = {"decode": 3, "predict": 1, "write": 2}


def started(device: str = "cuda") -> dict[str, Any]:
    return {"event": "attempt_started", "time": START.isoformat(), "device": device}


def mark(
    seconds: float,
    done: tuple[float, float, float],
    busy: tuple[float, float, float],
    workers: dict[str, int] = WORKERS,
    total: int = 10_000,
    before: int = 0,
    cores_busy: float = 0.4,
) -> dict[str, Any]:
    stages = {
        stage: {"workers": workers[stage], "windows": int(windows), "busy_s": seconds_}
        for stage, windows, seconds_ in zip(STAGES, done, busy, strict=True)
    }
    return {
        "event": "progress", "time": (START + timedelta(seconds=seconds)).isoformat(), "total": total,
        "windows": before + int(done[1]), "stages": stages, "cores": 16, "cores_busy": cores_busy, "memory": 1 << 30,
    }  # fmt: skip


def steady(
    costs: tuple[float, float, float],
    workers: dict[str, int] = WORKERS,
    device: str = "cuda",
    cores_busy: float = 0.4,
) -> Pace:
    """A run of which the slowest stage is always at work, for two minutes."""
    rate = min(workers[stage] / cost for stage, cost in zip(STAGES, costs, strict=True))
    marks = []
    for seconds in range(0, 130, 10):
        done = (rate * seconds + 5 * (seconds > 0), rate * seconds, rate * seconds)
        busy = tuple(rate * seconds * cost for cost in costs)
        marks.append(mark(seconds, done, (busy[0], busy[1], busy[2]), workers, 10_000_000, 0, cores_busy))
    found = pace([started(device), *marks])
    assert found
    return found


def test_rate_time_left_and_queues() -> None:
    marks = [
        mark(0, (0, 0, 0), (0, 0, 0), before=1000),
        mark(10, (120, 100, 60), (30, 9, 5), before=1000),
        mark(20, (230, 200, 160), (60, 18, 10), before=1000),
    ]
    found = pace([started(), *marks])
    assert found
    assert (found.windows, found.total, found.rate, found.seconds_left) == (1200, 10_000, 10, 880)
    assert [stage.queue for stage in found.stages] == [9000 - 230, 30, 40]
    assert [stage.windows for stage in found.stages] == [230, 200, 160]
    assert [stage.busy for stage in found.stages] == pytest.approx([1, 0.9, 0.25])
    assert [stage.capacity for stage in found.stages] == pytest.approx([11.5, 200 / 18, 32])


def test_the_last_minute_counts_and_the_time_before_workers_were_there_does_not() -> None:
    marks = [
        mark(0, (0, 0, 0), (0, 0, 0)),
        mark(50, (0, 0, 0), (0, 0, 0)),
        mark(60, (100, 100, 100), (30, 9, 9)),
    ]
    found = pace([started(), *marks])
    assert found
    assert found.rate == 10
    later = [mark(60 + s, (100 + s, 100 + s, 100 + s), (30 + s, 9 + s, 9 + s)) for s in (60, 120)]
    found = pace([started(), *marks, *later])
    assert found
    assert found.rate == 1
    # Another attempt begins anew.
    assert pace([started(), *marks, started()]) is None
    assert pace([]) is None


def test_what_is_left_to_write_is_left() -> None:
    marks = [mark(s, (100, 100, s), (30, 9, 2 * s), total=100) for s in (0, 10, 20)]
    found = pace([started(), *marks])
    assert found
    assert found.seconds_left == 80
    assert found.limit.startswith("write limits")
    done = pace([started(), *marks, mark(30, (100, 100, 100), (30, 9, 30), total=100)])
    assert done
    assert (done.seconds_left, done.limit) == (0, "nothing limits any more: all windows are done")


def test_the_sentence_on_what_limits() -> None:
    assert steady((0.3, 0.053, 0.01)).limit == "decode limits: 3 more CPU workers would give about 1.9x"
    assert steady((0.3, 0.07, 0.01)).limit == "decode limits: 2 more CPU workers would give about 1.4x"
    assert steady((0.05, 0.1, 0.12)).limit == (
        "predict limits: its GPU is busy 100% of the time; a second one would give about 1.7x"
    )
    four = {"decode": 20, "predict": 4, "write": 2}
    assert steady((0.1, 0.1, 0.02), four).limit == (
        "predict limits: its 4 GPUs are busy 100% of the time; 4 more would give about 2.0x"
    )
    assert steady((0.05, 0.01, 0.12)).limit == (
        "write limits: it works 100% of the time; an output that takes twice as much a second would give about 2.0x"
    )
    alike = steady((0.3, 0.1, 0.01)).limit
    assert alike == "decode and predict limit alike: more workers for one of them would give nothing"


def test_the_sentence_where_stages_share_the_cores() -> None:
    one = {"decode": 1, "predict": 1, "write": 1}
    assert steady((0.05, 0.5, 0.01), one, "cpu", 0.98).limit == (
        "predict limits: the 16 cores are all busy, and only more or faster ones, or a GPU, would help"
    )
    assert steady((0.5, 0.05, 0.01), one, "cpu", 0.98).limit == (
        "decode limits: the 16 cores are all busy, and only more or faster ones would help"
    )
    # Two workers would need 1.4 of the cores that there are.
    assert steady((0.5, 0.05, 0.01), one, "cpu", 0.7).limit == (
        "decode limits: 1 more CPU worker would give about 1.4x"
    )


def test_why_nothing_can_be_said() -> None:
    nothing = mark(0, (0, 0, 0), (0, 0, 0))
    for marks in ([nothing], [nothing, mark(10, (64, 0, 0), (9, 0, 0))]):
        found = pace([started(), *marks])
        assert found
        assert found.limit == "starting: no window has come through the model yet"
        assert (found.rate, found.seconds_left) == (None, None)
    idle = [mark(s, (s, s, s), (s * 0.9, s * 0.1, s * 0.1)) for s in (0, 10, 20)]
    found = pace([started(), *idle])
    assert found
    assert found.limit == (
        "no stage limits: the busiest, decode, works 30% of the time; the rest goes into passing shards on"
    )


COST = st.floats(0.001, 10)


@given(
    costs=st.tuples(COST, COST, COST),
    workers=st.tuples(st.integers(1, 64), st.integers(1, 8), st.integers(1, 4)),
    device=st.sampled_from(["cpu", "cuda"]),
    cores_busy=st.floats(0, 1),
)
def test_the_slowest_stage_limits_and_no_gain_is_promised_beyond_the_next(
    costs: tuple[float, float, float], workers: tuple[int, int, int], device: str, cores_busy: float
) -> None:
    found = steady(costs, dict(zip(STAGES, workers, strict=True)), device, cores_busy)
    assert all(0 <= (stage.busy or 0) <= 1 for stage in found.stages)
    assert all(stage.queue >= 0 for stage in found.stages)
    capacities = {stage: count / cost for stage, count, cost in zip(STAGES, workers, costs, strict=True)}
    slowest, following, _ = sorted(capacities, key=capacities.__getitem__)
    if not found.stages[1].windows:  # slower than a window in two minutes
        assert found.limit.startswith("starting")
        return
    ratio = capacities[following] / capacities[slowest]
    if ratio > 1.3 and found.stages[1].windows > 100:  # windows are whole: of few, shares are rough
        assert found.limit.startswith(f"{slowest} limits: ")
    gain = re.search(r"about (\d+\.\d)x", found.limit)
    if gain:
        assert 1.0 <= float(gain[1]) <= 2.05
        assert float(gain[1]) <= ratio * 1.1 + 0.05 or found.stages[1].windows <= 100


STEP = st.fixed_dictionaries(
    {
        "seconds": st.floats(-100, 1e6),  # clocks are set
        "done": st.tuples(*[st.floats(0, 1e6)] * 3),
        "busy": st.tuples(*[st.floats(0, 1e6)] * 3),
        "total": st.integers(0, 10**6),
        "before": st.integers(0, 10),
        "cores_busy": st.floats(0, 1),
    }
)


@given(steps=st.lists(STEP | st.sampled_from(["cpu", "cuda"]), max_size=6))
def test_whatever_was_noted_there_is_a_sentence(steps: list[dict[str, Any] | str]) -> None:
    noted: list[dict[str, Any]] = []
    seconds, done, busy = 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)
    for step in steps:
        if isinstance(step, str):
            noted.append(started(step))
            done = busy = (0.0, 0.0, 0.0)
            continue
        seconds += step["seconds"]
        done = tuple(map(sum, zip(done, step["done"], strict=True)))
        busy = tuple(map(sum, zip(busy, step["busy"], strict=True)))
        noted.append(mark(**step | {"seconds": seconds, "done": done, "busy": busy}))
    found = pace(noted)
    if found:
        assert re.match(r"(decode|predict|write|starting|no stage|nothing)\b", found.limit)
        assert all(stage.queue >= 0 and 0 <= (stage.busy or 0) <= 1 for stage in found.stages)


def test_marks_are_events_that_pace_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(paces.time, "monotonic", lambda: clock[0])
    storage = open_storage(str(tmp_path / "out"))
    storage.prepare()
    meter = Told()
    marks = Marks(meter, Events(storage, "run", 1), 5, 25, WORKERS)
    for seconds in range(0, 3601):
        clock[0] = 100.0 + seconds
        meter.add("predict", 0, 0.5)
        marks.look()
    meter.add("predict", 20, 0.5)
    marks.note()
    noted = list(read(storage, "run"))
    assert len(noted) < 180  # of an hour: in a bucket they are objects
    last = noted[-1]
    assert (last["windows"], last["total"], last["cores"]) == (25, 25, paces.cores())
    assert last["stages"]["predict"] == {"workers": 1, "windows": 20, "busy_s": 1801.0}
    assert 0 <= last["cores_busy"] <= 1
    found = pace(noted)
    assert found
    assert found.windows == 25


def test_over_the_loss_of_a_meter_marks_count_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one that began anew has is known to have come: pace, metrics and summary are of one mind."""
    clock = [START]
    monkeypatch.setattr(events, "datetime", Mock(now=lambda _: clock[0]))
    storage = open_storage(str(tmp_path / "out"))
    storage.prepare()
    meter = Told()
    marks = Marks(meter, Events(storage, "run", 1), 5, 1005, WORKERS)
    # Each is what the meter has, ten seconds after the one before; at None it is lost.
    for windows in (0, 200, 300, None, 0, 100, None, 50):
        if windows is None:
            meter.counts.counts.clear()
            meter.counts.seconds.clear()
            continue
        more = windows - meter.read().get("write", 0)
        for stage in STAGES:
            meter.add(stage, more, 0.01 * more)
        marks.note()
        clock[0] += timedelta(seconds=10)
    assert marks.done() == 455
    noted = list(read(storage, "run"))
    assert [one["stages"]["write"]["windows"] for one in noted] == [0, 200, 300, 300, 400, 450]
    assert [one["windows"] for one in noted] == [5, 205, 305, 305, 405, 455]
    found = pace(noted, seconds=30)  # from the mark before the first loss
    assert found
    assert (found.windows, found.rate, found.seconds_left) == (455, 5, 110)
    predict = found.stages[1]
    assert (predict.windows, predict.queue) == (450, 0)
    assert predict.busy == pytest.approx(1.5 / 30)
    assert predict.capacity == pytest.approx(100)
    account, story = Account(), Story()
    for one in noted:
        account.add(one)
        story.add(one)
    assert account.counters["perceiver_windows_total", ("predict",)] == 450
    assert account.counters["perceiver_busy_seconds_total", ("predict",)] == pytest.approx(4.5)
    assert story.summary("out", Record("run", "first", None, {"task": "latents"}), "job").windows == 455
