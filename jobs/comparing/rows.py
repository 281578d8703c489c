"""The rows that two tables share, side by side: a file of A's at a time, and of B's a batch."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.comparing.items import Pair, files_with
from jobs.comparing.sides import Table
from pipelines.storage import OutputError, Storage


def aligned(
    a: Table, b: Table, pair: Pair, keys: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """The rows of a pair of files that have the same keys, as batches of A's and of B's.

    In memory are A's file, or the pages of it that are looked at where it lies on a disk, and a batch of B's.
    """
    held = [_of_items(batch, pair.items) for batch in batches(a.storage, pair.a, columns)]
    known = pa.concat_arrays([_keys(batch, keys) for batch in held])
    _check_once(pc.count_distinct(known).as_py() == len(known), a, keys)
    edges = np.cumsum([0, *(batch.num_rows for batch in held)])
    seen = np.zeros(len(known), bool)
    for name in pair.b:
        for batch in batches(b.storage, name, columns):
            found = pc.index_in(_keys(batch, keys), value_set=known)
            rows = found.drop_null().to_numpy()
            _check_once(not seen[rows].any() and len(np.unique(rows)) == len(rows), b, keys)
            seen[rows] = True
            there = np.flatnonzero(np.asarray(found.is_valid()))
            holders = np.searchsorted(edges, rows, "right") - 1
            for holder in np.unique(holders).tolist():
                mine = holders == holder
                yield _taken(held[holder], rows[mine] - edges[holder]), _taken(batch, there[mine])


def batches(storage: Storage, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A file's rows, some of their columns, as they were written: a batch, or a row group, at a time."""
    with storage.open(name) as file:
        if name.endswith(".parquet"):
            table = pq.ParquetFile(file)
            for number in range(table.num_row_groups):
                yield from table.read_row_group(number, columns).select(columns).combine_chunks().to_batches()
            return
        schema = pa.ipc.open_file(file).schema
        fields = [schema.get_field_index(column) for column in columns]
        part = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
        for number in range(part.num_record_batches):
            yield part.get_batch(number).select(columns)


def count_rows(table: Table, items: pa.Array) -> int:
    """How many rows of a table are of these items; of files that hold others as well, the ids are read."""
    rows = 0
    for part, wanted in files_with(table.index, table.manifest.parts, items):
        if wanted is None:
            rows += part.rows
            continue
        for batch in batches(table.storage, part.path, ["item_id"]):
            rows += pc.sum(pc.is_in(batch["item_id"], value_set=wanted), min_count=0).as_py()
    return rows


def _of_items(batch: pa.RecordBatch, items: pa.Array) -> pa.RecordBatch:
    wanted = pc.is_in(batch["item_id"], value_set=items)
    return batch if pc.all(wanted).as_py() else batch.filter(wanted)


def _keys(batch: pa.RecordBatch, keys: Sequence[str]) -> pa.Array:
    """What a row is told by, as one text; a null is one, too."""
    texts = [pc.cast(batch[name], pa.string()) for name in keys]
    return pc.binary_join_element_wise(*texts, ":", null_handling="replace", null_replacement="-")


def _taken(batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """Some rows, in this order; of neighbours nothing is copied."""
    if len(rows) and (np.diff(rows) == 1).all():
        return batch.slice(rows[0], len(rows))
    return batch.take(pa.array(rows))


def _check_once(once: bool, table: Table, keys: Sequence[str]) -> None:
    if not once:
        raise OutputError(
            f"{table.storage.uri} doesn't add up: manifest {table.manifest.number} has two rows with the same "
            f"{', '.join(keys)}. Report it as a bug."
        )
