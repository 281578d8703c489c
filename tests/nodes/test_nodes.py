"""Runs on clusters whose nodes come and go: the same table, whatever happens, and how long it takes to go on.

What they measured is printed in the end: pytest -m nodes -rP.
"""

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest

from tests.nodes.links import PROFILE, Switch, why_not
from tests.nodes.raylets import Raylets
from tests.nodes.work import Work
from tests.pipelines.staging import save_head

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(600)]

TEXTS = 60


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("nodes")
    model = save_head(folder / "model", "PerceiverForSequenceClassification")
    return Work(folder, model, TEXTS)


@pytest.fixture(scope="module")
def tables(work: Work) -> tuple[pa.Table, pa.Table]:
    """What comes of the job on one node, undisturbed."""
    raylets = Raylets(work, nodes=1)
    try:
        raylets.start("calm").end()
    finally:
        raylets.close()
    return work.table("calm"), work.quarantine("calm")


@pytest.fixture
def raylets(work: Work) -> Iterator[Raylets]:
    made = Raylets(work)
    try:
        yield made
    finally:
        made.close()


def same(work: Work, out: str, tables: tuple[pa.Table, pa.Table]) -> bool:
    """Bit by bit, and in the same order."""
    return work.table(out).equals(tables[0]) and work.quarantine(out).equals(tables[1])


def commits(work: Work, out: str, least: int) -> bool:
    return len(work.committed(out)) >= least


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_as_many_nodes_as_there_are_make_the_same_table(
    nodes: int, work: Work, raylets: Raylets, tables: tuple[pa.Table, pa.Table]
) -> None:
    for _ in range(nodes):
        raylets.add()
    out = f"nodes-{nodes}"
    seconds = raylets.start(out).end()
    assert same(work, out, tables)
    [first, *_] = work.events(out, "progress")
    assert first["stages"]["predict"]["workers"] == nodes - 1  # all but the one that may go
    print(f"{nodes} nodes: {seconds:.1f} s")


def test_a_node_is_killed(work: Work, raylets: Raylets, tables: tuple[pa.Table, pa.Table]) -> None:
    nodes = [raylets.add() for _ in range(3)]
    run = raylets.start("killed")
    run.wait_for(lambda: commits(work, "killed", 10))
    raylets.kill(nodes[1])
    when = time.time()
    run.end()
    assert same(work, "killed", tables)
    [changed, *_] = work.events("killed", "nodes_changed")
    assert (changed["nodes"], changed["workers"]["predict"]) == (3, 1)  # with the head
    print(f"a node killed: nothing was committed for {work.gap('killed', when):.1f} s")


def test_a_node_is_added(work: Work, raylets: Raylets, tables: tuple[pa.Table, pa.Table]) -> None:
    work.set_pace(1.5)  # it takes a while until a worker on it has begun
    try:
        for _ in range(2):
            raylets.add()
        before = len(work.predictors())
        run = raylets.start("added")
        run.wait_for(lambda: commits(work, "added", 5))
        when = time.time()
        raylets.add()
        run.wait_for(lambda: len(work.predictors()) == before + 2)
        began = time.time() - when
        [changed] = work.events("added", "nodes_changed")
        assert (changed["nodes"], changed["workers"]["predict"]) == (4, 2)  # with the head
        run.end()
    finally:
        work.set_pace(0.4)
    assert same(work, "added", tables)
    print(f"a node added: it predicts after {began:.1f} s")


def test_the_head_dies(work: Work, tables: tuple[pa.Table, pa.Table]) -> None:
    """With it goes the run's own process's Ray; another cluster goes on with what is committed."""
    raylets = Raylets(work, nodes=2)
    try:
        run = raylets.start("headless")
        run.wait_for(lambda: commits(work, "headless", 10))
        raylets.kill_head()
        when = time.time()
        run.end(code=5)
        noticed = time.time() - when
    finally:
        raylets.close()
    done = len(work.committed("headless"))
    again = Raylets(work, nodes=2)
    try:
        run = again.start("headless")
        run.wait_for(lambda: len(work.committed("headless")) > done)
        resumed = work.committed("headless")[done] - run.began
        run.end()
    finally:
        again.close()
    assert same(work, "headless", tables)
    assert len(work.committed("headless")) <= TEXTS + 12  # what was in flight
    print(f"the head killed: noticed after {noticed:.1f} s; resumed, first commit after {resumed:.1f} s")


@pytest.fixture
def switch(work: Work) -> Iterator[Switch]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    made = Switch(work, PROFILE)
    try:
        made.add(cpus=0)
        for _ in range(3):
            made.add(cpus=2)
        yield made
    finally:
        made.close()


def test_a_link_is_cut_and_healed(work: Work, switch: Switch, tables: tuple[pa.Table, pa.Table]) -> None:
    run = switch.start("healed")
    run.wait_for(lambda: commits(work, "healed", 10))
    switch.cut(switch.machines[2])
    when = time.time()
    time.sleep(4)
    switch.heal(switch.machines[2])
    run.end()
    assert same(work, "healed", tables)
    assert not work.events("healed", "nodes_changed")
    print(f"a link cut for 4 s: nothing was committed for {work.gap('healed', when):.1f} s")


def test_a_link_is_cut_for_good(work: Work, switch: Switch, tables: tuple[pa.Table, pa.Table]) -> None:
    run = switch.start("cut")
    run.wait_for(lambda: commits(work, "cut", 10))
    switch.cut(switch.machines[2])
    when = time.time()
    run.end()
    assert same(work, "cut", tables)
    [changed, *_] = work.events("cut", "nodes_changed")
    assert changed["nodes"] == 3
    print(f"a link cut for good: nothing was committed for {work.gap('cut', when):.1f} s")
