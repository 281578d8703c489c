"""Items become shards, and the shards a plan table: fixed before the run, stored with it, the same on every resume."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.errors import ItemError
from pipelines.items import Item, open_item
from pipelines.tasks import Task

#: One row per span: the windows [first, stop) of one item that belong to one shard. An item that could not be
#: read has one span without windows and says why; Decode turns it into its quarantine row.
PLAN = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("info", pa.string()),  # what the task's probe learnt of the item, as JSON
        pa.field("error", pa.string()),  # an ItemError, as JSON
    ]
)

_PROBES_AT_ONCE = 8  # a probe waits for storage, not for a core


@dataclass(frozen=True)
class Probed:
    """An item and what its header says: how many windows it has, or why it has none."""

    item: Item
    windows: int
    info: str | None
    error: ItemError | None


def probe_items(items: Iterable[Item], task: Task, config: PerceiverConfig) -> Iterator[Probed]:
    """Read every item's header; the results come in the items' order, an unreadable item as its error."""

    def probe(item: Item) -> Probed:
        try:
            with open_item(item.uri) as file:
                windows, info = task.probe(file, config)
            return Probed(item, windows, info, None)
        # One row in, its rows or one error out: whatever a stranger's file raises.
        except Exception as error:
            return Probed(item, 0, None, ItemError.of(error, stage="probe"))

    with ThreadPoolExecutor(_PROBES_AT_ONCE) as pool:
        yield from pool.map(probe, items)


def cut_shards(probed: Iterable[Probed], shard_windows: int) -> pa.Table:
    """Cut items into shards of at most `shard_windows` windows, in order; returns the plan table.

    An item that fits into a shard is never split, one that doesn't is cut into shards of its own: every
    extra span costs a seek and its preroll. An unreadable item weighs as much as a window.
    """
    rows: list[dict[str, object]] = []
    shard, used = 0, 0
    for one in probed:
        fits = max(one.windows, 1) <= shard_windows
        if used and not (fits and used + max(one.windows, 1) <= shard_windows):
            shard, used = shard + 1, 0
        for first in range(0, max(one.windows, 1), shard_windows):
            stop = min(first + shard_windows, one.windows)
            if used + max(stop - first, 1) > shard_windows:
                shard, used = shard + 1, 0
            used += max(stop - first, 1)
            item = one.item
            rows.append(
                {
                    "shard": shard,
                    "item_id": item.item_id,
                    "version": item.version,
                    "uri": item.uri,
                    "size": item.size,
                    "first": first,
                    "stop": stop,
                    "info": one.info,
                    "error": one.error.to_json() if one.error else None,
                }
            )
        if not fits:
            shard, used = shard + 1, 0
    return pa.Table.from_pylist(rows, schema=PLAN)


def digest(plan: pa.Table) -> str:
    """A hash of the plan's content, for the run's fingerprint."""
    sha = hashlib.sha256()
    for row in plan.to_pylist():
        sha.update(json.dumps(row, sort_keys=True).encode())
    return sha.hexdigest()


def shards(plan: pa.Table) -> dict[int, pa.Table]:
    """The plan's rows by shard, each a slice without a copy (a plan's rows are in shard order)."""
    ids = plan["shard"].to_pylist()
    starts = [i for i, shard in enumerate(ids) if i == 0 or ids[i - 1] != shard]
    stops = [*starts[1:], len(ids)]
    return {ids[start]: plan.slice(start, stop - start) for start, stop in zip(starts, stops, strict=True)}


def count_windows(plan: pa.Table) -> int:
    """How many windows the plan has, over all items."""
    return sum(plan["stop"].to_pylist()) - sum(plan["first"].to_pylist())
