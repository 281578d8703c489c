"""Decoding what strangers made: a task's probe and preprocess, with their limits."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.limits import Limits
from pipelines.tasks import Task
from pipelines.tensors import in_flight, is_tensor, pack

Files = Mapping[str, BinaryIO]


class Decoder:
    """Reads headers and windows of one item after the other."""

    def __init__(self, task: Task, config: PerceiverConfig, limits: Limits) -> None:
        self.task, self.config, self.limits = task, config, limits

    def probe(self, files: Files) -> tuple[int, str]:
        """How many windows an item has, and what `windows` should know of it."""
        return self.task.probe(files, self.config, self.limits)

    def windows(self, files: Files, info: str, first: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The windows [first, stop) of an item, one batch each, under the task's input schema in flight."""
        schema = self.task.input_schema(self.config)
        for window in self.task.preprocess(files, info, first, stop, self.config, self.limits):
            yield packed(window, schema)

    def close(self) -> None:
        """Nothing is decoded after this."""


def packed(window: Mapping[str, object], schema: pa.Schema) -> pa.RecordBatch:
    """One window as a row."""
    columns = [
        pack(np.asarray(window[field.name])[None])
        if is_tensor(field.type)
        else pa.array([window[field.name]], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=in_flight(schema))
