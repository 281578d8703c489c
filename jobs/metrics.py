"""Metrics: what an attempt's events come to, exported by Ray to Prometheus from the run's own process.

The run's process hears of everything anyway, so workers and the meter count nothing twice, and a run's metrics, its
events and its summary are one account. Ray puts `ray_` before each name, and labels of its own beside these.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.local import metrics_address
from jobs.pace import STAGES, moved, seconds_between, share_busy
from jobs.store import state_folder

#: Of every series. `job` alone is Prometheus' own word, for what it scrapes.
COMMON = ("run_id", "job_name", "task")


@dataclass(frozen=True)
class Metric:
    """A metric, as the README repeats it. No tag has more values than there are stages or classes of errors."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    tags: tuple[str, ...]  #: beside COMMON
    meaning: str


METRICS = (
    Metric(
        "perceiver_windows_total", "counter", "windows", ("stage",),
        "windows that a stage has done; those of a shard that is done again count again",
    ),
    Metric(
        "perceiver_busy_seconds_total", "counter", "seconds", ("stage",),
        "how long a stage's workers have worked, all together",
    ),
    Metric(
        "perceiver_decoded_bytes_total", "counter", "bytes", (),
        "windows of committed shards, as the model gets them",
    ),
    Metric(
        "perceiver_written_bytes_total", "counter", "bytes", (),
        "rows of committed shards, in memory: files are compressed",
    ),
    Metric("perceiver_written_rows_total", "counter", "rows", (), "rows of committed shards"),
    Metric("perceiver_shards_committed_total", "counter", "shards", (), "parts that are there for good"),
    Metric(
        "perceiver_quarantined_rows_total", "counter", "rows", ("error",),
        "rows of the quarantine, by class of error",
    ),
    Metric(
        "perceiver_retries_total", "counter", "retries", ("stage", "error"),
        "times that storage failed in passing and was asked again, by class of error",
    ),
    Metric(
        "perceiver_oom_halvings_total", "counter", "halvings", (),
        "times that a device had no memory left and a shard's batch was halved",
    ),
    Metric(
        "perceiver_workers_replaced_total", "counter", "workers", ("stage",),
        "workers that were sick, and ended for another one",
    ),
    Metric("perceiver_workers", "gauge", "workers", ("stage",), "workers that a stage is given"),
    Metric("perceiver_windows_remaining", "gauge", "windows", (), "windows that the model has yet to do"),
    Metric(
        "perceiver_device_busy_ratio", "gauge", "0 to 1", (),
        "the share of predict's workers' time in which they worked, between the last two marks of progress",
    ),
)  # fmt: skip
_BY_NAME = {metric.name: metric for metric in METRICS}

Series = tuple[str, tuple[str, ...]]  #: a metric's name, and the values of its tags


class Account:
    """What an attempt's events come to: counters since it began, and gauges as they are."""

    def __init__(self) -> None:
        self.counters: dict[Series, float] = {}
        self.gauges: dict[Series, float] = {}
        self._mark: Mapping[str, Any] | None = None

    def add(self, event: Mapping[str, Any]) -> None:
        """The next event of the attempt."""
        kind = event["event"]
        if kind == "shard_committed":
            self._shard(event)
        elif kind == "progress":
            self._progress(event)
        elif kind == "retrying":
            self._count("perceiver_retries_total", 1, event["stage"], event["error"])
        elif kind == "oom_halved":
            self._count("perceiver_oom_halvings_total", 1)
        elif kind == "worker_replaced":
            self._count("perceiver_workers_replaced_total", 1, event["stage"])

    def _shard(self, event: Mapping[str, Any]) -> None:
        notes = event["notes"]
        self._count("perceiver_shards_committed_total", 1)
        self._count("perceiver_written_rows_total", event["rows"])
        self._count("perceiver_written_bytes_total", notes.get("rows_bytes", 0))
        self._count("perceiver_decoded_bytes_total", notes.get("decoded_bytes", 0))
        for error, rows in notes.get("errors", {}).items():
            self._count("perceiver_quarantined_rows_total", rows, error)

    def _progress(self, event: Mapping[str, Any]) -> None:
        before, self._mark = self._mark or _nothing(event), event
        for stage in STAGES:
            self._count("perceiver_windows_total", moved(before, event, stage, "windows"), stage)
            self._count("perceiver_busy_seconds_total", moved(before, event, stage, "busy_s"), stage)
            self._set("perceiver_workers", event["stages"][stage]["workers"], stage)
        self._set("perceiver_windows_remaining", event["total"] - event["windows"])
        had = event["stages"]["predict"]["workers"] * seconds_between(before["time"], event["time"])
        if (share := share_busy(moved(before, event, "predict", "busy_s"), had)) is not None:
            self._set("perceiver_device_busy_ratio", share)

    def _count(self, name: str, more: float, *tags: str) -> None:
        if more:
            self.counters[name, tags] = self.counters.get((name, tags), 0) + more

    def _set(self, name: str, value: float, *tags: str) -> None:
        self.gauges[name, tags] = value


def _nothing(mark: Mapping[str, Any]) -> dict[str, Any]:
    """A mark of the same moment, as if no stage had done anything yet."""
    return {**mark, "stages": {stage: {"windows": 0, "busy_s": 0.0} for stage in STAGES}}


class Metrics:
    """Hands an attempt's account to Ray, as its events are heard. Where that can't be, it is said, once."""

    def __init__(self, run_id: str, job_name: str, task: str, here: bool, say: Callable[[str], None]) -> None:
        """With `here`, of a Ray that is this run's own, which nobody would find by themselves."""
        self._tags = dict(zip(COMMON, (run_id, job_name, task), strict=True))
        self._here, self._say = here, say
        self._target: Path | None = None
        self._account = Account()
        self._new: deque[str] = deque()
        self._exported: dict[Series, float] = {}
        self._instruments: dict[str, Any] = {}  # Ray's; they are made once there is a Ray
        self._off = False

    def hear(self, line: str) -> None:
        """An event, as it is written."""
        if not self._off:
            self._new.append(line)

    def tick(self) -> None:
        """Hand over what is new; called now and then, beside the work, while there is a Ray."""
        if self._off or not self._new:
            return
        try:
            while self._new:
                self._account.add(json.loads(self._new.popleft()))
            if not self._instruments:
                self._begin()
            self._export()
        # Whatever it is, no run fails by its metrics: Ray's interface for them is its developers', and may change.
        except Exception as error:
            self._stop(error)

    def write(self) -> None:
        """The attempt ends: nobody looks for its metrics any more."""
        if self._target:
            try:
                self._target.unlink(missing_ok=True)
            except OSError as error:
                self._say(f"{self._target} could not be deleted: {error}")

    def _begin(self) -> None:
        from ray.util.metrics import Counter, Gauge

        kinds = {"counter": Counter, "gauge": Gauge}
        for metric in METRICS:
            made = kinds[metric.kind](metric.name, metric.meaning, (*COMMON, *metric.tags))
            self._instruments[metric.name] = made.set_default_tags(self._tags)
        if self._here:
            self._be_found()

    def _be_found(self) -> None:
        """Write where a Ray that is the run's own has its metrics, for Prometheus' file_sd_configs."""
        address = metrics_address()
        if address is None:
            return
        target = state_folder() / "metrics" / f"{self._tags['run_id']}.json"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_suffix(".new")
            draft.write_text(json.dumps([{"targets": [address]}]))
            draft.replace(target)
        except OSError as error:
            self._say(f"{target} could not be written, so Prometheus won't find this run's metrics: {error}")
        else:
            self._target = target

    def _export(self) -> None:
        for series, value in self._account.counters.items():
            if (more := value - self._exported.get(series, 0)) > 0:
                self._instruments[series[0]].inc(more, _tags(series))
                self._exported[series] = value
        for series, value in self._account.gauges.items():
            self._instruments[series[0]].set(value, _tags(series))

    def _stop(self, error: Exception) -> None:
        self._off = True
        self._new.clear()
        self._say(
            f"The run's metrics are not exported any more: {type(error).__name__}: {error}. The run goes on, and its "
            "summary.json has what they would say."
        )


def _tags(series: Series) -> dict[str, str]:
    name, values = series
    return dict(zip(_BY_NAME[name].tags, values, strict=True))
