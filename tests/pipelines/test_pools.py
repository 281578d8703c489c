"""Sizing the pools."""

from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.pools import Node, PoolError, Pools, fit_pools, only_type, refit

MACHINE = st.tuples(st.integers(1, 256), st.integers(0, 8)).map(lambda node: Node(node[0], min(node)))
CLUSTER = st.lists(MACHINE, min_size=1, max_size=9)


def held(pools: Pools) -> float:
    """The CPUs that the pools have for good, and what feeding and writing need to go on."""
    workers = pools.decode_workers * pools.decode_cpus + pools.predict_workers * pools.predict_cpus
    return workers + pools.write_cpus + pools.feed_cpus


def survivors(nodes: list[Node]) -> list[Node]:
    """The nodes without the one with most CPUs."""
    return sorted(nodes)[:-1] if len(nodes) > 1 else nodes


def claims_of(pools: Pools) -> list[tuple[float, float]]:
    """What all workers ask for, and feeding and writing."""
    decode = [(pools.decode_cpus, 0.0)] * pools.decode_workers
    predict = [(pools.predict_cpus, pools.predict_gpus)] * pools.predict_workers
    return [*decode, *predict, (pools.write_cpus, 0.0), (pools.feed_cpus, 0.0)]


def placed(claims: list[tuple[float, float]], nodes: list[Node]) -> bool:
    """Whether there is room for each claim in turn, wherever a scheduler that means ill has put those before it."""
    free = [[node.cpus, node.gpus] for node in nodes]
    for cpus, gpus in claims:
        fitting = [node for node in free if node[0] >= cpus - 1e-9 and node[1] >= gpus - 1e-9]
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
    assert held(pools) <= sum(node.cpus for node in survivors(nodes)) + 1e-9
    assert pools.decode_workers >= 1
    assert pools.predict_workers >= 1
    assert min(pools.write_cpus, pools.feed_cpus, pools.decode_cpus) > 0


@given(nodes=CLUSTER)
def test_gpus_are_all_used_that_are_there_without_the_node_with_most(nodes: list[Node]) -> None:
    gpus = [node.gpus for node in nodes]
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
    claims = claims_of(pools)
    if len(nodes) > 1 or not pools.predict_gpus:
        order.shuffle(claims)  # type: ignore[attr-defined]
    assert placed(claims, nodes)
    left = survivors(nodes)
    if not pools.predict_gpus or sum(node.gpus for node in left) >= pools.predict_workers:
        assert placed(claims, left)


@given(nodes=CLUSTER, which=st.integers(0, 8), more=st.integers(1, 64))
def test_more_cpus_never_make_a_pool_smaller(nodes: list[Node], which: int, more: int) -> None:
    which %= len(nodes)
    grown = [*nodes[:which], nodes[which]._replace(cpus=nodes[which].cpus + more), *nodes[which + 1 :]]
    before, after = fit_pools(nodes, None, None), fit_pools(grown, None, None)
    assert after.decode_workers >= before.decode_workers
    assert after.predict_workers >= before.predict_workers
    assert all(new >= old for new, old in zip(astuple(after), astuple(before), strict=True))


@given(nodes=CLUSTER)
def test_a_node_without_cpus_or_gpus_is_none(nodes: list[Node]) -> None:
    """A cluster's head often has nothing to lend."""
    assert fit_pools([Node(0), *nodes], None, None) == fit_pools(nodes, None, None)


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
    assert fit_pools([Node(16, 0)], None, None) == Pools(7, 1.0, 1, 8.0, 0.0, 0.5, 0.1)
    assert fit_pools([Node(16, 8)], None, None) == Pools(11, 1.0, 8, 0.5, 1.0, 0.5, 0.1)
    assert fit_pools([Node(2, 0)], None, None) == Pools(1, 0.5, 1, 1.0, 0.0, 0.25, 0.0625)


def test_workers_that_cannot_fit_are_refused_before_they_hang() -> None:
    assert fit_pools([Node(16, 0)], 7, None).decode_workers == 7
    with pytest.raises(
        PoolError,
        match=r"decode_workers asks for 8 workers of 1 CPUs, but of 16 CPUs 7\.4 are left beside feeding, predicting "
        r"and writing: set it to at most 7\.",
    ):
        fit_pools([Node(16, 0)], 8, None)
    with pytest.raises(
        PoolError,
        match=r"asks for 2 workers of 1 GPUs, there is room for 1: set it to at most 1\.",
    ):
        fit_pools([Node(16, 1)], None, 2)


def test_workers_that_would_not_fit_with_the_largest_node_gone_are_refused_as_well() -> None:
    nodes = [Node(16, 4), Node(64, 8), Node(16, 4)]
    assert fit_pools(nodes, None, None).predict_workers == 8
    with pytest.raises(
        PoolError,
        match=r"predict_workers asks for 12 workers of 1 GPUs, there is room for 8 without the largest of 3 nodes: set "
        r"it to at most 8\.",
    ):
        fit_pools(nodes, None, 12)
    with pytest.raises(
        PoolError,
        match=r"asks for 30 workers of 1 CPUs, but of 32 CPUs without the largest of 3 nodes 22\.4 are left",
    ):
        fit_pools(nodes, 30, None)


FRACTION = st.sampled_from([0.1, 0.25, 0.3, 0.5, 1.0, 2.0, 4.0])


@given(nodes=CLUSTER, each=FRACTION)
def test_workers_of_a_part_of_a_gpu_or_of_several_are_counted_on_each_node(
    nodes: list[Node], each: float
) -> None:
    seats = [int(node.gpus / each + 1e-9) for node in nodes]
    if any(node.gpus for node in nodes) and not any(seats):
        with pytest.raises(PoolError, match=r"gpus_per_worker asks for .* of one node, but the largest has"):
            fit_pools(nodes, None, None, gpus_per_worker=each)
        return
    pools = fit_pools(nodes, None, None, gpus_per_worker=each)
    if any(seats):
        assert pools.predict_gpus == each
        assert pools.predict_workers == (sum(seats) - max(seats) or sum(seats))
        assert placed(claims_of(pools), nodes)
    else:
        assert pools.predict_gpus == 0


@given(cpus=st.integers(1, 64), gpus=st.integers(0, 8), before=st.integers(1, 6), now=st.integers(1, 9))
def test_of_nodes_that_are_alike_a_run_gets_as_much_as_if_it_had_begun_on_them(
    cpus: int, gpus: int, before: int, now: int
) -> None:
    node = Node(cpus, min(gpus, cpus))
    begun = fit_pools([node] * before, None, None, grows=True)
    assert refit(begun, [node] * now, None, None) == fit_pools([node] * now, None, None, grows=True)


@given(before=CLUSTER, now=CLUSTER, order=st.randoms(use_true_random=False))
def test_pools_that_grew_or_shrank_find_room_in_any_order_even_with_the_largest_node_gone(
    before: list[Node], now: list[Node], order: object
) -> None:
    begun = fit_pools(before, None, None, grows=True)
    pools = refit(begun, now, None, None)
    if pools == begun:
        return
    assert (pools.decode_cpus, pools.predict_cpus) == (begun.decode_cpus, begun.predict_cpus)
    claims = claims_of(pools)
    order.shuffle(claims)  # type: ignore[attr-defined]
    assert placed(claims, now)
    left, fresh = survivors(now), fit_pools(now, None, None, grows=True)
    some_left_out = begun.decode_cpus > fresh.decode_cpus or begun.predict_cpus > fresh.predict_cpus
    if some_left_out:  # of the others there may be just one
        return
    if not pools.predict_gpus or sum(node.gpus for node in left) >= pools.predict_workers:
        assert placed(claims, left)


def test_pools_stay_where_the_nodes_that_are_left_have_no_room_for_what_the_job_asks_for() -> None:
    node = Node(16)
    begun = fit_pools([node] * 3, 10, None)
    assert refit(begun, [node] * 4, 10, None).decode_workers == 10
    assert refit(begun, [node] * 2, 10, None) == begun
    assert refit(begun, [Node(1)], 10, None) == begun
    alone = fit_pools([node], None, None, grows=True)
    assert (
        refit(alone, [node, Node(1), Node(1), Node(1)], None, None) == alone
    )  # no room for a worker of theirs


def test_what_others_hold_is_not_given_away() -> None:
    nodes = [Node(16, 4)] * 3
    pools = fit_pools(nodes, None, None, held=Node(10, 3))
    assert pools.predict_workers == 5
    assert held(pools) <= 32 - 10
    with pytest.raises(
        PoolError,
        match=r"Of 32 CPUs without the largest of 3 nodes others hold 31, and what is left is too little for this run "
        r"beside them\. Run it when they have ended, or give each run so few workers that all fit",
    ):
        fit_pools([Node(16)] * 3, None, None, held=Node(31))
    with pytest.raises(
        PoolError, match=r"Others hold 8 GPUs, and what is left without the largest of 3 nodes has no"
    ):
        fit_pools(nodes, None, None, held=Node(1, 8))
    with pytest.raises(
        PoolError,
        match=r"asks for 6 workers of 1 GPUs, there is room for 5 without the largest of 3 nodes and the 3 that others "
        r"hold: set it to at most 5\.",
    ):
        fit_pools(nodes, None, 6, held=Node(1, 3))
    with pytest.raises(
        PoolError, match=r"are left beside feeding, predicting and writing and the 10 that others hold"
    ):
        fit_pools(nodes, 30, None, held=Node(10))


def test_only_gpus_of_the_type_asked_for_count() -> None:
    nodes = [Node(16, 8, "A100"), Node(16, 4, "T4"), Node(16, 4, "T4"), Node(16)]
    assert only_type(nodes, "T4") == (Node(16, 0, "A100"), *nodes[1:])
    assert fit_pools(only_type(nodes, "T4"), None, None).predict_workers == 4
    with pytest.raises(
        PoolError, match=r"accelerator asks for H100, but the nodes have A100, T4\. Set it to what"
    ):
        only_type(nodes, "H100")
    with pytest.raises(
        PoolError, match=r"but no node says what its GPUs are \(Ray's label ray\.io/accelerator-type\)"
    ):
        only_type([Node(16, 8)], "H100")
    with pytest.raises(PoolError, match=r"but no node has a GPU that may be used"):
        only_type([Node(16, 0, "H100")], "H100")
