"""A run's commits as the driver knows them: a snapshot of them beside the parts, and what was listed after it.

Parts are the truth. The snapshot spares a resume the listing of what it holds, and the end of a run the opening of
every part; it is made of what parts say of themselves, now and then, and may be behind.
"""

import io
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import commit_points
from pipelines.ahead import in_order
from pipelines.sink import COMMIT, Commit, Sink, as_table, parts, read_commits
from pipelines.storage import OutputError

_EVERY_S = 10.0
_SHARE = 50  # a snapshot is written when at least so many times its own seconds have passed: 2% of the run


def _name(sink: Sink) -> str:
    return f"runs/{sink.run_id}/commits.parquet"


class Commits:
    """All commits of a run so far; those that are made meanwhile are added as they come."""

    def __init__(self, sink: Sink, shards: int) -> None:
        self.sink = sink
        self.done: npt.NDArray[np.bool_] = np.zeros(shards, bool)  # by shard
        self._tables = [_snapshot(sink)]
        self._new: list[Commit] = []
        self._saved = self._tables[0].num_rows
        known = self._tables[0]["shard"].to_numpy()
        self.done[known] = True
        # Shards are committed nearly in order, so what is to be listed begins where the snapshot has its first gap.
        gap = int(np.argmin(self.done)) if not self.done.all() else shards
        after = sink.part(gap - 1) if gap else ""
        self.unread = [shard for shard, _ in parts(sink, after) if not self.done[shard]]
        self.done[self.unread] = True
        self._written, self._took = time.monotonic(), 0.0

    @property
    def count(self) -> int:
        return int(self.done.sum())

    def add(self, commit: Commit) -> None:
        """One more; now and then, all are written down."""
        self.done[commit.shard] = True
        self._new.append(commit)
        if time.monotonic() - self._written > max(_EVERY_S, _SHARE * self._took):
            self.save()

    def save(self) -> None:
        """Write the snapshot, if there is something new."""
        table = self._table()
        if table.num_rows == self._saved:
            return
        began = time.monotonic()
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd")
        self.sink.storage.write(_name(self.sink), file.getvalue())
        commit_points.passing("snapshot written")
        self._saved = table.num_rows
        self._written, self._took = time.monotonic(), time.monotonic() - began

    def read(self) -> Iterator[Commit]:
        """Open the parts that were listed and are not in the snapshot; each as it is read."""
        names = [self.sink.part(shard) for shard in self.unread]
        for found in in_order(lambda name: read_commits(self.sink.storage, name), names):
            self._new += found
            yield from found
        self.unread = []

    def quarantined(self) -> Iterator[Commit]:
        """Those with rows in quarantine."""
        list(self.read())
        table = self._table()
        for row in table.filter(pc.is_valid(table["quarantine"])).to_pylist():
            yield Commit(**row)

    def all(self) -> pa.Table:
        """All of them by shard, checked against a listing of the parts; OutputError names those that are gone."""
        list(self.read())
        table = self._table()
        there = np.zeros(len(self.done), bool)
        there[[shard for shard, _ in parts(self.sink)]] = True
        gone = [shard for shard in table["shard"].to_pylist() if not there[shard]]
        if gone:
            forget(self.sink)
            raise OutputError(
                f"{len(gone)} parts that were committed are gone from {self.sink.storage.where(self.sink.folder)}: "
                f"{', '.join(self.sink.part(shard).rpartition('/')[2] for shard in gone[:10])}. Run the job again to "
                "do them again, and find out who deletes there."
            )
        self.save()
        return table

    def _table(self) -> pa.Table:
        if self._new:
            self._tables.append(as_table(self._new))
            self._new = []
        whole = pa.concat_tables(self._tables)
        if len(self._tables) > 1:
            # A shard may be both in the snapshot's gap and in what was listed or told after it.
            _, first = np.unique(whole["shard"].to_numpy(), return_index=True)
            whole = whole.take(first).combine_chunks()
            self._tables = [whole]
        return whole


def forget(sink: Sink) -> None:
    """Delete the snapshot, of a run whose parts are gone: the next attempt lists what there is."""
    sink.storage.delete(_name(sink))


def _snapshot(sink: Sink) -> pa.Table:
    try:
        data = sink.storage.read(_name(sink))
    except FileNotFoundError:
        return COMMIT.empty_table()
    return pq.read_table(io.BytesIO(data), schema=COMMIT)
