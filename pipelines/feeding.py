"""Feeding the pipeline: a table with a row per shard becomes a block per shard, a few at a time."""

import math
from typing import Any

import pyarrow as pa
import ray.data
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy
from ray.data._internal.logical.interfaces import LogicalPlan
from ray.data._internal.logical.operators import StreamingRepartition

_SHARDS = "perceive_shards"  # the setting that says how many there are
_AHEAD = 4  # shards that wait for each worker of the next stage
_BUFFER = 64  # of these on their way: Ray looks ten times a second, and by default finds two


class FewAhead(BackpressurePolicy):
    """No stage is far ahead of the next: a crash costs the few shards between them, and no more.

    Ray Data's policies count bytes: all 60 shards of a plan were decoded while 8 were committed, and of the plan's own
    rows, which have next to none, all were in the driver's memory, 8 kB a shard.
    """

    def can_add_input(self, op: Any) -> bool:
        return not self._has_enough(op) and not self._would_queue_at_the_end(op)

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        return 0 if self._has_enough(op) else None

    def _would_queue_at_the_end(self, op: Any) -> bool:
        """Whether a worker would be given a second shard, where each of the last could go to one that is idle sooner.

        With two for each to the end, as is Ray's default, one on a slow node has twice its own time for a shard to go
        when the others are done.
        """
        left = self._data_context.get_config(_SHARDS, math.inf) - op.metrics.num_inputs_received
        return any(
            left <= pool.current_size() and not pool.num_idle_actors()
            for pool in op.get_autoscaling_actor_pools()
        )

    def _has_enough(self, op: Any) -> bool:
        """Whether enough of what the operator has done waits already."""
        if not (op.input_dependencies and op.output_dependencies):
            return False
        workers = sum(taker.get_max_concurrency_limit() or 1 for taker in op.output_dependencies)
        return bool(self._topology[op].total_enqueued_output_blocks() >= _AHEAD * workers)


def feed(shards: pa.Table, cpus: float) -> ray.data.Dataset:
    """A block for each row of plan.by_shard, in order. As a list of tables a million took an hour, and 60 GB."""
    blocks = [pa.Table.from_batches([batch]) for batch in shards.to_batches()]
    dataset: ray.data.Dataset = ray.data.from_blocks(blocks)
    context = dataset.context  # a copy: the process's own stays as it is
    context.set_config(_SHARDS, shards.num_rows)
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, FewAhead])
    # Dataset.repartition has no argument for CPUs. Its task would ask for one, and wait for ever where pools have all.
    cut = StreamingRepartition(
        target_num_rows_per_block=1,
        input_dependencies=[dataset._logical_plan.dag],
        ray_remote_args={"num_cpus": cpus, "_generator_backpressure_num_objects": 2 * _BUFFER},
        compute=ray.data.TaskPoolStrategy(size=1),
    )
    return ray.data.Dataset._from_parent(dataset, LogicalPlan(cut, context))
