"""Outputs whose rows are given: parts, manifest, index and record as a run leaves them, without a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.records import Record, write_record
from jobs.spec import parse_job
from pipelines.errors import ItemError
from pipelines.items import Item
from pipelines.listing import LISTING, digest_of
from pipelines.plan import Probed, cut_shards, shards
from pipelines.sink import Sink, write_part
from pipelines.stages import block_schema
from pipelines.supersede import replaced_table
from pipelines.tensors import Format, is_tensor, pack
from tests.pipelines.committing import ended, prepared


@dataclass(frozen=True)
class Given:
    """An item: its rows, each by column, or the class of the error that it has instead."""

    name: str
    rows: Sequence[Mapping[str, Any]] = ()
    error: str = ""
    version: str = "v1"
    member: str | None = None
    probed: bool = True  #: else it is one span, however many rows it has


@dataclass(frozen=True)
class Output:
    """An output that `write` fills."""

    folder: Path
    columns: pa.Schema
    task: str = "latents"
    format: Format = "arrow"
    shard_windows: int = 2
    run_id: str = "run0"
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> str:
        return str(self.folder)

    def write(self, *items: Given) -> str:
        """Write the output; where it is."""
        listed = [Item(f"id-{one.name}", f"/in/{one.name}", one.version, 9, one.member) for one in items]
        errors = [ItemError("decode", one.error, "It is bad.", "d1") if one.error else None for one in items]
        counts = [0 if one.error else len(one.rows) if one.probed else 1 for one in items]
        plan = cut_shards(map(Probed, listed, counts, [None] * len(items), errors), self.shard_windows)
        given = {f"id-{one.name}": one for one in items}
        storage = prepared(self.folder)
        sink = Sink(storage, self.run_id, 1, self.format, self.columns, "{}")
        for spans in shards(plan).values():
            write_part(self._block(spans, given), sink)
        rows = [(one.item_id, one.uri, one.version, one.size) for one in listed]
        listing = pa.Table.from_pylist([dict(zip(LISTING.names, row, strict=True)) for row in rows], LISTING)
        what = {
            "task": self.task, "contents": {"keep": []}, "dtype": "float32", "input": digest_of(listing),
        } | self.fingerprint  # fmt: skip
        document = {
            "name": "given", "task": self.task, "model": {"checkpoint": "demo"}, "input": {"uri": "/in"},
            "output": {"uri": self.out},
        }  # fmt: skip
        record = Record(self.run_id, "first", None, what)
        write_record(storage, record, parse_job(document), plan, listing, replaced_table([], []))
        ended(plan, sink)
        return self.out

    def _block(self, spans: pa.Table, given: Mapping[str, Given]) -> pa.Table:
        """What Predict would give for a shard of the plan."""
        schema = block_schema(self.columns)
        good, failed = [], []
        for span in spans.to_pylist():
            origin = {name: span[name] for name in schema.names if name in span and name != "error"}
            one = given[span["item_id"]]
            if span["error"]:
                failed.append(origin | {"error": span["error"]})
            elif one.probed:
                good += [origin | dict(row) for row in one.rows[span["first"] : span["stop"]]]
            else:
                good += [origin | dict(row) for row in one.rows]
        tensors = {one.name: one.type for one in self.columns if is_tensor(one.type)}
        arrays = [
            _packed([row.get(name) for row in good], tensors[name])
            if name in tensors
            else pa.array([row.get(name) for row in good], schema.field(name).type)
            for name in schema.names
        ]
        rows = pa.Table.from_arrays(arrays, schema=schema)
        return pa.concat_tables([rows, pa.Table.from_pylist(failed, schema)])


def _packed(values: Sequence[Any], type: pa.FixedShapeTensorType) -> pa.Array:
    valid = np.array([value is not None for value in values], bool)
    dtype = type.value_type.to_pandas_dtype()
    there = [np.asarray(value, dtype) for value in values if value is not None]
    return pack(np.stack(there) if there else np.empty((0, *type.shape), dtype), valid)


def tensor(name: str, type: pa.DataType, *shape: int) -> pa.Field:
    return pa.field(name, pa.fixed_shape_tensor(type, shape))


WINDOW = pa.field("window", pa.int64())


def of(column: str, *values: Any, first: int = 0) -> list[dict[str, Any]]:
    """Rows of windows that have these values in a column."""
    return [{"window": first + n, column: value} for n, value in enumerate(values)]
