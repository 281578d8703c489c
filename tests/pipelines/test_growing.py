"""Pools that follow what they are told, and a run's end, where nobody waits behind a worker that is slow."""

import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from cluster.local import Resources
from pipelines import growing
from pipelines.growing import Growth, follow
from pipelines.items import Item
from pipelines.plan import Probed, by_shard, cut_shards, spans_of
from pipelines.pools import Pools

POOLS = Pools(1, 0.25, 1, 0.5, 0.0, 0.25, 0.1)


def executed(stage: Any, shards: int, workers: int, *callbacks: Any) -> list[dict[str, Any]]:
    """The rows of a stage in Ray Data over so many shards."""
    import ray.data

    from pipelines.feeding import feed

    probed = [Probed(Item(f"id{i}", f"/in/{i}", "v", 1), 1, None, None) for i in range(shards)]
    dataset = feed(by_shard(cut_shards(probed, 1)), 0.1)
    dataset.context.enable_progress_bars = False
    dataset.context.custom_execution_callback_classes = [*callbacks]
    dataset = dataset.map_batches_internal(
        stage, batch_size=None, batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=0.25,
    )  # fmt: skip
    rows = []
    for bundle in dataset.iter_internal_ref_bundles():
        for block in ray.get(list(bundle.block_refs)):
            rows += block.to_pylist()
    dataset._synchronize_progress_bar()
    return rows


def test_pools_grow_and_shrink_while_they_work(ray_here: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the run may use is the cluster, however many share it: Ray's own is an equal share."""
    from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    monkeypatch.setattr(growing, "_LOOK_S", 0.1)
    seen: list[int] = []
    limits: list[float] = []
    told: list[Pools] = []

    class Decode:
        def __call__(self, row: pa.Table) -> pa.Table:
            time.sleep(0.05)
            return pa.table({"shard": spans_of(row)["shard"]})

    class Watching(ExecutionCallback):
        def on_execution_step(self, executor: Any) -> None:
            [pool] = [pool for op in executor._topology for pool in op.get_autoscaling_actor_pools()]
            seen.append(pool.get_actor_info().running)
            limits.append(executor._resource_manager.get_global_limits().cpu)

    def fitted() -> Pools:
        if max(seen, default=0) == 3:
            return replace(POOLS, decode_workers=2)
        return replace(POOLS, decode_workers=3 if 1 in seen else 1)

    other = DefaultAutoscalingCoordinator(requester_id="another run")
    other.request_resources([{"CPU": 3}], expire_after_s=60, request_remaining=["CPU"])
    try:
        growth = Growth(fitted, told.append)
        rows = executed(Decode, 300, 1, follow(growth, POOLS, 300), Watching)
    finally:
        other.cancel_request()
    assert sorted(row["shard"] for row in rows) == [*range(300)]
    assert max(seen) == 3
    assert [pools.decode_workers for pools in told] == [3, 2]
    assert set(limits) == {ray_here.cpus}


def test_at_the_end_no_shard_waits_behind_a_slow_worker(ray_here: Resources) -> None:
    """Of 12 shards one takes a second: whoever has it gets none of the rest, which take no time."""

    class Decode:
        def __call__(self, row: pa.Table) -> pa.Table:
            [shard] = spans_of(row)["shard"].to_pylist()
            began = time.time()
            time.sleep(1.0 if shard == 9 else 0.1)
            return pa.table({"shard": [shard], "began": [began], "ended": [time.time()]})

    rows = {row["shard"]: row for row in executed(Decode, 12, 2)}
    assert all(rows[shard]["ended"] < rows[9]["ended"] for shard in (10, 11))
