"""What a run takes over from the table before it: all but what it does again.

Parts without superseded rows stay as they are. Of the others, the rows that stay are written to a new part, so that the
manifest's files are the table, exactly; the old ones are garbage once the manifest is there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.index import INDEX, read_index, read_quarantine
from pipelines.manifest import Manifest, Part
from pipelines.sink import Sink, open_writer, schema_of
from pipelines.storage import Storage, created

#: What a run supersedes, fixed when it is planned: spans, or whole items where `first` is null.
REPLACED = pa.schema([pa.field("item_id", pa.string(), nullable=False), pa.field("first", pa.int64())])


@dataclass(frozen=True)
class Carried:
    """What stays of the table before."""

    base: int | None
    index: pa.Table
    parts: tuple[Part, ...]
    quarantine: tuple[str, ...]


def nothing(base: int | None) -> Carried:
    """Of the first run of an output, and of one that does everything again."""
    return Carried(base, INDEX.empty_table(), (), ())


def carry(base: Manifest, replaced: pa.Table, sink: Sink) -> Carried:
    """Write the parts that hold what stays beside what doesn't; those that are there stay."""
    storage = sink.storage
    index = read_index(base.index, storage)
    items = replaced.filter(pc.is_null(replaced["first"]))["item_id"].unique()
    gone = _is_replaced(index, replaced, items)
    stays = index.filter(pc.invert(gone))
    goes = index.filter(gone)
    touched = set(goes["part"].drop_null().unique().to_pylist())
    parts, renamed = [], {}
    for number, part in enumerate(base.parts):
        if part.path not in touched:
            parts.append(part)
            continue
        format = part.path.rpartition(".")[2]
        name = f"data/{sink.run_id}-kept-{number:06d}.{format}"
        rows = _rewrite(storage, part.path, name, items)
        renamed[part.path] = name
        if rows:
            parts.append(Part(name, rows))
    return Carried(
        base.number,
        stays.set_column(
            INDEX.get_field_index("part"), INDEX.field("part"), _renamed(stays["part"], renamed)
        ),
        tuple(parts),
        _quarantine(base, replaced, items, sink) if pc.count(goes["error"]).as_py() else base.quarantine,
    )


def _is_replaced(rows: pa.Table, replaced: pa.Table, items: pa.Array) -> pa.ChunkedArray:
    """Which rows of an index or of the quarantine table are superseded."""
    spans = replaced.filter(pc.is_valid(replaced["first"]))
    whole = pc.is_in(rows["item_id"], value_set=_array(items))
    return pc.or_(whole, pc.is_in(_keys(rows), value_set=_array(_keys(spans))))


def _keys(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows["item_id"], pc.cast(rows["first"], pa.string()), ":")


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.array(column.to_pylist(), pa.string())


def _rewrite(storage: Storage, old: str, new: str, items: pa.Array) -> int:
    """Create a part of the rows whose items stay, if there are any; how many."""
    wanted = _array(items)
    schema = schema_of(storage, old)
    count = 0
    with storage.draft() as draft:
        with open_writer(draft, schema, "parquet" if old.endswith(".parquet") else "arrow") as writer:
            for batch in _batches(storage, old):
                kept = batch.filter(pc.invert(pc.is_in(batch["item_id"], value_set=wanted)))
                if kept.num_rows:
                    writer.write(pa.Table.from_batches([kept]).cast(schema))
                    count += kept.num_rows
        if count:
            storage.create(new, draft)
    return count


def _batches(storage: Storage, name: str) -> Iterator[pa.RecordBatch]:
    with storage.open(name) as file:
        if name.endswith(".parquet"):
            yield from pq.ParquetFile(file).iter_batches(batch_size=1024)
        else:
            reader = pa.ipc.open_file(file)
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))


def _renamed(column: pa.ChunkedArray, names: dict[str, str]) -> pa.Array:
    if not names:
        return column
    old = column.combine_chunks().dictionary_encode()
    known = [names.get(name, name) for name in old.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(old.indices, pa.array(known, pa.string())).cast(pa.string())


def _quarantine(base: Manifest, replaced: pa.Table, items: pa.Array, sink: Sink) -> tuple[str, ...]:
    """The files of the quarantine table without what is superseded: the rest of those that had some is one file."""
    files, rest = [], []
    for name in base.quarantine:
        table = read_quarantine(sink.storage, [name])
        gone = np.asarray(_is_replaced(table, replaced, items))
        if gone.any():
            rest.append(table.filter(pa.array(~gone)))
        else:
            files.append(name)
    left = pa.concat_tables(rest) if rest else None
    if left is not None and left.num_rows:
        name = f"quarantine/{sink.run_id}-kept.parquet"
        with created(sink.storage, name) as draft:
            pq.write_table(left, draft)
        files.append(name)
    return tuple(files)


def replaced_table(items: Sequence[str], spans: Sequence[tuple[str, int]]) -> pa.Table:
    """What is superseded, as its table."""
    rows = [*((item, None) for item in items), *spans]
    return pa.table(
        [pa.array([row[i] for row in rows], REPLACED.field(i).type) for i in (0, 1)], schema=REPLACED
    )
