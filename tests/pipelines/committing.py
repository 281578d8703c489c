"""What jobs.attempt does around the stages, for tests of the pipeline alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from pipelines.commits import Commits
from pipelines.manifest import Manifest
from pipelines.meter import Progress
from pipelines.plan import count_shards
from pipelines.publish import finish
from pipelines.sink import Sink
from pipelines.storage import Storage, open_storage
from pipelines.supersede import Carried, nothing
from pipelines.tensors import Format


class NoProgress:
    """Shows nothing to nobody."""

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        return

    def total(self, total: int) -> None:
        return

    def at(self, done: int) -> None:
        return

    def say(self, text: str) -> None:
        return

    def give_up(self, why: str) -> None:
        raise AssertionError(why)


def prepared(out: Path | str) -> Storage:
    """A local output's storage, ready to be written to."""
    storage = open_storage(str(out))
    storage.prepare()
    return storage


def ended(
    plan: pa.Table,
    sink: Sink,
    task: Any = SimpleNamespace(assembly=None),  # noqa: B008
    format: Format | None = None,
    workers: int = 2,
    progress: Progress = NoProgress(),  # noqa: B008
    carried: Carried | None = None,
) -> Manifest:
    """Close the run of a plan whose parts are all there."""
    commits = Commits(sink, count_shards(plan))
    return finish(
        plan, sink, task, format or sink.format, workers, progress, commits, carried or nothing(None)
    )
