"""What the pipeline is fed with, and when."""

import time
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cluster.local import Resources
from pipelines.items import Item
from pipelines.plan import FEED, PLAN, Probed, by_shard, count_shards, cut_shards, shards, spans_of


@given(counts=st.lists(st.integers(0, 9), max_size=40), size=st.integers(1, 5), data=st.data())
def test_every_shard_that_is_not_done_is_fed_once_and_whole(
    counts: list[int], size: int, data: st.DataObject
) -> None:
    items = [Item(f"id{i}", f"/in/{i}", "v", i, member=None if i % 2 else "m") for i in range(len(counts))]
    probed = [Probed(item, n, f"{n}" if n else None, None) for item, n in zip(items, counts, strict=True)]
    plan = cut_shards(probed, size)
    count = count_shards(plan)
    assert count == len(shards(plan))
    done = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    cut = data.draw(st.integers(1, 7))
    plan = pa.Table.from_batches(plan.to_batches(max_chunksize=cut), PLAN)  # as files' row groups cut it
    fed = by_shard(plan, done)
    assert fed.schema.equals(FEED)
    assert fed["shard"].to_pylist() == [shard for shard in range(count) if not done[shard]]
    for row, shard in enumerate(fed["shard"].to_pylist()):
        assert spans_of(fed.slice(row, 1)).equals(shards(plan)[shard])
    if not done.any():
        assert by_shard(plan).equals(fed)


def test_a_million_shards_are_fed_without_a_copy_of_the_plan() -> None:
    """0.07 s, and 0.15 s with half of them done."""
    count = 1_000_000
    ids = pa.array(np.char.mod("%016x", np.arange(count)))
    numbers = pa.array(np.arange(count))
    columns: dict[str, Any] = dict.fromkeys(("item_id", "version", "uri"), ids)
    columns |= dict.fromkeys(("size", "first", "stop"), numbers) | {"shard": numbers.cast(pa.int32())}
    plan = pa.table([columns.get(f.name, pa.nulls(count, f.type)) for f in PLAN], schema=PLAN)
    held, began = pa.total_allocated_bytes(), time.perf_counter()
    fed = by_shard(plan)
    assert time.perf_counter() - began < 5
    assert pa.total_allocated_bytes() - held < 40 << 20
    assert (fed.num_rows, fed["shard"][-1].as_py()) == (count, count - 1)


def test_few_shards_are_blocks_before_their_time(ray_here: Resources) -> None:
    """By Ray's own policies the whole plan is, of which the driver holds 8 kB a shard."""
    import ray.data
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    from pipelines.feeding import feed

    class Slow:
        def __call__(self, row: pa.Table) -> pa.Table:
            time.sleep(0.02)
            return pa.table({"shard": spans_of(row)["shard"], "rows": [row.num_rows]})

    probed = [Probed(Item(f"id{i}", f"/in/{i}", "v", 1), 1, None, None) for i in range(2500)]
    dataset = feed(by_shard(cut_shards(probed, 1)), 0.1)
    dataset.context.enable_progress_bars = False
    made: list[int] = []

    class Watching(ExecutionCallback):
        def on_execution_step(self, executor: Any) -> None:
            made.append(max(op.metrics.num_task_outputs_generated for op in executor._topology))

    dataset.context.custom_execution_callback_classes = [Watching]
    pool = ray.data.ActorPoolStrategy(size=1)
    dataset = dataset.map_batches_internal(
        Slow, batch_size=None, batch_format="pyarrow", compute=pool, num_cpus=0.5
    )
    rows = []
    for bundle in dataset.iter_internal_ref_bundles():
        for block in ray.get(list(bundle.block_refs)):
            rows += block.to_pylist()
        if len(rows) >= 60:
            break
    dataset._synchronize_progress_bar()
    del bundle
    assert rows[:60] == [{"shard": shard, "rows": 1} for shard in range(60)]
    assert made[-1] < 300
