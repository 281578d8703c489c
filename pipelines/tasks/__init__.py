"""The tasks: what a model does to one item. One file each; this tuple is the whole list."""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from pipelines.tensors import Format


class Task(Protocol):
    """A frozen dataclass whose fields are the user's options, and the functions that the stages call."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]  #: the checkpoints that it runs on
    suffixes: ClassVar[tuple[str, ...]]  #: what a folder is searched for
    preview: ClassVar[tuple[str, ...]]  #: the columns that a table in a terminal shows
    reconstructs: ClassVar[bool]  #: video: a contact sheet shows it beside its source

    @property
    def format(self) -> Format:
        """The format of the output, unless the job says otherwise."""

    @property
    def mp4s(self) -> bool:
        """Whether every item becomes an MP4 in the end; the rows' column mp4 names it."""

    @property
    def staged(self) -> bool:
        """Whether the table has no tensors: it is published in the end, and the parts that held them go."""

    def check(self, config: PerceiverConfig) -> None:
        """Raise ValueError if the options don't fit the checkpoint."""

    def probe(self, file: BinaryIO, config: PerceiverConfig) -> tuple[int, str]:
        """Read an item's header: how many windows it has, and what `preprocess` should know of it (JSON)."""

    def input_schema(self, config: PerceiverConfig) -> pa.Schema:
        """The columns of a window, as `preprocess` yields them."""

    def output_schema(self, config: PerceiverConfig) -> pa.Schema:
        """The columns that the task adds to an output row."""

    def preprocess(
        self, file: BinaryIO, info: str, first: int, stop: int, config: PerceiverConfig
    ) -> Iterator[Mapping[str, Any]]:
        """Decode the windows [first, stop) of one item on the CPU."""

    def chunk(self, config: PerceiverConfig, batch: int, budget: int) -> int:
        """How many output points of each of `batch` items a decoder call may have within `budget` bytes."""

    def predict(self, model: Any, batch: Mapping[str, np.ndarray], chunk: int) -> dict[str, np.ndarray]:
        """Run the model on a batch of windows, on its device; one row out for each row in."""

    def postprocess(
        self, windows: pa.Table, predictions: Mapping[str, np.ndarray], config: PerceiverConfig
    ) -> dict[str, pa.Array]:
        """Name and null what was predicted for a shard: the columns that windows don't have yet, tensors packed."""


TASKS: tuple[type[Task], ...] = (MultimodalAutoencoding,)


def task_named(name: str) -> type[Task]:
    """The task of that name; ValueError names those there are."""
    for task in TASKS:
        if task.name == name:
            return task
    raise ValueError(f"No such task: {name}. The tasks are: {', '.join(task.name for task in TASKS)}.")
