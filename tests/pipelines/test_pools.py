"""Sizing the pools."""

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.pools import Node, PoolError, Pools, fit_pools

MACHINE = st.tuples(st.integers(1, 256), st.integers(0, 8)).map(lambda node: (node[0], min(node)))
CLUSTER = st.lists(MACHINE, min_size=1, max_size=9)


def held(pools: Pools) -> float:
    """The CPUs that the pools have for good, and what feeding and writing need to go on."""
    workers = pools.decode_workers * pools.decode_cpus + pools.predict_workers * pools.predict_cpus
    return workers + pools.write_cpus + pools.feed_cpus


def survivors(nodes: list[Node]) -> list[Node]:
    """The nodes without the one with most CPUs."""
    return sorted(nodes)[:-1] if len(nodes) > 1 else nodes


def placed(claims: list[Node], nodes: list[Node]) -> bool:
    """Whether there is room for each claim in turn, wherever a scheduler that means ill has put those before it."""
    free = [list(node) for node in nodes]
    for cpus, gpus in claims:
        fitting = [node for node in free if node[0] >= cpus - 1e-9 and node[1] >= gpus]
        if not fitting:
            return False
        # Where least is left: what then remains is in as many pieces as can be.
        tightest = min(fitting, key=lambda node: (node[0] - cpus, node[1]))
        tightest[0] -= cpus
        tightest[1] -= gpus
    return True


@given(nodes=CLUSTER)
def test_every_cluster_gets_pools_that_leave_room_for_feeding_and_writes(nodes: list[Node]) -> None:
    pools = fit_pools(nodes, None, None)
    assert held(pools) <= sum(cpus for cpus, _ in survivors(nodes)) + 1e-9
    assert pools.decode_workers >= 1
    assert pools.predict_workers >= 1
    assert min(pools.write_cpus, pools.feed_cpus, pools.decode_cpus) > 0


@given(nodes=CLUSTER)
def test_gpus_are_all_used_that_are_there_without_the_node_with_most(nodes: list[Node]) -> None:
    gpus = [gpus for _, gpus in nodes]
    left = sum(gpus) - max(gpus) or sum(gpus)  # where one node has all of them, nothing would do without it
    pools = fit_pools(nodes, None, None)
    assert pools.predict_gpus == (1 if left else 0)
    if left:
        assert pools.predict_workers == left


@given(nodes=CLUSTER, order=st.randoms(use_true_random=False))
def test_all_workers_find_room_in_any_order_even_with_the_largest_node_gone(
    nodes: list[Node], order: object
) -> None:
    pools = fit_pools(nodes, None, None)
    decode = [(pools.decode_cpus, 0.0)] * pools.decode_workers
    predict = [(pools.predict_cpus, pools.predict_gpus)] * pools.predict_workers
    others = [(pools.write_cpus, 0.0), (pools.feed_cpus, 0.0)]
    claims = [*decode, *predict, *others]
    if len(nodes) > 1 or not pools.predict_gpus:
        order.shuffle(claims)  # type: ignore[attr-defined]
    assert placed(claims, nodes)
    left = survivors(nodes)
    if not pools.predict_gpus or sum(gpus for _, gpus in left) >= pools.predict_workers:
        assert placed(claims, left)


@given(nodes=CLUSTER, which=st.integers(0, 8), more=st.integers(1, 64))
def test_more_cpus_never_make_a_pool_smaller(nodes: list[Node], which: int, more: int) -> None:
    which %= len(nodes)
    cpus, gpus = nodes[which]
    grown = [*nodes[:which], (cpus + more, gpus), *nodes[which + 1 :]]
    before, after = fit_pools(nodes, None, None), fit_pools(grown, None, None)
    assert after.decode_workers >= before.decode_workers
    assert after.predict_workers >= before.predict_workers
    assert all(new >= old for new, old in zip(astuple(after), astuple(before), strict=True))


@given(nodes=CLUSTER)
def test_a_node_without_cpus_or_gpus_is_none(nodes: list[Node]) -> None:
    """A cluster's head often has nothing to lend."""
    assert fit_pools([(0, 0), *nodes], None, None) == fit_pools(nodes, None, None)


@given(nodes=CLUSTER, asked=st.integers(1, 300))
def test_what_a_job_asks_for_is_what_it_gets_or_a_number_that_it_could_have(
    nodes: list[Node], asked: int
) -> None:
    try:
        assert fit_pools(nodes, asked, None).decode_workers == asked
    except PoolError as error:
        most = int(str(error).rpartition("to at most ")[2].rstrip("."))
        assert fit_pools(nodes, most, None).decode_workers == most < asked
        with pytest.raises(PoolError):
            fit_pools(nodes, most + 1, None)


def test_one_machine_has_what_it_always_had() -> None:
    assert fit_pools([(16, 0)], None, None) == Pools(7, 1.0, 1, 8.0, 0.0, 0.5, 0.1)
    assert fit_pools([(16, 8)], None, None) == Pools(11, 1.0, 8, 0.5, 1.0, 0.5, 0.1)
    assert fit_pools([(2, 0)], None, None) == Pools(1, 0.5, 1, 1.0, 0.0, 0.25, 0.0625)


def test_workers_that_cannot_fit_are_refused_before_they_hang() -> None:
    assert fit_pools([(16, 0)], 7, None).decode_workers == 7
    with pytest.raises(
        PoolError,
        match=r"decode_workers asks for 8 workers of 1 CPUs, but of 16 CPUs 7\.4 are left beside feeding, predicting "
        r"and writing: set it to at most 7\.",
    ):
        fit_pools([(16, 0)], 8, None)
    with pytest.raises(PoolError, match=r"predict_workers asks for 2 GPUs, there are 1: set it to at most 1"):
        fit_pools([(16, 1)], None, 2)


def test_workers_that_would_not_fit_with_the_largest_node_gone_are_refused_as_well() -> None:
    nodes = [(16, 4), (64, 8), (16, 4)]
    assert fit_pools(nodes, None, None).predict_workers == 8
    with pytest.raises(
        PoolError,
        match=r"predict_workers asks for 12 GPUs, there are 8 without the largest of 3 nodes: set it to at most 8\.",
    ):
        fit_pools(nodes, None, 12)
    with pytest.raises(
        PoolError,
        match=r"asks for 30 workers of 1 CPUs, but of 32 CPUs without the largest of 3 nodes 22\.4 are left",
    ):
        fit_pools(nodes, 30, None)
