"""What a run makes of its rows in the end, beside the table: files for people and other tools."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.meter import Progress
from pipelines.sink import Sink

#: Writes what is not there yet, whole or not at all, of a plan whose parts are all committed and, if they are staged,
#: published; the files are those of the table to come. The items of the collection miss windows. With so many workers.
Write = Callable[[pa.Table, Sink, Sequence[str], Collection[str], int, Progress], None]


@dataclass(frozen=True)
class Assembly:
    """A file or a folder of files, and how they are written: again and again, until all are there."""

    path: str  #: relative to the output
    write: Write
    whole_items: bool = (
        False  #: a file is made of all windows of an item, so that a retry does all of them again
    )
