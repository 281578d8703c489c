"""Reading an output exactly: through its newest manifest, as Arrow. Any other reader can have the list of files.

`out` is the output's folder or URI, as in the job file.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pipelines.index import read_index, read_quarantine
from pipelines.manifest import Manifest, newest
from pipelines.storage import OutputError, Storage, open_storage
from pipelines.tensors import to_arrays, to_numpy

if TYPE_CHECKING:
    import ray.data

__all__ = [
    "dataset", "files", "index", "manifest", "quarantine", "ray_dataset", "rows", "to_arrays", "to_numpy",
]  # fmt: skip


def manifest(out: str) -> Manifest:
    """The output's newest manifest; OutputError if no run has been finished in it."""
    found = newest(open_storage(out))
    if found is None:
        raise OutputError(
            f"No finished run in {out}: expected manifests/<n>.json there. Run the job to its end first."
        )
    return found


def files(out: str) -> list[str]:
    """The files that hold the table, paths or URIs, for readers that take a list of them."""
    storage = open_storage(out)
    return [storage.where(part.path) for part in manifest(out).parts]


def dataset(out: str) -> pyarrow.dataset.Dataset:
    """The table as a pyarrow dataset, rows in the plan's order; nothing is read yet."""
    return dataset_of(open_storage(out), [part.path for part in manifest(out).parts])


def ray_dataset(out: str) -> "ray.data.Dataset":
    """The table as a Ray dataset, a file a block, read by the workers; nothing is read yet."""
    import ray.data

    storage = open_storage(out)

    def read(names: pa.Table) -> pa.Table:
        return dataset_of(storage, names["file"].to_pylist()).to_table()

    blocks = [pa.table({"file": [part.path]}) for part in manifest(out).parts]
    return ray.data.from_blocks(blocks).map_batches(read, batch_size=None, batch_format="pyarrow")


def dataset_of(storage: Storage, names: Sequence[str]) -> pyarrow.dataset.Dataset:
    """Some of an output's files as a pyarrow dataset."""
    return pyarrow.dataset.dataset(
        [storage.where(name) for name in names],
        format="parquet" if names[0].endswith(".parquet") else "ipc",
        filesystem=storage.arrow,
    )


def index(out: str) -> pa.Table:
    """Which part holds an item's windows now, one row a span; `error` is the class of what is in quarantine."""
    return read_index(manifest(out).index, open_storage(out))


def quarantine(out: str) -> pa.Table:
    """What could not be processed, and why."""
    return read_quarantine(open_storage(out), manifest(out).quarantine)


def rows(storage: Storage, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """One file's rows, each as a table: only what is being looked at is in memory, whatever the file's size."""
    with storage.open(name) as file:
        if name.endswith(".parquet"):
            for batch in pq.ParquetFile(file).iter_batches(batch_size=1, columns=columns):
                yield pa.Table.from_batches([batch])
            return
        part = pa.ipc.open_file(file)
        for number in range(part.num_record_batches):
            batch = pa.Table.from_batches([part.get_batch(number)]).select(columns)
            yield from (batch.slice(row, 1) for row in range(batch.num_rows))
