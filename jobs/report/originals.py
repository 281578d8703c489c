"""The originals of a report: what some rows were made of, found by the run's plan and decoded again."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.records import Record, open_table, read_spec
from jobs.resolve import checkpoint_of, source_of
from jobs.spec import Job, SpecError, parse_job
from perceiver_core.checkpoint import CheckpointInfo
from pipelines.decoding import Decoder
from pipelines.meter import Progress
from pipelines.originals import windows_again
from pipelines.quality import Picked
from pipelines.storage import Storage
from pipelines.tiling import tiles_of


class Originals:
    """What went in, of the rows that were picked."""

    def __init__(self, job: Job, checkpoint: CheckpointInfo, decoder: Decoder, spans: pa.Table) -> None:
        self._job, self._config, self._decoder = job, checkpoint.config, decoder
        self._source = source_of(job, checkpoint)
        self._spans: dict[str, list[dict[str, Any]]] = {}
        for span in spans.to_pylist():
            self._spans.setdefault(span["item_id"], []).append(span)

    @property
    def columns(self) -> pa.Schema:
        """The windows' columns."""
        return self._job.options.input_schema(self._config)

    def span(self, picked: Picked) -> dict[str, Any]:
        """The plan's row that holds the window; LookupError if none does."""
        spans = self._spans.get(picked.item_id, [])
        probed = [one for one in spans if one["info"]]
        for one in (
            probed or spans
        ):  # what was not probed is one span, with all windows that there turn out to be
            if not probed or one["first"] <= (picked.window or 0) < one["stop"]:
                return one
        raise LookupError("the run's plan doesn't have it")

    def stretch(self, picked: Picked) -> tuple[int, int]:
        """Which of its item's windows the run's plan has, around the one that was picked."""
        span = self.span(picked)
        first, stop = span["first"], span["stop"]
        for one in self._spans[picked.item_id]:  # in order
            if one["first"] == stop:
                stop = one["stop"]
        for one in reversed(self._spans[picked.item_id]):
            if one["stop"] == first:
                first = one["first"]
        return first, stop

    def parts(self, picked: Picked, first: int, stop: int) -> list[str]:
        """The parts that hold these windows of its item; of a table whose parts are shards."""
        stem, _, rest = picked.part.rpartition("-")
        format = rest.partition(".")[2]
        shards = [
            one["shard"] for one in self._spans[picked.item_id] if one["first"] < stop and one["stop"] > first
        ]
        return [f"{stem}-{shard:08d}.{format}" for shard in sorted({*shards})]

    def windows(self, picked: Picked, first: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Some windows of its item. Raises LookupError, and whatever a stranger's file does."""
        yield from windows_again(self.span(picked), first, stop, self._source, self._decoder)

    def window(self, picked: Picked) -> pa.RecordBatch:
        """The one that was picked."""
        span, wanted = self.span(picked), picked.window
        first, stop = (
            (wanted, wanted + 1) if span["info"] and wanted is not None else (span["first"], span["stop"])
        )
        for window in windows_again(span, first, stop, self._source, self._decoder):
            if wanted is None or "window" not in window.schema.names or window["window"][0].as_py() == wanted:
                return window
        raise LookupError(f"it has no window {wanted} any more")

    def tiles(self, frame: tuple[int, int]) -> int:
        """How many tiles a frame is cut into."""
        size = self.columns.field("video").type.shape
        return len(tiles_of(frame, (size[1], size[2]), getattr(self._job.options, "tile_overlap", 0)))

    def frame_size(self, flow: tuple[int, int]) -> tuple[int, int]:
        """How large the frames are that flow of this size was made of."""
        if getattr(self._job.options, "fit", "") == "resize":
            height, width = self._config.train_size
            return height, width
        return flow


@contextmanager
def originals(
    storage: Storage, record: Record, items: Collection[str], progress: Progress
) -> Iterator[Originals]:
    """The originals of these items. Raises SpecError where checkpoint or input can't be read any more."""
    job = parse_job(read_spec(storage, record), f"The job of run {record.run_id}")
    checkpoint = checkpoint_of(job, progress)
    if checkpoint.digest != record.fingerprint["checkpoint"]:
        raise SpecError(
            f"model.checkpoint: {job.model.checkpoint} has other weights or another config than it had."
        )
    decoder = Decoder(job.options, checkpoint.config, job.limits)
    try:
        yield Originals(job, checkpoint, decoder, _spans(storage, record, items))
    finally:
        decoder.close()


def _spans(storage: Storage, record: Record, items: Collection[str]) -> pa.Table:
    """The plan's rows of these items, read a batch at a time."""
    wanted = pa.array([*items], pa.string())
    with open_table(storage, record, "plan") as file:
        plan = pq.ParquetFile(file)
        found = [batch.filter(pc.is_in(batch["item_id"], wanted)) for batch in plan.iter_batches()]
        return pa.Table.from_batches(found, plan.schema_arrow)
