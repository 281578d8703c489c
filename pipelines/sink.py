"""Parts: a shard's rows become one file, created only if it is absent. That file is the commit.

    out/data/<run>-<shard>.arrow                    the output's rows; in runs/<run>/parts where they are staged
    out/quarantine/<run>-<shard>-<attempt>.parquet  what could not be processed
    out/manifests/<n>.json                          which of these are the table
    out/runs/<run>/                                 the run's durable truth

Protocol: a shard's quarantine rows are written first, under a name of this attempt; then its rows are created under a
name made from the run and the shard alone, if it is absent. A second writer finds it there and leaves.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import commit_points
from pipelines.describing import names_files
from pipelines.errors import QUARANTINE, ItemError
from pipelines.meter import Meter, Tally
from pipelines.stages import ITEM, notes_of, planned_windows, split_block
from pipelines.storage import Storage, created
from pipelines.tensors import Format, at_rest, is_tensor, rest

_METADATA = b"perceive"
_BATCH_BYTES = 32 << 20  # of a record batch: what a reader maps or decompresses at once


@dataclass(frozen=True)
class Commit:
    """What a part says of itself, in its metadata."""

    run_id: str
    shard: int
    attempt: int
    rows: int
    spans: int  #: of the plan, in this shard
    quarantined: int  #: of these spans, how many became quarantine rows
    quarantine: str | None  #: the file that holds them, relative to the output
    notes: str | None = None  #: how it went, as JSON: seconds, and what was halved where memory was short


COMMIT = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("shard", pa.int32()),
        pa.field("attempt", pa.int32()),
        pa.field("rows", pa.int64()),
        pa.field("spans", pa.int64()),
        pa.field("quarantined", pa.int64()),
        pa.field("quarantine", pa.string()),
        pa.field("notes", pa.string()),
    ]
)


@dataclass(frozen=True)
class Sink:
    """Where a run's parts go, and what every one of them says of the run."""

    storage: Storage
    run_id: str
    attempt: int
    format: Format
    columns: pa.Schema  #: what is kept of the input, then the task's output schema
    about: str  #: the run's description for the files' metadata, as JSON
    staged: bool = False  #: the parts are not the table: it is published from them in the end
    again: bool = False  #: there was a table before: files of items are not to be mistaken for its own

    @property
    def folder(self) -> str:
        """Where the parts are, relative to the output."""
        return f"runs/{self.run_id}/parts" if self.staged else "data"

    def part(self, shard: int) -> str:
        """A part's name, made from the run (so the fingerprint) and the shard alone."""
        return f"{self.folder}/{self.run_id}-{shard:08d}.{self.format}"

    def beside(self, name: str) -> str:
        """What a file beside the table is called; of all runs but an output's first, in a folder of the run's."""
        folder, _, rest = name.partition("/")
        return f"{folder}/{self.run_id}/{rest}" if self.again else name

    def shard_of(self, part: str) -> int | None:
        """The shard that a part's name is of; None of what is no part of this run."""
        stem, dot, suffix = part.removeprefix(f"{self.folder}/{self.run_id}-").partition(".")
        return int(stem) if dot and suffix == self.format and stem.isdecimal() and len(stem) == 8 else None


def file_schema(columns: pa.Schema, format: Format) -> pa.Schema:
    """The schema of a run's parts: the item's columns, then the task's."""
    return at_rest(pa.schema([*ITEM, *columns]), format)


def write_part(block: pa.Table, sink: Sink, meter: Meter = Meter()) -> pa.Table:  # noqa: B008  # frozen
    """Commit one shard's block; returns its commit as a row, whoever wrote it.

    A Ray Data map function: retried, raced or repeated after a crash, the shard still becomes one part.
    """
    tally = Tally(meter, "write")
    commit = _committed(block, sink)
    tally.add(planned_windows(block))
    tally.flush()
    return commit


def _committed(block: pa.Table, sink: Sink) -> pa.Table:
    windows, failed = split_block(block)
    shard = block["shard"][0].as_py()
    name, storage = sink.part(shard), sink.storage
    if not storage.exists(name):
        quarantine = None
        if failed.num_rows:
            quarantine = f"quarantine/{sink.run_id}-{shard:08d}-{sink.attempt}.parquet"
            with created(storage, quarantine) as draft:
                pq.write_table(_quarantine_rows(failed, sink.attempt), draft)
            commit_points.passing("quarantine committed")
        spans = set(zip(block["item_id"].to_pylist(), block["first"].to_pylist(), strict=True))
        notes = notes_of(block) | {"rows_bytes": windows.nbytes}
        if failed.num_rows:
            classes = (ItemError.from_json(error).kind for error in failed["error"].to_pylist())
            notes["errors"] = dict(sorted(Counter(classes).items()))
        commit = Commit(
            run_id=sink.run_id,
            shard=shard,
            attempt=sink.attempt,
            rows=windows.num_rows,
            spans=len(spans),
            quarantined=failed.num_rows,
            quarantine=quarantine,
            notes=json.dumps(notes) if notes else None,
        )
        if sink.again:
            windows = _named_anew(windows, sink)
        schema = describe(file_schema(sink.columns, sink.format), sink, [commit])
        with storage.draft() as draft:
            _write_rows(windows, sink, schema, draft)
            mine = storage.create(name, draft)
        commit_points.passing("part committed")
        if mine:
            return as_table([commit])
    return as_table(read_commits(storage, name))


def as_table(commits: Sequence[Commit]) -> pa.Table:
    """Commits as rows."""
    return pa.Table.from_pylist([asdict(commit) for commit in commits], COMMIT)


def describe(schema: pa.Schema, sink: Sink, commits: Sequence[Commit]) -> pa.Schema:
    """The schema of a file that holds these shards, with all that the file says of itself and of its run."""
    about = {"commits": [asdict(commit) for commit in commits], "run": json.loads(sink.about)}
    return schema.with_metadata({_METADATA: json.dumps(about).encode()})


def read_commits(storage: Storage, name: str) -> list[Commit]:
    """The commits that a file of the table holds, one in a part; reads no rows."""
    return [Commit(**commit) for commit in read_about(storage, name)["commits"]]


def read_about(storage: Storage, name: str) -> dict[str, Any]:
    """All that a file says of itself and of its run; reads no rows."""
    about: dict[str, Any] = json.loads(schema_of(storage, name).metadata[_METADATA])
    return about


def schema_of(storage: Storage, name: str) -> pa.Schema:
    """The schema of a file of the table."""
    with storage.open(name) as file:
        return pq.read_schema(file) if name.endswith(".parquet") else pa.ipc.open_file(file).schema


def committed(sink: Sink) -> dict[int, str]:
    """The run's parts that exist, by shard and in order: one listing, no file is opened."""
    return dict(parts(sink))


def parts(sink: Sink, after: str = "") -> Iterator[tuple[int, str]]:
    """The same, one after the other, from the first one after a part's name."""
    for name in sink.storage.names(sink.folder, after or f"{sink.folder}/{sink.run_id}-"):
        if not name.startswith(f"{sink.folder}/{sink.run_id}-"):
            return
        shard = sink.shard_of(name)
        if shard is not None:
            yield shard, name


def _write_rows(windows: pa.Table, sink: Sink, schema: pa.Schema, path: Path) -> None:
    types = {field.name: field.type for field in sink.columns}
    row_bytes = max(1, windows.nbytes // max(1, windows.num_rows))
    step = max(1, _BATCH_BYTES // row_bytes)
    with open_writer(path, schema, sink.format) as writer:
        for start in range(0, windows.num_rows, step):
            rows = windows.slice(start, step)
            columns = [
                rest(rows[name], types[name], sink.format)
                if is_tensor(types.get(name, pa.null()))
                else rows[name].combine_chunks()
                for name in schema.names
            ]
            writer.write(pa.Table.from_arrays(columns, schema=schema))


def open_writer(path: Path, schema: pa.Schema, format: Format) -> Any:
    """A writer of tables under one schema, to be closed."""
    if format == "arrow":
        return pa.ipc.new_file(str(path), schema)
    # Dictionaries of frames cost much and save nothing.
    plain = [field.name for field in schema if not pa.types.is_fixed_size_binary(field.type)]
    return pq.ParquetWriter(path, schema, use_dictionary=plain, compression="zstd")


def _named_anew(windows: pa.Table, sink: Sink) -> pa.Table:
    for field in sink.columns:
        if names_files(field):
            names = [name and sink.beside(name) for name in windows[field.name].to_pylist()]
            column = windows.schema.get_field_index(field.name)
            windows = windows.set_column(column, windows.schema.field(column), pa.array(names, field.type))
    return windows


def _quarantine_rows(failed: pa.Table, attempt: int) -> pa.Table:
    rows = []
    for row in failed.select([*(field.name for field in ITEM), "first", "stop", "error"]).to_pylist():
        error = ItemError.from_json(row.pop("error"))
        rows.append(
            row
            | {"stage": error.stage, "error": error.kind, "message": error.message, "attempt": attempt}
            | {"traceback_digest": error.digest}
        )
    return pa.Table.from_pylist(rows, QUARANTINE)
