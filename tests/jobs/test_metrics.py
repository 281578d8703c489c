"""Metrics: what an attempt's events come to, and what is handed to Ray. Ray itself: tests/e2e/test_metrics.py."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import ray.util.metrics
from hypothesis import given
from hypothesis import strategies as st

from jobs import metrics
from jobs.events import KINDS, Events, recorded
from jobs.metrics import COMMON, METRICS, Account, Metric, Metrics
from jobs.pace import STAGES
from jobs.records import Record
from jobs.summary import Story
from pipelines.storage import Storage, open_storage

README = Path(__file__).parent.parent.parent / "README.md"
BEGAN = datetime(2026, 11, 26, tzinfo=UTC)
WORKERS = {"decode": 3, "predict": 2, "write": 1}


def event(kind: str, seconds: float = 0.0, **fields: Any) -> dict[str, Any]:
    assert fields.keys() <= {*KINDS[kind][1]}
    time = (BEGAN + timedelta(seconds=seconds)).isoformat()
    return {"event": kind, "time": time, "attempt": 1, **fields}


def mark(seconds: float, windows: tuple[int, int, int], busy_s: float, before: int = 0) -> dict[str, Any]:
    stages = {
        stage: {"workers": WORKERS[stage], "windows": done, "busy_s": busy_s}
        for stage, done in zip(STAGES, windows, strict=True)
    }
    fields = {"cores": 2, "cores_busy": 0.5, "memory": 1}
    return event("progress", seconds, windows=before + windows[1], total=100, stages=stages, **fields)


def shard(number: int, rows: int, errors: Mapping[str, int], size: int) -> dict[str, Any]:
    notes: dict[str, Any] = {"decoded_bytes": size, "rows_bytes": 2 * size}
    notes |= {"errors": errors} if errors else {}
    bad = sum(errors.values())
    return event("shard_committed", shard=number, rows=rows, quarantined=bad, notes=notes)


def account(*events: Mapping[str, Any]) -> Account:
    made = Account()
    for one in events:
        made.add(one)
    return made


def totals(made: Account, name: str, tag: str | None = None) -> Counter[str]:
    """A counter's values by one of its tags."""
    [metric] = [metric for metric in METRICS if metric.name == name]
    found: Counter[str] = Counter()
    for (called, tags), value in made.counters.items():
        if called == name:
            found[dict(zip(metric.tags, tags, strict=True))[tag] if tag else ""] += value  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_are_as_prometheus_would_have_them(metric: Metric) -> None:
    assert re.fullmatch(r"perceiver(_[a-z]+)+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    for unit in ("seconds", "bytes"):  # base units, in the name
        assert (metric.unit == unit) == (f"_{unit}" in metric.name)
    assert {*metric.tags} <= {"stage", "error"}  # no item, no URI: as many series as there are classes
    assert "job" not in COMMON  # Prometheus would rename it
    assert not metric.meaning.endswith(".")


def test_the_readme_has_every_metric() -> None:
    text = README.read_text()
    for metric in METRICS:
        tags = ", ".join(f"`{tag}`" for tag in metric.tags)
        line = f"| `ray_{metric.name}` | {metric.kind} | {metric.unit} | {tags} | {metric.meaning} |"
        assert re.sub(r"\s+", " ", line) in text, line
    assert len({metric.name for metric in METRICS}) == len(METRICS) == text.count("| `ray_perceiver_")


def test_counters_are_what_has_come_from_mark_to_mark() -> None:
    # The first one has all that was done until then.
    made = account(mark(5, (4, 2, 1), 1.0), mark(10, (40, 20, 10), 8.0), mark(20, (40, 20, 10), 9.5))
    assert totals(made, "perceiver_windows_total", "stage") == {"decode": 40, "predict": 20, "write": 10}
    assert totals(made, "perceiver_busy_seconds_total", "stage") == dict.fromkeys(STAGES, 9.5)


def test_only_what_this_attempt_did_counts() -> None:
    started = event("attempt_started", shards=9, done=4, windows=100, items=50)
    made = account(started, mark(0, (0, 0, 0), 0.0, before=44), mark(10, (30, 20, 10), 1.0, before=44))
    assert totals(made, "perceiver_windows_total", "stage")["predict"] == 20
    assert "perceiver_shards_committed_total" not in {name for name, _ in made.counters}
    assert made.gauges["perceiver_windows_remaining", ()] == 100 - 64


def test_how_busy_the_device_is() -> None:
    assert ("perceiver_device_busy_ratio", ()) not in account(mark(0, (0, 0, 0), 0.0)).gauges
    marks = [mark(0, (0, 0, 0), 0.0), mark(10, (9, 9, 9), 15.0), mark(20, (9, 9, 9), 20.0)]
    assert account(*marks[:2]).gauges["perceiver_device_busy_ratio", ()] == 15 / (2 * 10)
    assert account(*marks).gauges["perceiver_device_busy_ratio", ()] == 5 / (2 * 10)
    # A clock that was set back says nothing; one flush may tell more seconds than have passed.
    set_back = account(mark(20, (0, 0, 0), 0.0), marks[1])
    assert set_back.gauges.keys().isdisjoint({("perceiver_device_busy_ratio", ())})
    assert account(marks[0], mark(1, (9, 9, 9), 15.0)).gauges["perceiver_device_busy_ratio", ()] == 1.0
    assert account(*marks).gauges["perceiver_workers", ("decode",)] == 3


CLASS = st.sampled_from(["TextError", "DecodeTimeout", "Throttled"])
STAGE = st.sampled_from(STAGES)
EVENT = st.one_of(
    st.builds(
        shard,
        st.integers(0, 99),
        st.integers(0, 9),
        st.dictionaries(CLASS, st.integers(1, 9), max_size=2),
        st.integers(0, 10**9),
    ),
    st.builds(
        lambda stage, error: event("retrying", stage=stage, uri="u", error=error, message="m", wait_s=1),
        STAGE,
        CLASS,
    ),
    st.builds(lambda: event("oom_halved", shard=1, batch=1, chunk=1)),
    st.builds(lambda stage: event("worker_replaced", stage=stage, shard=1, why="w"), STAGE),
    st.builds(lambda: event("nodes_changed", nodes=1, workers=WORKERS)),
)


@given(events=st.lists(EVENT, max_size=30), steps=st.lists(st.integers(0, 9), max_size=5))
def test_metrics_and_summary_are_one_account(events: list[dict[str, Any]], steps: list[int]) -> None:
    done, marks = 0, []
    for place, step in enumerate([0, *steps]):
        done += step
        marks.append(mark(10.0 * place, (done, done, done), done / 8))
    happened = [
        event("attempt_started", device="cpu", shards=9, done=0, windows=100, items=9),
        *events,
        *marks,
    ]
    made, story = account(*happened), Story()
    for one in happened:
        story.add(one)
    summary = story.summary("out", Record("run1", "first", None, {"task": "latents"}), "job")
    counted = {
        "shards_committed": summary.shards_done,
        "written_rows": summary.rows,
        "written_bytes": summary.rows_bytes,
        "decoded_bytes": summary.decoded_bytes,
        "oom_halvings": summary.oom_halvings,
        "workers_replaced": summary.workers_replaced,
        "quarantined_rows": summary.quarantined,
    }
    for name, value in counted.items():
        assert totals(made, f"perceiver_{name}_total").total() == value, name
    assert totals(made, "perceiver_quarantined_rows_total", "error") == summary.errors
    assert totals(made, "perceiver_retries_total", "error") == summary.retries
    for stage, its in summary.stages.items():
        assert totals(made, "perceiver_windows_total", "stage")[stage] == its.windows
        assert totals(made, "perceiver_busy_seconds_total", "stage")[stage] == pytest.approx(
            its.busy_s, abs=1e-3
        )


class Exported:
    """Stands where Ray's metrics are, and is as strict about tags; keeps what it is given."""

    values: dict[tuple[str, ...], float]

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.values, self.calls, self.fails = {}, 0, False
        own = self

        class Instrument(ray.util.metrics.Metric):
            def _record(self, value: float, tags: dict[str, str] | None = None) -> None:
                if own.fails:
                    raise RuntimeError("no agent")
                every = self._get_final_tags(tags)
                self._validate_tags(every)
                assert every.keys() == {*self._tag_keys}
                key = (self._name, *(every[tag] for tag in self._tag_keys))
                own.calls += 1
                own.values[key] = value + (own.values.get(key, 0) if isinstance(self, Counts) else 0)

        class Counts(Instrument):
            inc = ray.util.metrics.Counter.inc

        class Level(Instrument):
            set = ray.util.metrics.Gauge.set

        monkeypatch.setattr(ray.util.metrics, "Counter", Counts)
        monkeypatch.setattr(ray.util.metrics, "Gauge", Level)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    return Exported(monkeypatch)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state folder, and a Ray of the run's own."""
    monkeypatch.setenv("PERCEIVER_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(metrics, "metrics_address", lambda: "127.0.0.1:4321")
    return tmp_path / "state"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "out"))
    storage.prepare()
    return storage


def commit(events: Events, rows: int) -> None:
    notes = {"decoded_bytes": 1000, "rows_bytes": 10, "errors": {"TextError": 2}}
    events.note("shard_committed", shard=0, rows=rows, quarantined=2, notes=notes)


def test_ray_is_given_what_is_new(exported: Exported, storage: Storage) -> None:
    said: list[str] = []
    events = Events(storage, "run1", 1, Metrics("run1", "nightly", "latents", False, said.append))
    events.look()
    assert not exported.values  # and nothing is made of Ray before there is something to say
    commit(events, 5)
    events.look()
    mine = ("run1", "nightly", "latents")
    assert exported.values["perceiver_written_rows_total", *mine] == 5
    assert exported.values["perceiver_quarantined_rows_total", *mine, "TextError"] == 2
    commit(events, 3)
    events.look()
    assert exported.values["perceiver_written_rows_total", *mine] == 8
    assert exported.values["perceiver_shards_committed_total", *mine] == 2
    calls = exported.calls
    events.look()
    assert exported.calls == calls
    assert not said


def test_no_run_fails_by_its_metrics(exported: Exported, storage: Storage) -> None:
    said: list[str] = []
    events = Events(storage, "run1", 1, Metrics("run1", "nightly", "latents", False, said.append))
    exported.fails = True
    with recorded(events):
        for rows in (5, 3):
            commit(events, rows)
            events.look()
    assert said == [
        "The run's metrics are not exported any more: RuntimeError: no agent. The run goes on, and its summary.json "
        "has what they would say."
    ]


def test_prometheus_finds_a_run_that_has_a_ray_of_its_own(
    exported: Exported, storage: Storage, state: Path
) -> None:
    said: list[str] = []
    events = Events(storage, "run1", 1, Metrics("run1", "nightly", "latents", True, said.append))
    with recorded(events):
        assert not state.exists()
        commit(events, 5)
        events.look()
        assert json.loads((state / "metrics/run1.json").read_text()) == [{"targets": ["127.0.0.1:4321"]}]
        assert [path.name for path in (state / "metrics").iterdir()] == ["run1.json"]
    assert not list((state / "metrics").iterdir())
    assert not said


def test_where_prometheus_cannot_be_told_metrics_are_exported_all_the_same(
    exported: Exported, storage: Storage, state: Path
) -> None:
    said: list[str] = []
    state.write_text("a file where the folder would be")
    events = Events(storage, "run1", 1, Metrics("run1", "nightly", "latents", True, said.append))
    with recorded(events):
        commit(events, 5)
        events.look()
    assert exported.values["perceiver_written_rows_total", "run1", "nightly", "latents"] == 5
    [line] = said
    assert line.startswith(
        f"{state}/metrics/run1.json could not be written, so Prometheus won't find this run's "
    )


def test_without_an_address_there_is_nothing_to_find(
    exported: Exported, storage: Storage, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "metrics_address", lambda: None)
    events = Events(storage, "run1", 1, Metrics("run1", "nightly", "latents", True, pytest.fail))
    with recorded(events):
        commit(events, 5)
        events.look()
        assert not state.exists()
