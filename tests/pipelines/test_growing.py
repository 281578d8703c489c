"""Pools that follow what they are told, and a run's end, where nobody waits behind a worker that is slow."""

import time
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.local import Resources
from pipelines import growing
from pipelines.growing import Growth, follow, wanted
from pipelines.items import Item
from pipelines.plan import Probed, by_shard, cut_shards, spans_of
from pipelines.pools import Node, Pools

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


def test_an_autoscaler_is_asked_while_there_is_work_for_more(
    ray_here: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator as Coordinator

    monkeypatch.setattr(growing, "_LOOK_S", 0.1)
    asked: list[Any] = []
    cancelled: list[str] = []
    request, cancel = Coordinator.request_resources, Coordinator.cancel_request

    def requesting(self: Any, resources: Any, expire_after_s: float, **more: Any) -> None:
        if self._requester_id.startswith("perceive-"):
            asked.append(resources)
        request(self, resources, expire_after_s, **more)

    def cancelling(self: Any) -> None:
        cancelled.append(self._requester_id)
        cancel(self)

    monkeypatch.setattr(Coordinator, "request_resources", requesting)
    monkeypatch.setattr(Coordinator, "cancel_request", cancelling)

    class Decode:
        def __call__(self, row: pa.Table) -> pa.Table:
            time.sleep(0.1)
            return pa.table({"shard": spans_of(row)["shard"]})

    growth = Growth(lambda: POOLS, bounds=(Node(2.0), Node(2.0), Node(2.0)))
    rows = executed(Decode, 30, 1, follow(growth, POOLS, 30))
    assert len(rows) == 30
    assert asked[0] == [{"CPU": 2.0}] * 3
    assert any(name.startswith("perceive-") for name in cancelled)
    asked.clear()
    executed(Decode, 30, 1, follow(Growth(lambda: POOLS), POOLS, 30))
    assert not asked


NODES = st.lists(
    st.builds(Node, st.sampled_from([1.0, 8.0]), st.sampled_from([0.0, 2.0]), st.just("")), max_size=12
)


@given(bounds=NODES, workers=st.integers(0, 8), left=st.integers(0, 20))
def test_what_is_asked_for(bounds: list[Node], workers: int, left: int) -> None:
    asked = wanted(bounds, workers, left)
    if left <= workers:
        assert asked == []
        return
    kinds = [(node.cpus, node.gpus) for node in bounds]
    for cpus, gpus in {*kinds}:
        bundle = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
        assert asked.count(bundle) == min(left, kinds.count((cpus, gpus)))
    assert len(asked) <= len(bounds)


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
