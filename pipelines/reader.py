"""Reading an output exactly: through its newest manifest, as Arrow. Any other reader can have the list of files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pipelines.errors import QUARANTINE
from pipelines.manifest import Manifest, newest
from pipelines.sink import OutputError
from pipelines.tensors import to_numpy

__all__ = ["dataset", "files", "manifest", "quarantine", "to_numpy"]


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


def quarantine(out: str) -> pa.Table:
    """What could not be processed, and why."""
    named = [part.quarantine for part in manifest(out).parts if part.quarantine]
    return pa.concat_tables([QUARANTINE.empty_table(), *(pq.read_table(Path(out, name)) for name in named)])
