"""The whole chain, as one Ray Data plan: shards -> Decode (CPU) -> Predict (device) -> parts."""

from collections.abc import Generator
from typing import Any

import pyarrow as pa
import ray.data
from ray.exceptions import ActorDiedError, RayTaskError

from perceiver_core.config import PerceiverConfig
from pipelines.feeding import feed
from pipelines.growing import Growth, follow
from pipelines.limits import Limits
from pipelines.meter import Latest, Meter
from pipelines.pools import Pools
from pipelines.sink import Commit, Sink, write_part
from pipelines.sources import Source
from pipelines.stages import Decode, ModelPlan, Predict
from pipelines.tasks import Task
from pipelines.transient import PATIENCE_S
from pipelines.watchdog import Watch, watch

_TYPE = "ray.io/accelerator-type"  # Ray's label of a node, by its GPUs
_TRIES = 3  # more, of a write
_ADVICE = "Failed to apply UDF transform after"  # one try, and how to configure retries
_RETRIES: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1}  # trouble.survivable counts


def build(
    shards: pa.Table,
    task: Task,
    config: PerceiverConfig,
    source: Source,
    limits: Limits,
    model: ModelPlan,
    device: str,
    threads: int,
    sink: Sink,
    pools: Pools,
    meter: Meter,
    watched: Watch = Watch(),  # noqa: B008  # frozen
    patience_s: float = PATIENCE_S,
    accelerator: str | None = None,
    growth: Growth | None = None,
) -> ray.data.Dataset:
    """The dataset of commits of these shards, as plan.by_shard gives them.

    One shard is one block from Decode on, so one task a stage and one part. With an `accelerator`, the model runs on
    nodes with GPUs of this type; with `growth`, the pools follow the cluster's nodes.
    """
    workers = pools.at_once(0, shards.num_rows)  # without a shard, one would open the weights for nothing
    dataset = feed(shards, pools.feed_cpus)
    context = dataset.context  # a copy: the process's own stays as it is
    context.target_max_block_size = None  # at its default a 289 MB shard reached the sink as two tasks
    context.enable_progress_bars = False  # ours are in windows
    context.raise_original_map_exception = True  # else ours are lost in a UserCodeException
    # Ray's own sees no progress within a shard.
    context.execution_no_progress_timeout_s = -1
    context.custom_execution_callback_classes = [
        watch(watched.patience(limits.seconds), Latest(meter), watched.dump),
        *([follow(growth, pools, shards.num_rows)] if growth else []),
    ]
    # map_batches_internal is map_batches less two checks: it takes batch_size=None on GPUs (any number would split
    # or bundle shards), as Ray's own map_groups needs it to, and it takes the limits below without a deprecation.
    dataset = dataset.map_batches_internal(
        Decode,
        fn_constructor_args=(task, config, source, limits, meter, patience_s),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers["decode"]),
        num_cpus=pools.decode_cpus,
        **_RETRIES,
    )
    dataset = dataset.map_batches_internal(
        Predict,
        fn_constructor_args=(task, model, device, threads, source.kept, meter),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers["predict"]),
        num_cpus=pools.predict_cpus,
        num_gpus=pools.predict_gpus,
        label_selector={_TYPE: accelerator} if accelerator and pools.predict_gpus else None,
        **_RETRIES,
    )
    return dataset.map_batches_internal(
        write_part,  # type: ignore[arg-type]  # Ray's annotation knows no function with fn_kwargs
        fn_kwargs={"sink": sink, "meter": meter},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=pools.write_cpus,
        max_retries=_TRIES,
    )


def commits(dataset: ray.data.Dataset) -> Generator[Commit, None, None]:
    """Run the dataset; yields every commit as it happens. Close it to stop early: the execution stops with it.

    Not by iter_batches: its threads outlive it, and a reference that one of them drops after ray.shutdown() takes
    the whole process along, with exit code 1 and without a word.
    """
    try:
        for bundle in dataset.iter_internal_ref_bundles():
            for block in ray.get(list(bundle.block_refs)):
                for row in block.to_pylist():
                    yield Commit(**row)
    finally:
        dataset._synchronize_progress_bar()  # as Ray's own blocking calls end: it stops the execution


def cause_of(error: BaseException) -> BaseException:
    """What was raised in a worker, of what Ray raises here; the error itself where nothing was."""
    inner: object = None
    if isinstance(error, RayTaskError):
        inner = error.cause
    elif isinstance(error, ActorDiedError):  # while it started: Ray keeps what it raised as its own argument
        inner = next((one for one in error.args if isinstance(one, BaseException)), None)
    if not isinstance(inner, BaseException) or inner is error:
        return error
    return cause_of(_without_advice(inner))


def _without_advice(error: BaseException) -> BaseException:
    """An error without what Ray appends to its text, or as a third argument that OSError takes for a file's name."""
    given = [arg.partition(f"\n{_ADVICE}")[0] if isinstance(arg, str) else arg for arg in error.args]
    error.args = tuple(arg for arg in given if not (isinstance(arg, str) and arg.startswith(_ADVICE)))
    named = isinstance(error, OSError) and str(error.filename).startswith(_ADVICE)
    return OSError(*error.args) if named else error
