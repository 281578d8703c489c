"""Decode and Predict as Ray Data callables: a shard's plan rows become its windows, and those its output rows.

Between the stages a shard is one block: first its windows, then one row for each span that failed, with `error`
set and the task's columns null.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from perceiver_core.config import PerceiverConfig
from pipelines.errors import ItemError
from pipelines.items import open_item
from pipelines.meter import Meter
from pipelines.tasks import Task
from pipelines.tensors import in_flight, is_tensor, pack, unpack

#: What every row says of its item, in flight and at rest.
ITEM = (
    pa.field("item_id", pa.string()),
    pa.field("version", pa.string()),
    pa.field("uri", pa.string()),
)
_ORIGIN = (
    pa.field("shard", pa.int32()),
    *ITEM,
    pa.field("first", pa.int64()),
    pa.field("stop", pa.int64()),
)
_ERROR = pa.field("error", pa.string())  # an ItemError, as JSON


def block_schema(columns: pa.Schema) -> pa.Schema:
    """The schema of the blocks that carry these columns between stages."""
    return pa.schema([*_ORIGIN, *in_flight(columns), _ERROR])


def split_block(block: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A block's windows and its failed spans."""
    good = block["error"].null_count
    return block.slice(0, good), block.slice(good)


class Decode:
    """Opens each span's item and decodes its windows; whatever is wrong with the item becomes its error row."""

    def __init__(self, task: Task, config: PerceiverConfig) -> None:
        self.task = task
        self.config = config
        self.columns = task.input_schema(config)

    def __call__(self, shard: pa.Table) -> pa.Table:
        spans = shard.to_pylist()
        room = sum(span["stop"] - span["first"] for span in spans)
        tensors = {
            field.name: np.empty((room, *field.type.shape), field.type.value_type.to_pandas_dtype())
            for field in self.columns
            if is_tensor(field.type)
        }  # filled in place: a shard of windows is held once
        rows: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for span in spans:
            origin = {field.name: span[field.name] for field in _ORIGIN}
            start = len(rows)
            try:
                for window in self._windows(span):
                    for name, tensor in tensors.items():
                        tensor[len(rows)] = window[name]
                    rows.append(origin | {name: v for name, v in window.items() if name not in tensors})
            # One row in, its rows or one error out: whatever a stranger's file raises.
            except Exception as error:
                del rows[start:]
                failed.append(origin | {"error": ItemError.of(error, stage="decode").to_json()})
            else:
                if span["error"]:
                    failed.append(origin | {"error": span["error"]})
        schema = block_schema(self.columns)
        good = pa.Table.from_pylist(rows, pa.schema([f for f in schema if f.name not in tensors]))
        for i, field in enumerate(schema):
            if field.name in tensors:
                good = good.add_column(i, field, pack(tensors[field.name][: len(rows)]))
        return pa.concat_tables([good, pa.Table.from_pylist(failed, schema)])

    def _windows(self, span: dict[str, Any]) -> Iterator[Any]:
        if span["first"] == span["stop"]:
            return
        with open_item(span["uri"]) as file:
            yield from self.task.preprocess(file, span["info"], span["first"], span["stop"], self.config)


@dataclass(frozen=True)
class ModelPlan:
    """How the model runs; fixed in the plan, since float32 rows differ with a matmul's height."""

    checkpoint: str
    dtype: str  #: float32 | bfloat16
    batch: int  #: windows per call, the last batch of a shard padded
    chunk: int  #: output points per decoder call, the last chunk padded
    reference: str = "hf"  #: whose answers: hf | deepmind
    fold: bool = True  #: the same answers from fewer FLOPs


class Predict:
    """Runs the model over a shard's windows, in batches of one shape."""

    def __init__(self, task: Task, plan: ModelPlan, device: str, threads: int, meter: Meter) -> None:
        import torch

        from perceiver_core.checkpoint import load

        # Ray sets OMP_NUM_THREADS to the actor's logical CPUs, which are a matter of scheduling, not of speed.
        torch.set_num_threads(threads)
        self.task = task
        self.plan = plan
        # Folded from float32, and rounded to the plan's dtype after that.
        dtype = "float32" if plan.fold else plan.dtype
        plain = load(plan.checkpoint, dtype=dtype, device=device, reference=plan.reference)
        self.model: Any = _folded(plain, getattr(torch, plan.dtype)) if plan.fold else plain
        self.meter = meter

    def __call__(self, block: pa.Table) -> pa.Table:
        config = self.model.config
        windows, failed = split_block(block)
        inputs = {
            field.name: unpack(windows[field.name], field.type)
            if is_tensor(field.type)
            else windows[field.name].to_numpy()
            for field in self.task.input_schema(config)
        }
        predictions: dict[str, np.ndarray] = {}
        for start in range(0, windows.num_rows, self.plan.batch):
            stop = min(start + self.plan.batch, windows.num_rows)
            # A short batch is padded with its last window: every call has the same shape.
            take = np.minimum(np.arange(start, start + self.plan.batch), stop - 1)
            batch = self.task.predict(self.model, {k: v[take] for k, v in inputs.items()}, self.plan.chunk)
            for name, values in batch.items():
                whole = predictions.setdefault(
                    name, np.empty((windows.num_rows, *values.shape[1:]), values.dtype)
                )
                whole[start:stop] = values[: stop - start]
            self.meter.add("predict", stop - start)
        schema = block_schema(self.task.output_schema(config))
        if not windows.num_rows:
            return _as(failed, schema)
        columns = {name: windows[name] for name in windows.column_names}
        columns |= self.task.postprocess(windows, predictions, config)
        good = pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)
        return pa.concat_tables([good, _as(failed, schema)])


def _folded(model: Any, dtype: Any) -> Any:
    from perceiver_core.folding import FoldError, fold

    try:
        return fold(model, dtype)
    except FoldError as error:
        raise FoldError(f"{error} In a job: model.fold: false, or --no-fold.") from error


def _as(failed: pa.Table, schema: pa.Schema) -> pa.Table:
    """Failed spans under another stage's schema."""
    return pa.Table.from_pylist(failed.select([*[f.name for f in _ORIGIN], "error"]).to_pylist(), schema)
