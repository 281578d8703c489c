"""Decode and Predict as Ray Data callables: a shard's plan rows become its windows, and those its output rows.

Between the stages a shard is one block: first its windows, then one row for each span that failed, with `error`
set and the task's columns null. Its first row has the shard's notes: how it went.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
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
from pipelines.meter import Meter, Tally, peak_memory
from pipelines.plan import spans_of
from pipelines.sending import Sent
from pipelines.sources import Source
from pipelines.tasks import Task
from pipelines.tensors import in_flight, is_tensor, unpack
from pipelines.transient import PATIENCE_S, UnavailableError
from pipelines.trouble import (
    blame,
    broken_device,
    end_process,
    first_line,
    is_short,
    is_sick,
    nonfinite,
    nonfinite_error,
    once_more,
    out_of_memory,
    persistently,
    retry_fields,
    survivable,
)

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
_NOTES = pa.field("notes", pa.string())  # of the shard, as JSON, in its first row

_REPLACED = 2  # workers, over one shard, by a device's errors: fewer than the tries that Ray gives a shard


def block_schema(columns: pa.Schema) -> pa.Schema:
    """The schema of the blocks that carry these columns between stages."""
    return pa.schema([*_ORIGIN, *in_flight(columns), _ERROR, _NOTES])


def check_kept(kept: pa.Schema, task: Task, config: PerceiverConfig) -> None:
    """Raise InputError if the output has a column that is to be passed through already."""
    taken = {
        field.name
        for field in (*_ORIGIN, *task.input_schema(config), *task.output_schema(config), _ERROR, _NOTES)
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


def planned_windows(rows: pa.Table) -> int:
    """How many of the plan's windows these rows of a block are of."""
    spans = rows.select(["item_id", "first", "stop"]).group_by(["item_id", "first", "stop"]).aggregate([])
    return int(pc.sum(spans["stop"], min_count=0).as_py() - pc.sum(spans["first"], min_count=0).as_py())


def notes_of(block: pa.Table) -> dict[str, Any]:
    """How a block's shard went.

    `decode_s` and `predict_s`; `decoded_bytes`, of its windows; `decode_peak` and `predict_peak`, the most memory that
    these workers have had, and `device_peak`, of a GPU, in bytes; `halved`, how often memory was short, if it ever was.
    """
    text = block["notes"][0].as_py() if block.num_rows else None
    notes: dict[str, Any] = json.loads(text) if text else {}
    return notes


def _noted(block: pa.Table, notes: Mapping[str, Any]) -> pa.Table:
    """The block with these notes in its first row."""
    if not block.num_rows:
        return block
    column = pa.array([json.dumps(notes), *[None] * (block.num_rows - 1)], _NOTES.type)
    return block.set_column(block.schema.get_field_index("notes"), _NOTES, column)


class Decode:
    """Opens each span's item and decodes its windows; whatever is wrong with the item becomes its error row."""

    def __init__(
        self,
        task: Task,
        config: PerceiverConfig,
        source: Source,
        limits: Limits,
        meter: Meter = Meter(),  # noqa: B008  # frozen
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.reader = source.reader()
        self.decoder = Decoder(task, config, limits)
        self.kept = source.kept
        self.schema = block_schema(pa.schema([*source.kept, *task.input_schema(config)]))
        self.meter, self.patience_s = meter, patience_s

    def __call__(self, row: pa.Table) -> pa.Table:
        """A shard as it is fed, one row of plan.by_shard."""
        return self.shard(spans_of(row))

    def shard(self, spans: pa.Table) -> pa.Table:
        """A shard as rows of the plan."""
        began, shard = time.perf_counter(), spans["shard"][0].as_py()
        survivable(self.meter, "decode", shard)
        self.tally = Tally(self.meter, "decode")
        done: list[pa.RecordBatch] = []
        failed: list[dict[str, Any]] = []
        for span in spans.to_pylist():
            origin = {field.name: span[field.name] for field in _ORIGIN}
            try:
                done += self._windows(span, origin)
            except (DecoderError, UnavailableError):
                raise
            # One row in, its rows or one error out: whatever a stranger's file raises.
            except Exception as error:
                bad = blame(error, span, "decode", self.patience_s)
                failed.append(origin | {"error": bad.to_json()})
            else:
                if span["error"]:
                    failed.append(origin | {"error": span["error"]})
            # Progress within a shard, of bad spans too.
            self.tally.add(span["stop"] - span["first"])
        good = pa.Table.from_batches(done, self.schema)
        block = pa.concat_tables([good, pa.Table.from_pylist(failed, self.schema)])
        self.tally.flush()
        self.meter.end("decode", shard)
        notes = {"decode_s": round(time.perf_counter() - began, 3), "decoded_bytes": good.nbytes}
        return _noted(block, notes | {"decode_peak": peak_memory()})

    def _windows(self, span: dict[str, Any], origin: dict[str, Any]) -> list[pa.RecordBatch]:
        """The span's windows as rows of the block: all of them, or none, however often its store is asked."""
        if span["first"] == span["stop"]:
            return []

        def tell(error: BaseException, wait_s: float) -> None:
            self.reader.close()  # what it holds on to came by the connection that failed
            self.meter.tell("retrying", **retry_fields("decode", span, error, wait_s))

        decoded = partial(once_more, lambda: self._decoded(span, origin), tell)
        return persistently(decoded, self.patience_s, tell)

    def _decoded(self, span: dict[str, Any], origin: dict[str, Any]) -> list[pa.RecordBatch]:
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
                self.tally.add()
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
    sent: Sent | None = None  #: where `checkpoint` is a folder of another node

    @property
    def folder(self) -> str:
        """The checkpoint's, on the machine that asks."""
        return str(self.sent.here()) if self.sent else self.checkpoint


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
        plain = load(plan.folder, dtype=dtype, device=device, reference=plan.reference)
        self.model: Any = _folded(plain, getattr(torch, plan.dtype)) if plan.fold else plain
        self.kept = kept
        self.meter = meter

    def __call__(self, block: pa.Table) -> pa.Table:
        began, notes = time.perf_counter(), notes_of(block)
        self.tally, self.counted = Tally(self.meter, "predict"), 0  # of the block's rows
        config = self.model.config
        windows, failed = split_block(block)
        schema = block_schema(pa.schema([*self.kept, *self.task.output_schema(config)]))
        done = [_as(failed, schema)]
        self.tally.add(planned_windows(failed))
        if windows.num_rows:
            shard = windows["shard"][0].as_py()
            survivable(self.meter, "predict", shard)
            predictions, halved = self._predictions(windows)
            windows, predictions, bad = self._finite(windows, predictions)
            self.meter.end("predict", shard)
            done.append(_as(bad, schema))
            notes |= {"halved": halved} if halved else {}
        if windows.num_rows:
            columns = {name: windows[name] for name in windows.column_names}
            columns |= self.task.postprocess(windows, predictions, config)
            good = pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)
            if CONTEXT in windows.column_names:
                good = good.filter(pc.invert(windows[CONTEXT]))
            done.insert(0, good)
        self.tally.flush()
        notes |= {"predict_s": round(time.perf_counter() - began, 3), "predict_peak": peak_memory()}
        device = str(self.model.device)
        notes |= {"device_peak": _device_peak(device)} if device.startswith("cuda") else {}
        return _noted(pa.concat_tables(done), notes)

    def _predictions(self, windows: pa.Table) -> tuple[dict[str, Any], int]:
        """What the model says of each window, and how often its batch had to be halved to fit into memory."""
        import torch

        shard = windows["shard"][0].as_py()
        batch, chunk, halved = self.plan.batch, self.plan.chunk, 0
        while True:
            try:
                return self._in_batches(windows, batch, chunk), halved
            except RuntimeError as error:
                if is_sick(error):
                    why = f"{type(error).__name__}: {first_line(error)}"
                    if self.meter.may_replace("predict", shard, "device", why, _REPLACED):
                        end_process()
                    raise broken_device(error, shard, _REPLACED + 1) from None
                if not is_short(error):
                    raise
                if batch == chunk == 1:
                    raise out_of_memory(error, str(self.model.device), self.plan.dtype) from None
            # Not in the handler: its traceback holds on to what the failed call had on the device.
            torch.cuda.empty_cache()
            batch, chunk, halved = max(1, batch // 2), max(1, chunk // 2), halved + 1
            self.meter.tell("oom_halved", shard=shard, batch=batch, chunk=chunk)

    def _in_batches(self, windows: pa.Table, size: int, chunk: int) -> dict[str, Any]:
        predictions: dict[str, Any] = {}
        for start in range(0, windows.num_rows, size):
            stop = min(start + size, windows.num_rows)
            inputs = {
                field.name: _values(windows[field.name].slice(start, stop - start), field.type)
                for field in self.task.input_schema(self.model.config)
            }
            batch = self.task.predict(self.model, _full(inputs, stop - start, size), chunk)
            for name, values in batch.items():
                if isinstance(values, list):
                    predictions.setdefault(name, []).extend(values[: stop - start])
                    continue
                whole = predictions.setdefault(
                    name, np.empty((windows.num_rows, *values.shape[1:]), values.dtype)
                )
                whole[start:stop] = values[: stop - start]
            self._count(windows, stop)
        return predictions

    def _count(self, windows: pa.Table, stop: int) -> None:
        """Count the shard's windows up to `stop`, each once, however often it is begun anew."""
        if stop > self.counted:
            # In the plan's windows: an item that wasn't probed is one there, however many it turned out to have.
            planned, rows = planned_windows(windows), windows.num_rows
            self.tally.add(planned * stop // rows - planned * self.counted // rows)
            self.counted = stop

    def _finite(
        self, windows: pa.Table, predictions: dict[str, Any]
    ) -> tuple[pa.Table, dict[str, Any], pa.Table]:
        """Windows and predictions without the spans that hold NaN or infinity, and these as failed spans.

        The first time that a shard has some, a sick device may be to blame: this process ends, another does it again.
        """
        masks = nonfinite(predictions)
        if not masks:
            return windows, predictions, windows.slice(0, 0)
        shard = windows["shard"][0].as_py()
        why = f"NaN or infinity in {', '.join(masks)}"
        if self.meter.may_replace("predict", shard, "numbers", why, 1):
            end_process()
        spans = list(zip(windows["item_id"].to_pylist(), windows["first"].to_pylist(), strict=True))
        rows: dict[tuple[str, int], list[int]] = {}
        for row, span in enumerate(spans):
            rows.setdefault(span, []).append(row)
        bad = {span: own for span, own in rows.items() if any(mask[own].any() for mask in masks.values())}
        errors = []
        for own in bad.values():
            counts = {name: int(mask[own].sum()) for name, mask in masks.items() if mask[own].any()}
            errors.append(ItemError.of(nonfinite_error(counts, self.plan.dtype), "predict").to_json())
        failed = windows.take([own[0] for own in bad.values()])
        failed = failed.set_column(
            failed.schema.get_field_index("error"), _ERROR, pa.array(errors, _ERROR.type)
        )
        kept = np.array([span not in bad for span in spans])
        good = {
            name: [value for value, keep in zip(values, kept, strict=True) if keep]
            if isinstance(values, list)
            else values[kept]
            for name, values in predictions.items()
        }
        return windows.filter(pa.array(kept)), good, failed


def _device_peak(device: str) -> int:
    """The most memory that this process has had on its GPU, in bytes."""
    import torch

    return torch.cuda.max_memory_allocated(device)


def _full(inputs: dict[str, Any], rows: int, size: int) -> dict[str, Any]:
    """A short batch padded with its last window, so that every call has the same shape; ragged ones have none."""
    if rows == size or any(isinstance(values, list) for values in inputs.values()):
        return inputs
    take = np.minimum(np.arange(size), rows - 1)
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
