"""The index of a table: which part holds an item's windows now, or that they are in quarantine.

One row per span of the whole table, whichever run committed it: what retries, changed inputs and schedules go by.
"""

import io
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ahead import in_order
from pipelines.errors import QUARANTINE
from pipelines.sink import Sink
from pipelines.storage import OutputError, Storage, created

INDEX = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),  # that did it
        pa.field("shard", pa.int32(), nullable=False),  # of that run
        pa.field("part", pa.string()),  # relative to the output; null: it is in quarantine
        pa.field("error", pa.string()),  # its class there
    ]
)


def index_of(plan: pa.Table, sink: Sink, parts: pa.Array, commits: pa.Table) -> pa.Table:
    """The index of one run: its plan, with the part of every shard (`parts`, by shard) and what is in quarantine."""
    errors = _errors(sink.storage, commits)
    shard = plan["shard"].to_numpy()
    suspects = np.flatnonzero(
        np.isin(shard, commits.filter(pc.is_valid(commits["quarantine"]))["shard"].to_numpy())
    )
    kinds: list[str | None] = [None] * len(suspects)
    for place, row in enumerate(plan.take(suspects).select(["item_id", "first"]).to_pylist()):
        kinds[place] = errors.get((row["item_id"], row["first"]))
    error = np.full(len(shard), None, object)
    error[suspects] = kinds
    column = pa.array(error, pa.string())
    held = pc.if_else(pc.is_valid(column), pa.scalar(None, pa.string()), parts.take(pa.array(shard)))
    columns = {name: plan[name] for name in ("item_id", "version", "uri", "member", "first", "stop", "shard")}
    columns |= {"run_id": pa.repeat(sink.run_id, len(shard)), "part": held, "error": column}
    return pa.table([columns[field.name] for field in INDEX], schema=INDEX)


def write_index(name: str, index: pa.Table, storage: Storage) -> None:
    """Keep an index with its run."""
    with created(storage, name) as draft:
        pq.write_table(index, draft, compression="zstd")


def read_index(name: str, storage: Storage, columns: list[str] | None = None) -> pa.Table:
    """An index, or some of its columns."""
    return pq.read_table(io.BytesIO(storage.read(name)), columns=columns)


def _errors(storage: Storage, commits: pa.Table) -> dict[tuple[str, int], str]:
    """The class of every span that is in quarantine, by item and first window."""
    names = commits["quarantine"].drop_null().unique().to_pylist()
    rows = read_quarantine(storage, names).select(["item_id", "first", "error"]).to_pylist()
    expected = pc.sum(commits["quarantined"], min_count=0).as_py()
    if len(rows) != expected:
        raise OutputError(
            f"The output doesn't add up: its parts say that {expected} spans are in quarantine, and their "
            f"{len(names)} quarantine files hold {len(rows)}. Report it as a bug."
        )
    return {(row["item_id"], row["first"]): row["error"] for row in rows}


def read_quarantine(storage: Storage, names: Iterable[str]) -> pa.Table:
    """The rows of some files of the quarantine table."""

    def read(name: str) -> pa.Table:
        with storage.open(name) as file:
            return pq.read_table(file)

    return pa.concat_tables([QUARANTINE.empty_table(), *in_order(read, names)])
