"""Tasks through Decode and Predict as they are, without Ray: an input's rows, and what failed of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from perceiver_core.checkpoint import inspect
from pipelines.contents import Content
from pipelines.errors import ItemError
from pipelines.limits import Limits
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sources.files import Files
from pipelines.stages import Decode, ModelPlan, Predict, split_block
from pipelines.tasks import Task
from pipelines.tensors import unpack
from tests.pipelines.copying import SilentMeter


class Rows:
    """What a task makes of an input."""

    def __init__(self, table: pa.Table, failed: list[ItemError], schema: pa.Schema) -> None:
        self.table, self.failed, self.schema = table, failed, schema

    def __getitem__(self, name: str) -> list[Any]:
        return self.table[name].to_pylist()

    def tensor(self, name: str) -> np.ndarray:
        """A column of tensors, those that are not null."""
        return unpack(self.table[name], self.schema.field(name).type)


def rows_of(
    task: Task,
    checkpoint: Path,
    media: Path,
    content: Content,
    *,
    shard_windows: int = 64,
    batch: int = 2,
    fold: bool = True,
    chunk: int | None = None,
) -> Rows:
    """Every row of a run over a folder, shard after shard."""
    config = inspect(checkpoint).config
    task.check(config)
    source, limits = Files((str(media),), content), Limits()
    decode = Decode(task, config, source, limits)
    plan = cut_shards(list_and_probe(source, [decode.decoder]), shard_windows)  # one process for both
    chunk = chunk or task.chunk(config, batch, 1 << 29)
    model = ModelPlan(str(checkpoint), "float32", batch, chunk, fold=fold)
    predict = Predict(task, model, "cpu", 1, source.kept, SilentMeter())
    good, failed = [], []
    for spans in shards(plan).values():
        rows, errors = split_block(predict(decode.shard(spans)).drop_columns(["notes"]))
        good.append(rows)
        failed += [ItemError.from_json(text) for text in errors["error"].to_pylist()]
    decode.decoder.close()
    return Rows(pa.concat_tables(good), failed, task.output_schema(config))
