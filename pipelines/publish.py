"""From committed parts to the run's end: files for people, the table, the manifest; then staged parts go.

Every step creates what is absent and leaves what is there, so a run that was killed anywhere goes on from there.
Staged parts are deleted only after the manifest: up to then they are the run's only truth.
"""

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import commit_points
from pipelines.ahead import in_order
from pipelines.commits import Commits, forget
from pipelines.index import index_of, read_quarantine, write_index
from pipelines.manifest import Manifest, Part, account, close
from pipelines.meter import Progress
from pipelines.sink import Commit, Sink, describe, file_schema, open_writer
from pipelines.storage import created
from pipelines.supersede import Carried
from pipelines.tasks import Task
from pipelines.tensors import Format, is_tensor

_FILE_BYTES = 128 << 20  # of a published file, as Arrow in memory


def finish(
    plan: pa.Table,
    sink: Sink,
    task: Task,
    format: Format,
    workers: int,
    progress: Progress,
    commits: Commits,
    carried: Carried,
) -> Manifest:
    """Make what the run owes out of its parts, and close it; OutputError if they are not all there."""
    table = commits.all()
    account(plan, table)
    quarantine = table["quarantine"].drop_null().unique().to_pylist()
    incomplete: set[str] = set()
    if task.assembly or sink.staged:
        bad = read_quarantine(sink.storage, quarantine)
        incomplete = set(bad["item_id"].unique().to_pylist())
    if sink.staged:
        parts, holders = publish(sink, table, format, incomplete)
    else:
        shards = table["shard"].to_pylist()
        parts = [
            Part(sink.part(shard), rows)
            for shard, rows in zip(shards, table["rows"].to_pylist(), strict=True)
        ]
        holders = [part.path for part in parts]
    if not (parts or carried.parts):
        parts = [empty_part(sink, format)]
    commit_points.passing("table published")
    if task.assembly:
        files = [part.path for part in (*carried.parts, *parts)]
        task.assembly.write(plan, sink, files, incomplete, workers, progress)
    index = pa.concat_tables([carried.index, index_of(plan, sink, pa.array(holders, pa.string()), table)])
    name = f"runs/{sink.run_id}/index.parquet"
    write_index(name, index, sink.storage)
    return close(
        sink, carried.base, index, name, [*carried.parts, *parts], [*carried.quarantine, *quarantine]
    )


def publish(
    sink: Sink, table: pa.Table, format: Format, incomplete: Collection[str]
) -> tuple[list[Part], list[str]]:
    """Publish staged parts as few files without tensors, in the plan's order; the files that exist stay.

    Returns them, and for every shard the file that holds it.
    """
    parts: list[Part] = []
    holders: list[str] = []
    commits = [Commit(**row) for row in table.to_pylist()]
    for rows, held in _gathered(sink, commits):
        path = f"data/{sink.run_id}-{len(parts):06d}.{format}"
        if not sink.storage.exists(path):
            whole = _without_missing(rows, incomplete)
            schema = describe(whole.schema, sink, held)
            with created(sink.storage, path) as draft, open_writer(draft, schema, format) as writer:
                writer.write(whole.cast(schema))
        parts.append(Part(path, rows.num_rows))
        holders += [path] * len(held)
    return parts, holders


def drop_staged(sink: Sink) -> None:
    """Delete the staged parts of a closed run."""
    if sink.staged:
        forget(sink)
        for _ in in_order(sink.storage.delete, list(sink.storage.names(sink.folder))):
            pass
        commit_points.passing("staged parts deleted")


def _gathered(sink: Sink, commits: list[Commit]) -> Iterator[tuple[pa.Table, list[Commit]]]:
    """The parts' rows without tensors, and their commits, a file's worth at a time."""

    def read(commit: Commit) -> tuple[Commit, pa.Table]:
        with sink.storage.open(sink.part(commit.shard)) as file:
            schema = pa.ipc.open_file(file).schema
            plain = [i for i, field in enumerate(schema) if not is_tensor(field.type)]
            options = pa.ipc.IpcReadOptions(included_fields=plain)
            return commit, pa.ipc.open_file(file, options=options).read_all()

    tables: list[pa.Table] = []
    held: list[Commit] = []
    size = 0
    for commit, rows in in_order(read, commits):
        tables.append(rows)
        held.append(commit)
        size += rows.nbytes
        if size >= _FILE_BYTES or commit is commits[-1]:
            yield pa.concat_tables(tables), held
            tables, held, size = [], [], 0


def _without_missing(table: pa.Table, incomplete: Collection[str]) -> pa.Table:
    """The table with a null for every MP4 that there is not."""
    if "mp4" not in table.schema.names:
        return table
    column = table.schema.get_field_index("mp4")
    gone = pc.is_in(table["item_id"], value_set=pa.array(incomplete, pa.string()))
    return table.set_column(column, "mp4", pc.if_else(gone, None, table["mp4"]))


def empty_part(sink: Sink, format: Format) -> Part:
    """A table without rows has its columns still."""
    schema: Any = file_schema(sink.columns, format)
    if sink.staged:
        schema = pa.schema(
            [field for field in file_schema(sink.columns, "arrow") if not is_tensor(field.type)]
        )
    path = f"data/{sink.run_id}-none.{format}"
    with created(sink.storage, path) as draft, open_writer(draft, describe(schema, sink, []), format):
        pass
    return Part(path, 0)
