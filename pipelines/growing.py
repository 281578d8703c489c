"""A run on a cluster that changes: its pools follow its nodes, and no other run on it halves what it may use."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.pools import Pools
from pipelines.watchdog import Here, stage_name

if TYPE_CHECKING:
    from ray.data._internal.execution.execution_callback import ExecutionCallback

_LOOK_S = 5.0


@dataclass(frozen=True)
class Growth:
    """What a run's pools are, as its nodes are now, and who is told when that changes."""

    fitted: Callable[[], Pools]
    tell: Callable[[Pools], None] = lambda pools: None


def follow(growth: Growth, pools: Pools, shards: int) -> type["ExecutionCallback"]:
    """A callback class for Ray Data: it keeps the stages' pools as large as `growth` says, which began as `pools`.

    Ray's own pools have bounds that are fixed before a run, and grow into whatever is free, which leaves nothing for
    workers of a node that is lost. Raises what `growth` raises.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback
    from ray.data._internal.execution.interfaces import ExecutionResources

    held = Here(growth)

    class Following(ExecutionCallback):
        def before_execution_starts(self, executor: Any) -> None:
            import ray

            self.looked, self.pools = time.monotonic(), pools
            self.total = ExecutionResources.from_resource_dict(ray.cluster_resources())
            # Ray Data (2.60) gives each run an equal share of a cluster, less than pools that are sized for what others
            # leave have already: the run would write nothing more. So long a killed driver has a share as well.
            executor._resource_manager._get_total_resources = lambda: self.total

        def on_execution_step(self, executor: Any) -> None:
            import ray

            if time.monotonic() < self.looked + _LOOK_S:
                return
            self.looked = time.monotonic()
            self.total = ExecutionResources.from_resource_dict(ray.cluster_resources())
            now = held.value.fitted()
            if now == self.pools:
                return
            self.pools = now
            workers = now.at_once(0, shards)
            for op in executor._topology:
                size = workers.get(stage_name(op.name).lower())
                for pool in op.get_autoscaling_actor_pools():
                    if size is not None:
                        # Between equal bounds Ray starts what is missing, and ends workers that have nothing to do.
                        pool._config = replace(pool._config, min_size=size, max_size=size, initial_size=size)
            held.value.tell(now)

    return Following
