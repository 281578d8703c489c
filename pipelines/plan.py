"""Items become shards, and the shards a plan table: fixed before the run, stored with it, the same on every resume."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from queue import Queue
from threading import Event

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.decoding import Decoder, DecoderError
from pipelines.errors import ItemError
from pipelines.items import Item
from pipelines.sources import Reader, Source
from pipelines.transient import PATIENCE_S, UnavailableError
from pipelines.trouble import blame, once_more, persistently, retry_fields

#: One row per span: the windows [first, stop) of one item that belong to one shard. An item that could not be
#: read has one span without windows and says why; Decode turns it into its quarantine row.
PLAN = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("at", pa.string()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("info", pa.string()),  # what the task's probe learnt of the item, as JSON
        pa.field("error", pa.string()),  # an ItemError, as JSON
    ]
)

#: What the pipeline is fed with: one row per shard, its rows of the plan as structs.
FEED = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("spans", pa.list_(pa.struct(list(PLAN)))),
    ]
)

_AHEAD = 64  # probes in flight or waiting for their turn
_BLOCK = 1_000  # shards
_ROWS = 16_384  # of the plan that are Python objects at once


@dataclass(frozen=True)
class Probed:
    """An item and what its header says: how many windows it has, or why it has none."""

    item: Item
    windows: int
    info: str | None
    error: ItemError | None


def list_and_probe(
    source: Source,
    decoders: Sequence[Decoder],
    items: Iterable[Item] | None = None,
    tell: Callable[..., None] = lambda kind, **fields: None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Probed]:
    """Read every item's header, as many at once as there are decoders; in the items' order, what is bad as its error.

    Items of tasks that need no header are one window each, and not opened. What fails in passing is tried again, each
    time told as a meter is; raises UnavailableError where that doesn't help and the store is silent.
    """
    idle: Queue[Decoder] = Queue()
    stopped = Event()  # else Ctrl-C would wait for those that wait for a store
    for decoder in decoders:
        idle.put(decoder)
    reader: Reader

    def probe(item: Item) -> Probed:
        decoder, row = idle.get(), asdict(item)

        def read() -> tuple[int, str]:
            with reader.open(row) as opened:
                return decoder.probe(opened.files)

        def told(error: BaseException, wait_s: float) -> None:
            tell("retrying", **retry_fields("probe", row, error, wait_s))

        try:
            return Probed(
                item, *persistently(partial(once_more, read, told, stopped), patience_s, told, stopped), None
            )
        except (DecoderError, UnavailableError):
            raise
        # One row in, its rows or one error out: whatever a stranger's file raises.
        except Exception as error:
            return Probed(item, 0, None, blame(error, row, "probe", patience_s))
        finally:
            idle.put(decoder)

    items = source.items() if items is None else items
    if not decoders[0].probes:
        yield from (Probed(item, 1, None, None) for item in items)
        return
    with closing(source.reader()) as reader, ThreadPoolExecutor(len(decoders)) as pool:
        ahead: deque[Future[Probed]] = deque()  # bounded, however many items there are
        try:
            for item in items:
                ahead.append(pool.submit(probe, item))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BaseException:  # Ctrl-C, say: nobody waits for what is still being read
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for decoder in decoders:
                decoder.close()
            raise


def cut_shards(probed: Iterable[Probed], shard_windows: int, shard_bytes: int | None = None) -> pa.Table:
    """Cut items into shards of at most `shard_windows` windows, in order; returns the plan table.

    An item that fits into a shard is never split, one that doesn't is cut into shards of its own: every
    extra span costs a seek and its preroll. An unreadable item weighs as much as a window. With `shard_bytes`, a
    window whose size the probe tells (`window_bytes` in what it learnt) weighs as many as its part of a shard's.
    """
    batches: list[pa.RecordBatch] = []
    rows: list[tuple[object, ...]] = []
    shard, used = 0, 0
    for one in probed:
        step, weight = _most_windows(one.info, shard_windows, shard_bytes)
        fits = max(one.windows, 1) <= step
        if used and not (fits and used + max(one.windows, 1) * weight <= shard_windows):
            shard, used = shard + 1, 0
        for first in range(0, max(one.windows, 1), step):
            stop = min(first + step, one.windows)
            if used and used + max(stop - first, 1) * weight > shard_windows:
                shard, used = shard + 1, 0
            used += max(stop - first, 1) * weight
            item = one.item
            error = one.error.to_json() if one.error else None
            named = (item.item_id, item.version, item.uri, item.member, item.at, item.size)
            rows.append((shard, *named, first, stop, one.info, error))
        if not fits:
            shard, used = shard + 1, 0
        if len(rows) >= _ROWS:
            batches.append(_batch(rows))
            rows = []
    return pa.Table.from_batches([*batches, _batch(rows)], PLAN)


def _batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((),) * len(PLAN)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, PLAN, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=PLAN)


def _most_windows(info: str | None, shard_windows: int, shard_bytes: int | None) -> tuple[int, int]:
    """How many windows of this item a shard holds, and how many usual ones each of them stands for."""
    size = json.loads(info).get("window_bytes", 0) if info and shard_bytes else 0
    if not size or not shard_bytes:
        return shard_windows, 1
    return max(1, min(shard_windows, shard_bytes // size)), -(-shard_windows * size // shard_bytes)


def digest(plan: pa.Table) -> str:
    """A hash of the plan's content, for the run's fingerprint."""
    sha = hashlib.sha256()
    for batch in plan.to_batches(max_chunksize=_ROWS):
        for row in batch.to_pylist():
            sha.update(json.dumps(row, sort_keys=True).encode())
    return sha.hexdigest()


def shards(plan: pa.Table) -> dict[int, pa.Table]:
    """The plan's rows by shard, each a slice without a copy (a plan's rows are in shard order)."""
    ids = plan["shard"].to_numpy()
    starts = np.flatnonzero(np.diff(ids, prepend=-1)).tolist()
    stops = [*starts[1:], len(ids)][: len(starts)]
    return {
        int(ids[start]): plan.slice(start, stop - start) for start, stop in zip(starts, stops, strict=True)
    }


def by_shard(plan: pa.Table, done: npt.NDArray[np.bool_] | None = None) -> pa.Table:
    """The plan as the pipeline is fed with it, under FEED, less the shards that are `done`, by number.

    Its chunks are slices of the plan's where these are large enough: strings are copied by the filter, if at all.
    """
    ids = plan["shard"].to_numpy()
    if done is not None and done.any():
        plan, ids = plan.filter(pa.array(~done[ids])), ids[~done[ids]]
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    edges = np.append(starts, len(ids))
    batches = []
    for at in range(0, len(starts), _BLOCK):  # in one piece, the strings of a large plan are more than 2 GB
        cuts = edges[at : at + _BLOCK + 1]
        rows = plan.slice(cuts[0], cuts[-1] - cuts[0]).combine_chunks()
        columns = [column.chunk(0) for column in rows.columns]
        spans = pa.ListArray.from_arrays(
            pa.array(cuts - cuts[0], pa.int32()), pa.StructArray.from_arrays(columns, fields=list(PLAN))
        )
        batches.append(
            pa.RecordBatch.from_arrays([pa.array(ids[starts[at : at + _BLOCK]]), spans], schema=FEED)
        )
    return pa.Table.from_batches(batches, FEED)


def spans_of(shard: pa.Table) -> pa.Table:
    """The plan's rows in a row of by_shard."""
    return pa.Table.from_batches(
        [pa.RecordBatch.from_struct_array(spans.flatten()) for spans in shard["spans"].chunks], PLAN
    )


def count_shards(plan: pa.Table) -> int:
    """How many shards the plan has: they are numbered from 0, in order."""
    return int(plan["shard"][-1].as_py()) + 1 if plan.num_rows else 0


def count_windows(plan: pa.Table) -> int:
    """How many windows the plan has, over all items."""
    return int(pc.sum(plan["stop"], min_count=0).as_py() - pc.sum(plan["first"], min_count=0).as_py())
