"""Where workers are on a cluster: spread over its nodes, on GPUs of a type, several on one; beside another run."""

from collections import Counter
from pathlib import Path

import pytest

from cluster.joined import joined_ray
from jobs.attempt import which
from jobs.nodes import nodes_of, sent_to_all
from jobs.planning import plan_of, sink_of
from jobs.spec import load_job
from perceiver_core.checkpoint import inspect
from pipelines.meter import Meter, Quiet
from pipelines.plan import by_shard
from pipelines.pools import Node, Pools, fit_pools, only_type
from pipelines.storage import open_storage
from tests.nodes.raylets import Raylets
from tests.nodes.work import Work
from tests.pipelines.staging import save_head

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

TYPE = "ray.io/accelerator-type"


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path, save_head(tmp_path / "model", "PerceiverForSequenceClassification"), texts=60)


def places(stage: str) -> Counter[str]:
    """How many live workers of a stage each node has."""
    from ray._private import state

    return Counter(
        actor["Address"]["NodeID"]
        for actor in state.actors().values()
        if actor["ActorClassName"] == f"MapWorker(MapBatches({stage}))" and actor["State"] == "ALIVE"
    )


def test_workers_are_spread_over_the_nodes_with_the_gpus_asked_for(work: Work) -> None:
    """And each of these nodes has fetched the checkpoint, once."""
    raylets = Raylets(work)
    try:
        good = [raylets.add(num_gpus=1, labels={TYPE: "H100"}).node_id for _ in range(3)]
        raylets.add(num_gpus=1, labels={TYPE: "T4"})
        with joined_ray(raylets.address) as cluster:
            nodes = nodes_of(cluster.nodes)
            pools = fit_pools(only_type(nodes, "H100"), 2, None, gpus_per_worker=0.5, grows=True)
            assert (pools.predict_workers, pools.predict_gpus) == (4, 0.5)  # two a node, and one node may go
            seen = placed(work, nodes, pools)
    finally:
        raylets.close()
    assert set(seen["Predict"]) == set(good)
    assert sorted(seen["Predict"].values()) == [1, 1, 2]
    assert len(seen["Decode"]) == 2
    fetched = sorted(work.folder.glob("cache-*/checkpoints/sent-*[!k]"))
    assert [path.parent.parent.name for path in fetched] == ["cache-0", "cache-1", "cache-2"]
    assert {inspect(path).digest for path in fetched} == {inspect(work.model).digest}


def placed(work: Work, nodes: tuple[Node, ...], pools: Pools) -> dict[str, Counter[str]]:
    """Where a run's workers are while it runs, in this process; all of them on CPUs, whatever they ask for."""
    from pipelines import pipeline

    job = load_job(str(work.job("placed", device="cpu")))
    found = which(job, Quiet(), nodes=nodes)
    resolved, storage = found.resolved, open_storage(job.output.uri)
    planned = plan_of(found.record, resolved, storage, found.listing, found.news, Quiet())
    assert planned
    storage.prepare()
    dataset = pipeline.build(
        by_shard(planned.plan), job.options, resolved.config, resolved.source, job.limits, sent_to_all(resolved),
        "cpu", 1, sink_of(storage, found.record, resolved, 1), pools, Meter.start(), accelerator="H100",
    )  # fmt: skip
    most: dict[str, Counter[str]] = {"Decode": Counter(), "Predict": Counter()}
    for _ in pipeline.commits(dataset):
        for stage, before in most.items():
            now = places(stage)
            if now.total() > before.total():
                most[stage] = now
    return most


def test_two_runs_share_a_cluster_and_a_third_is_refused(work: Work) -> None:
    work.set_pace(1.5)  # the first two are at it when the third comes
    raylets = Raylets(work, nodes=3)
    try:
        one = raylets.start("one", decode_workers=1, predict_workers=1)
        one.wait_for(lambda: len(work.committed("one")) >= 3)
        two = raylets.start("two")
        two.wait_for(lambda: work.committed("two"))
        three = raylets.start("three")
        three.end(code=2)
        assert "and what is left is too little for this run beside them" in three.said
        one.end()
        two.end()
    finally:
        raylets.close()
    assert work.table("one").equals(work.table("two"))
