"""Reading an output exactly: through its newest manifest, as Arrow. Any other reader can have the list of files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pipelines.errors import QUARANTINE
from pipelines.manifest import Manifest, newest
from pipelines.sink import OutputError
from pipelines.tensors import to_arrays, to_numpy

__all__ = ["dataset", "files", "manifest", "quarantine", "rows", "to_arrays", "to_numpy"]


def manifest(out: str) -> Manifest:
    """The output's newest manifest; OutputError if no run has been finished in it."""
    found = newest(out)
    if found is None:
        raise OutputError(
            f"No finished run in {out}: expected manifests/<n>.json there. Run the job to its end first."
        )
    return found


def files(out: str) -> list[str]:
    """The files that hold the table, for readers that take a list of paths."""
    return [str(Path(out, part.path)) for part in manifest(out).parts]


def dataset(out: str) -> pyarrow.dataset.Dataset:
    """The table as a pyarrow dataset, rows in the plan's order; nothing is read yet."""
    paths = files(out)
    return pyarrow.dataset.dataset(paths, format="parquet" if paths[0].endswith(".parquet") else "ipc")


def rows(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """One file's rows, each as a table: only what is being looked at is in memory, whatever the file's size."""
    if path.suffix == ".parquet":
        batches = pq.ParquetFile(path).iter_batches(batch_size=1, columns=columns)
        yield from (pa.Table.from_batches([batch]) for batch in batches)
        return
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as part:
        for number in range(part.num_record_batches):
            batch = pa.Table.from_batches([part.get_batch(number)]).select(columns)
            yield from (batch.slice(row, 1) for row in range(batch.num_rows))


def quarantine(out: str) -> pa.Table:
    """What could not be processed, and why."""
    tables = [pq.read_table(Path(out, name)) for name in manifest(out).quarantine]
    return pa.concat_tables([QUARANTINE.empty_table(), *tables])
