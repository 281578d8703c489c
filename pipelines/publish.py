"""From committed parts to the run's end: files for people, the table, the manifest; then staged parts go.

Every step creates what is absent and leaves what is there, so a run that was killed anywhere goes on from there.
Staged parts are deleted only after the manifest: up to then they are the run's only truth.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from pipelines.labels import CSV, write_csv
from pipelines.manifest import Manifest, account, close
from pipelines.meter import Progress
from pipelines.sink import Commit, Sink, committed, create_if_absent, describe, open_writer, read_commits
from pipelines.tasks import Task
from pipelines.tensors import Format, is_tensor

_FILE_BYTES = 128 << 20  # of a published file, as Arrow in memory


def finish(
    plan: pa.Table, sink: Sink, task: Task, format: Format, workers: int, progress: Progress
) -> Manifest:
    """Make what the run owes out of its parts, and close it; OutputError if they are not all there."""
    files = list(committed(sink).values())
    assembly = task.assembly
    commits = [commit for path in files for commit in read_commits(path)] if assembly or sink.staged else []
    incomplete: set[str] = set()
    if assembly:
        account(plan, commits)
        incomplete = quarantined_items(sink, commits)
        assembly.write(plan, sink, incomplete, workers, progress)
    if sink.staged:
        account(plan, commits)
        files = publish(sink, files, format, incomplete)
        options: Any = task
        if getattr(options, "csv", False):  # of the tasks that name labels
            with create_if_absent(Path(sink.out, CSV), sink.tmp) as draft:
                write_csv(draft, files, options.top_k)
    return close(plan, sink, files)


def publish(sink: Sink, parts: Sequence[Path], format: Format, incomplete: Collection[str]) -> list[Path]:
    """Publish staged parts as few files without tensors, in the plan's order; the files that exist stay."""
    files = []
    for number, (rows, commits) in enumerate(_gathered(parts)):
        path = Path(sink.out, "data", f"{sink.run_id}-{number:06d}.{format}")
        if not path.exists():
            table = _without_missing(rows, incomplete)
            schema = describe(table.schema, sink, commits)
            with create_if_absent(path, sink.tmp) as draft, open_writer(draft, schema, format) as writer:
                writer.write(table.cast(schema))
        files.append(path)
    return files


def drop_staged(sink: Sink) -> None:
    """Delete the staged parts of a closed run."""
    folder = Path(sink.out, sink.folder)
    if sink.staged and folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def quarantined_items(sink: Sink, commits: Sequence[Commit]) -> set[str]:
    """The items that miss at least one span."""
    named = {commit.quarantine for commit in commits if commit.quarantine}
    tables = (pq.read_table(Path(sink.out, name), columns=["item_id"]) for name in named)
    return {item_id for table in tables for item_id in table["item_id"].to_pylist()}


def _gathered(parts: Sequence[Path]) -> Iterator[tuple[pa.Table, list[Commit]]]:
    """The parts' rows without tensors, and their commits, a file's worth at a time."""
    tables: list[pa.Table] = []
    commits: list[Commit] = []
    size = 0
    for path in parts:
        part = pyarrow.dataset.dataset(path, format="ipc")
        tables.append(
            part.to_table(columns=[field.name for field in part.schema if not is_tensor(field.type)])
        )
        commits += read_commits(path)
        size += tables[-1].nbytes
        if size >= _FILE_BYTES or path == parts[-1]:
            yield pa.concat_tables(tables), commits
            tables, commits, size = [], [], 0


def _without_missing(table: pa.Table, incomplete: Collection[str]) -> pa.Table:
    """The table with a null for every MP4 that there is not."""
    if "mp4" not in table.schema.names:
        return table
    column = table.schema.get_field_index("mp4")
    gone = pc.is_in(table["item_id"], value_set=pa.array(incomplete, pa.string()))
    return table.set_column(column, "mp4", pc.if_else(gone, None, table["mp4"]))
