"""What went in, decoded again exactly as the model saw it: for pictures and pages that show a run."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import pyarrow as pa

from pipelines.decoding import Decoder
from pipelines.items import version_now
from pipelines.sources import Source
from pipelines.stages import CONTEXT
from pipelines.tensors import is_tensor, rest


def windows_again(
    span: Mapping[str, Any], first: int, stop: int, source: Source, decoder: Decoder
) -> Iterator[pa.RecordBatch]:
    """The windows [first, stop) of a row of the plan, one batch each; of a text, that was not probed, all there are.

    Raises LookupError where the item is gone or has changed since it was planned, and whatever a stranger's file does.
    """
    try:
        changed = version_now(span["uri"]) != span["version"]
    except FileNotFoundError:
        raise LookupError("it is gone") from None
    if changed:
        raise LookupError("it has changed since")
    with closing(source.reader()) as reading, reading.open(span) as opened:
        for window in decoder.windows(opened.files, span["info"], first, stop):
            if CONTEXT not in window.schema.names or not window[CONTEXT][0].as_py():
                yield window


def as_rows(window: pa.RecordBatch, columns: pa.Schema) -> pa.Table:
    """A window with its tensors as a table of the output has them, under the task's input schema."""
    table = pa.Table.from_batches([window])
    for at, field in enumerate(window.schema):
        type = columns.field(field.name).type
        if is_tensor(type):
            table = table.set_column(at, columns.field(field.name), rest(table[field.name], type, "arrow"))
    return table
