"""Parts: a shard's rows become one file, created only if it is absent. That file is the commit.

    out/data/<run>-<shard>.arrow                    the output's rows; in runs/<run>/parts where they are staged
    out/quarantine/<run>-<shard>-<attempt>.parquet  what could not be processed
    out/manifests/<n>.json                          which of these are the table
    out/runs/<run>/                                 the run's durable truth

Protocol: a shard's quarantine rows are written first, under a name of this attempt; then its rows go to a file in
runs/<run>/tmp, fsync, link to its place (which fails if someone was there before), fsync the folder.
"""

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import QUARANTINE, ItemError
from pipelines.stages import ITEM, split_block
from pipelines.tensors import Format, at_rest, is_tensor, rest

_METADATA = b"perceive"
_BATCH_BYTES = 32 << 20  # of a record batch: what a reader maps or decompresses at once


class OutputError(OSError):
    """The output can't be written as it must be."""


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


COMMIT = pa.schema(
    [
        pa.field("run_id", pa.string()),
        pa.field("shard", pa.int32()),
        pa.field("attempt", pa.int32()),
        pa.field("rows", pa.int64()),
        pa.field("spans", pa.int64()),
        pa.field("quarantined", pa.int64()),
        pa.field("quarantine", pa.string()),
    ]
)


@dataclass(frozen=True)
class Sink:
    """Where a run's parts go, and what every one of them says of the run."""

    out: str
    run_id: str
    attempt: int
    format: Format
    columns: pa.Schema  #: what is kept of the input, then the task's output schema
    about: str  #: the run's description for the files' metadata, as JSON
    staged: bool = False  #: the parts are not the table: it is published from them in the end

    @property
    def folder(self) -> str:
        """Where the parts are, relative to the output."""
        return f"runs/{self.run_id}/parts" if self.staged else "data"

    @property
    def tmp(self) -> Path:
        """Where files are written before they get their names."""
        return Path(self.out, "runs", self.run_id, "tmp")

    def part(self, shard: int) -> str:
        """A part's path relative to the output, made from the run (so the fingerprint) and the shard alone."""
        return f"{self.folder}/{self.run_id}-{shard:06d}.{self.format}"


def prepare(sink: Sink) -> None:
    """Make the output's folders, clear what a killed attempt left in tmp, and probe that links refuse to overwrite."""
    out, tmp = sink.out, sink.tmp
    for folder in ("data", "quarantine", "manifests", sink.folder, tmp.relative_to(out)):
        Path(out, folder).mkdir(parents=True, exist_ok=True)
    for stale in tmp.iterdir():
        stale.unlink()
    first, second, name = (tmp / uuid.uuid4().hex for _ in range(3))
    try:
        first.touch()
        second.touch()
        os.link(first, name)
        os.link(second, name)
    except FileExistsError:
        return
    except OSError as error:
        raise OutputError(
            f"{out} is on a file system without hard links ({error.strerror}), by which parts are created only if "
            "absent. Choose an output on a local or POSIX file system."
        ) from error
    finally:
        for path in (first, second, name):
            path.unlink(missing_ok=True)
    raise OutputError(
        f"{out} is on a file system where a link overwrites a file that exists: two writers could not be told "
        "apart. Choose an output on a local or POSIX file system."
    )


def file_schema(columns: pa.Schema, format: Format) -> pa.Schema:
    """The schema of a run's parts: the item's columns, then the task's."""
    return at_rest(pa.schema([*ITEM, *columns]), format)


def write_part(block: pa.Table, sink: Sink) -> pa.Table:
    """Commit one shard's block; returns its commit as a row, whoever wrote it.

    A Ray Data map function: retried, raced or repeated after a crash, the shard still becomes one part.
    """
    windows, failed = split_block(block)
    shard = block["shard"][0].as_py()
    path = Path(sink.out, sink.part(shard))
    if not path.exists():
        quarantine = None
        if failed.num_rows:
            quarantine = f"quarantine/{sink.run_id}-{shard:06d}-{sink.attempt}.parquet"
            with create_if_absent(Path(sink.out, quarantine), sink.tmp) as draft:
                pq.write_table(_quarantine_rows(failed, sink.attempt), draft)
        spans = set(zip(block["item_id"].to_pylist(), block["first"].to_pylist(), strict=True))
        commit = Commit(
            sink.run_id, shard, sink.attempt, windows.num_rows, len(spans), failed.num_rows, quarantine
        )
        schema = describe(file_schema(sink.columns, sink.format), sink, [commit])
        with create_if_absent(path, sink.tmp) as draft:
            _write_rows(windows, sink, schema, draft)
    return pa.Table.from_pylist([asdict(commit) for commit in read_commits(path)], COMMIT)


def describe(schema: pa.Schema, sink: Sink, commits: Sequence[Commit]) -> pa.Schema:
    """The schema of a file that holds these shards, with all that the file says of itself and of its run."""
    about = {"commits": [asdict(commit) for commit in commits], "run": json.loads(sink.about)}
    return schema.with_metadata({_METADATA: json.dumps(about).encode()})


def read_commits(path: Path) -> list[Commit]:
    """The commits that a file of the table holds, one in a part; reads no rows."""
    return [Commit(**commit) for commit in read_about(path)["commits"]]


def read_about(path: Path) -> dict[str, Any]:
    """All that a file says of itself and of its run; reads no rows."""
    if path.suffix == ".parquet":
        schema = pq.read_schema(path)
    else:
        with pa.memory_map(str(path)) as file:
            schema = pa.ipc.open_file(file).schema
    about: dict[str, Any] = json.loads(schema.metadata[_METADATA])
    return about


def committed(sink: Sink) -> dict[int, Path]:
    """The run's parts that exist, by shard and in order: one listing, no file is opened."""
    paths = sorted(Path(sink.out, sink.folder).glob(f"{sink.run_id}-*"))
    return {int(path.stem.rpartition("-")[2]): path for path in paths}


@contextmanager
def create_if_absent(path: Path, tmp: Path) -> Iterator[Path]:
    """Yield a path to write to; then it becomes `path`, at once and durably, or gives way to what is there."""
    draft = tmp / uuid.uuid4().hex
    try:
        yield draft
        _sync(draft)
        with suppress(FileExistsError):  # another writer's commit of the same rows came first
            os.link(draft, path)
        _sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


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


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
