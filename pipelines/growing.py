"""A run on a cluster that changes: its pools follow its nodes, and no other run on it halves what it may use.

Where the cluster has an autoscaler, the run asks it for nodes while there is work for them.
"""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.pools import Node, Pools
from pipelines.watchdog import Here, stage_name

if TYPE_CHECKING:
    from ray.data._internal.execution.execution_callback import ExecutionCallback

_LOOK_S = 5.0
_ASKED_S = 60.0  # what a run asks for is forgotten so long after it was last heard of


@dataclass(frozen=True)
class Growth:
    """What a run's pools are, as its nodes are now, and who is told when that changes."""

    fitted: Callable[[], Pools]
    tell: Callable[[Pools], None] = lambda pools: None
    bounds: tuple[Node, ...] = ()  #: what the cluster's autoscaler may make of it; without one, nothing


def wanted(bounds: Sequence[Node], workers: int, left: int) -> list[dict[str, float]]:
    """What to ask an autoscaler for, a bundle a node, where `left` shards are not done and there are so many workers.

    Of each kind of node, as many as it may have, but no more than shards: one node has work for one at least. Nothing
    once each shard has its worker.
    """
    if left <= workers:
        return []
    kinds = Counter((node.cpus, node.gpus) for node in bounds)
    return [
        {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
        for (cpus, gpus), count in kinds.items()
        for _ in range(min(count, left))
    ]


def follow(growth: Growth, pools: Pools, shards: int) -> type["ExecutionCallback"]:
    """A callback class for Ray Data: it keeps the stages' pools as large as `growth` says, which began as `pools`.

    Ray's own pools have bounds that are fixed before a run, and grow into whatever is free, which leaves nothing for
    workers of a node that is lost. Of an autoscaler they ask for nodes only as they are used up, which such pools never
    are. Raises what `growth` raises.
    """
    from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator
    from ray.data._internal.execution.execution_callback import ExecutionCallback
    from ray.data._internal.execution.interfaces import ExecutionResources

    held = Here(growth)

    class Following(ExecutionCallback):
        def before_execution_starts(self, executor: Any) -> None:
            import ray

            self.looked, self.pools = time.monotonic(), pools
            self.workers = pools.at_once(0, shards)
            self.asking = DefaultAutoscalingCoordinator(requester_id=f"perceive-{uuid.uuid4().hex}")
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
            now, left = held.value.fitted(), shards
            if held.value.bounds:
                left -= [*executor._topology][-1].metrics.num_tasks_finished  # a write is a shard
                asked = wanted(held.value.bounds, self.workers["predict"], left)
                self.asking.request_resources(asked, _ASKED_S)
            workers = now.at_once(0, max(1, left))
            if workers == self.workers:
                return
            self.workers = workers
            for op in executor._topology:
                size = workers.get(stage_name(op.name).lower())
                for pool in op.get_autoscaling_actor_pools():
                    if size is not None:
                        # Between equal bounds Ray starts what is missing, and ends workers that have nothing to do.
                        pool._config = replace(pool._config, min_size=size, max_size=size, initial_size=size)
            if now != self.pools:
                self.pools = now
                held.value.tell(now)

        def after_execution_succeeds(self, executor: Any) -> None:
            self._done()

        def after_execution_fails(self, executor: Any, error: Exception) -> None:
            self._done()

        def _done(self) -> None:
            if held.value.bounds:
                self.asking.cancel_request()

    return Following
