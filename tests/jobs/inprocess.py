"""Runs as jobs.attempt makes them, but for Ray: the stages are called one after the other, in this process."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pytest

from jobs import attempt, lease
from jobs.resolve import Resolved
from pipelines import commit_points, stages
from pipelines.decode_child import packed
from pipelines.meter import Meter
from pipelines.plan import spans_of
from pipelines.sink import Commit, Sink, write_part
from pipelines.stages import Decode, Predict


class NearDecoder:
    """A Decoder without a process of its own: for input that is known to be harmless."""

    def __init__(self, task: Any, config: Any, limits: Any) -> None:
        self.task, self.config, self.limits = task, config, limits

    def windows(
        self, files: Mapping[str, BinaryIO], info: str | None, first: int, stop: int
    ) -> Iterator[pa.RecordBatch]:
        schema = self.task.input_schema(self.config)
        for window in self.task.preprocess(files, info, first, stop, self.config, self.limits):
            yield packed(window, schema)


_predicts: dict[Any, Predict] = {}


def execute(
    resolved: Resolved, missing: pa.Table, sink: Sink, take: Callable[[Commit], bool], *_: Any
) -> None:
    """What jobs.attempt.execute does."""
    job = resolved.job
    known = (job.options, resolved.model)
    if known not in _predicts:
        _predicts[known] = Predict(job.options, resolved.model, "cpu", 1, resolved.source.kept, Meter())
    decode = Decode(job.options, resolved.config, resolved.source, job.limits)
    with closing(decode.reader):
        for row in range(missing.num_rows):
            block = _predicts[known](decode.shard(spans_of(missing.slice(row, 1))))
            for commit in write_part(block, sink).to_pylist():
                if not take(Commit(**commit)):
                    return


class Killed(BaseException):
    """What no `except Exception` stops."""


class Kill:
    """Kills at the n-th commit point that is passed; from there on nothing is created."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self.count = 0
        self.passed: list[str] = []
        monkeypatch.setattr(commit_points, "passing", self.passing)

    def passing(self, point: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        assert point in commit_points.POINTS
        self.count += 1
        self.passed.append(point)
        if self.at is not None and self.count >= self.at:
            raise Killed(point)

    def arm(self, at: int | None) -> None:
        self.at, self.count, self.passed = at, 0, []

    @contextmanager
    def after(self, points: int) -> Iterator[None]:
        """What the block runs is killed there: at 60, a run over some texts has committed some of its shards."""
        self.arm(points)
        with pytest.raises(Killed):
            yield
        self.arm(None)


def without_ray(monkeypatch: pytest.MonkeyPatch) -> Kill:
    """Have jobs.attempt run here, and be killed at will."""
    monkeypatch.setattr(attempt, "execute", execute)
    monkeypatch.setattr(stages, "Decoder", NearDecoder)
    # Who was killed here has this process's number, and it lives.
    monkeypatch.setattr(lease.Holder, "known_dead", lambda _: True)
    return Kill(monkeypatch)
