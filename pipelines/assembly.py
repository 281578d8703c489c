"""What a run makes of its committed parts in the end, beside the table: files for people and other tools."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa

from pipelines.meter import Progress
from pipelines.sink import Sink

#: Writes the files that are not there yet, whole or not at all, of a plan, with so many workers; the items of the
#: collection miss windows.
Write = Callable[[pa.Table, Sink, Collection[str], int, Progress], None]


@dataclass(frozen=True)
class Assembly:
    """Files in a folder of the output, and how they are written: again and again, until all are there."""

    folder: str
    write: Write
