"""The whole chain, as one Ray Data plan: shards -> Decode (CPU) -> Predict (device) -> parts."""

from collections.abc import Generator, Sequence
from typing import Any

import pyarrow as pa
import ray.data

from perceiver_core.config import PerceiverConfig
from pipelines.limits import Limits
from pipelines.meter import Meter
from pipelines.pools import Pools
from pipelines.sink import Commit, Sink, write_part
from pipelines.sources import Source
from pipelines.stages import Decode, ModelPlan, Predict
from pipelines.tasks import Task

_TRIES = 3  # of a shard that kills its worker; by default Ray would go on for ever
_RETRIES: dict[str, Any] = {"max_restarts": -1, "max_task_retries": _TRIES}


def build(
    shards: Sequence[pa.Table],
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
) -> ray.data.Dataset:
    """The dataset of commits: one shard is one block from end to end, so one task a stage and one part."""
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = None  # at its default a 289 MB shard reached the sink as two tasks
    context.enable_progress_bars = False  # ours are in windows
    dataset: ray.data.Dataset = ray.data.from_arrow(list(shards))
    # map_batches_internal is map_batches less two checks: it takes batch_size=None on GPUs (any number would split
    # or bundle shards), as Ray's own map_groups needs it to, and it takes the limits below without a deprecation.
    dataset = dataset.map_batches_internal(
        Decode,
        fn_constructor_args=(task, config, source, limits),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=pools.decode_workers),
        num_cpus=pools.decode_cpus,
        **_RETRIES,
    )
    dataset = dataset.map_batches_internal(
        Predict,
        fn_constructor_args=(task, model, device, threads, source.kept, meter),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=pools.predict_workers),
        num_cpus=pools.predict_cpus,
        num_gpus=pools.predict_gpus,
        **_RETRIES,
    )
    return dataset.map_batches_internal(
        write_part,  # type: ignore[arg-type]  # Ray's annotation knows no function with fn_kwargs
        fn_kwargs={"sink": sink},
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
