"""Decode and Predict as Ray Data callables: a shard's plan rows become its windows, and those its output rows.

Between the stages a shard is one block: first its windows, then one row for each span that failed, with `error`
set and the task's columns null.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from perceiver_core.config import PerceiverConfig
from pipelines.decoding import Decoder, DecoderError
from pipelines.describing import column
from pipelines.errors import ItemError
from pipelines.items import InputError
from pipelines.limits import Limits
from pipelines.meter import Meter
from pipelines.sources import Source
from pipelines.tasks import Task
from pipelines.tensors import in_flight, is_tensor, unpack

#: What every row says of its item, in flight and at rest.
ITEM = (
    column("item_id", pa.string(), "what the item is called for ever: a hash of its place in the input"),
    column("version", pa.string(), "its etag, or size and time of change, when the run was planned"),
    column("uri", pa.string(), "the file that it is, or is in"),
    column("member", pa.string(), "which row, line or sample of that file; null where it is all of it"),
)
#: A task's bool column for windows that are only there for their neighbours' sake: predicted, seen by postprocess, and
#: no rows of the output.
CONTEXT = "context"
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


def check_kept(kept: pa.Schema, task: Task, config: PerceiverConfig) -> None:
    """Raise InputError if the output has a column that is to be passed through already."""
    taken = {
        field.name for field in (*_ORIGIN, *task.input_schema(config), *task.output_schema(config), _ERROR)
    }
    clashes = [name for name in kept.names if name in taken]
    if clashes:
        raise InputError(
            f"input.keep asks for {', '.join(clashes)}, but the output of {task.name} has columns of these names. "
            "Rename them in the input, or leave them out of input.keep: item_id, uri and member say which row it was."
        )


def split_block(block: pa.Table) -> tuple[pa.Table, pa.Table]:
    """A block's windows and its failed spans."""
    good = block["error"].null_count
    return block.slice(0, good), block.slice(good)


class Decode:
    """Opens each span's item and decodes its windows; whatever is wrong with the item becomes its error row."""

    def __init__(self, task: Task, config: PerceiverConfig, source: Source, limits: Limits) -> None:
        self.reader = source.reader()
        self.decoder = Decoder(task, config, limits)
        self.kept = source.kept
        self.schema = block_schema(pa.schema([*source.kept, *task.input_schema(config)]))

    def __call__(self, shard: pa.Table) -> pa.Table:
        done: list[pa.RecordBatch] = []
        failed: list[dict[str, Any]] = []
        for span in shard.to_pylist():
            origin = {field.name: span[field.name] for field in _ORIGIN}
            try:
                done += self._windows(span, origin)
            except DecoderError:
                raise
            # One row in, its rows or one error out: whatever a stranger's file raises.
            except Exception as error:
                failed.append(origin | {"error": ItemError.of(error, stage="decode").to_json()})
            else:
                if span["error"]:
                    failed.append(origin | {"error": span["error"]})
        good = pa.Table.from_batches(done, self.schema)
        return pa.concat_tables([good, pa.Table.from_pylist(failed, self.schema)])

    def _windows(self, span: dict[str, Any], origin: dict[str, Any]) -> list[pa.RecordBatch]:
        """The span's windows as rows of the block: all of them, or none."""
        if span["first"] == span["stop"]:
            return []
        done = []
        with self.reader.open(span) as opened:
            for batch in self.decoder.windows(opened.files, span["info"], span["first"], span["stop"]):
                columns = [
                    batch[field.name]
                    if field.name in batch.schema.names
                    else pa.repeat(opened.kept[field.name], batch.num_rows)
                    if field.name in opened.kept
                    else pa.array([origin.get(field.name)] * batch.num_rows, field.type)
                    for field in self.schema
                ]
                done.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        return done


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

    def __init__(
        self, task: Task, plan: ModelPlan, device: str, threads: int, kept: pa.Schema, meter: Meter
    ) -> None:
        os.environ.setdefault("MKL_DYNAMIC", "FALSE")  # before torch: other threads are other last bits
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
        self.kept = kept
        self.meter = meter

    def __call__(self, block: pa.Table) -> pa.Table:
        config = self.model.config
        windows, failed = split_block(block)
        schema = block_schema(pa.schema([*self.kept, *self.task.output_schema(config)]))
        if not windows.num_rows:
            return _as(failed, schema)
        predictions: dict[str, Any] = {}
        for start in range(0, windows.num_rows, self.plan.batch):
            stop = min(start + self.plan.batch, windows.num_rows)
            inputs = {
                field.name: _values(windows[field.name].slice(start, stop - start), field.type)
                for field in self.task.input_schema(config)
            }
            batch = self.task.predict(self.model, self._full(inputs, stop - start), self.plan.chunk)
            for name, values in batch.items():
                if isinstance(values, list):
                    predictions.setdefault(name, []).extend(values[: stop - start])
                    continue
                whole = predictions.setdefault(
                    name, np.empty((windows.num_rows, *values.shape[1:]), values.dtype)
                )
                whole[start:stop] = values[: stop - start]
            context = windows[CONTEXT].slice(start, stop - start) if CONTEXT in windows.column_names else None
            self.meter.add("predict", stop - start - (pc.sum(context).as_py() if context is not None else 0))
        columns = {name: windows[name] for name in windows.column_names}
        columns |= self.task.postprocess(windows, predictions, config)
        good = pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)
        if CONTEXT in windows.column_names:
            good = good.filter(pc.invert(windows[CONTEXT]))
        return pa.concat_tables([good, _as(failed, schema)])

    def _full(self, inputs: dict[str, Any], rows: int) -> dict[str, Any]:
        """A short batch padded with its last window, so that every call has the same shape; ragged ones have none."""
        if rows == self.plan.batch or any(isinstance(values, list) for values in inputs.values()):
            return inputs
        take = np.minimum(np.arange(self.plan.batch), rows - 1)
        return {name: values[take] for name, values in inputs.items()}


def _values(column: pa.ChunkedArray, type: pa.DataType) -> np.ndarray | list[np.ndarray]:
    """A column of a batch as the model's side sees it: tensors as one array, ragged ones as a list of flat arrays."""
    if is_tensor(type):
        return unpack(column, type)
    if pa.types.is_large_list(type):
        return [row.values.to_numpy() for row in column]
    return column.to_numpy()


def _folded(model: Any, dtype: Any) -> Any:
    from perceiver_core.folding import FoldError, fold

    try:
        return fold(model, dtype)
    except FoldError as error:
        raise FoldError(f"{error} In a job: model.fold: false, or --no-fold.") from error


def _as(failed: pa.Table, schema: pa.Schema) -> pa.Table:
    """Failed spans under another stage's schema."""
    return pa.Table.from_pylist(failed.select([*[f.name for f in _ORIGIN], "error"]).to_pylist(), schema)
