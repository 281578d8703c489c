"""Stores that fail while a run reads from them and writes to them: it goes on by itself, and nobody's row is lost."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Bench, Pace
from tests.faults.proxy import Fault
from tests.faults.store import Store
from tests.faults.work import Work, commits, keys, told

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

EVER = 1_000_000


@pytest.fixture(scope="module")
def far(texts: Work, bucket: Store) -> Work:
    """The same texts, in a bucket."""
    bucket.put({f"in/{path.name}": path.read_bytes() for path in (texts.folder / "in").iterdir()})
    options: dict[str, Any] = {"top_k": 2, "overlap": 4}
    work = Work(texts.folder / "far", texts.model, "text-classification", options, 2, "s3://bucket/in").calm()
    assert work.table["labels"].equals(texts.table["labels"])
    return work


@pytest.fixture
def store(bucket: Store) -> Iterator[Store]:
    """With nothing the matter with it yet, and nothing after."""
    yield bucket
    bucket.proxy.faults.clear()


def survives(bench: Bench, work: Work, store: Store, out: str, faults: list[Fault]) -> None:
    """The run survives these faults, each of which comes as often as it is to, and the table is the undisturbed one."""
    store.proxy.faults[:] = faults
    attempt = bench.run("run", work.job(out))
    assert attempt.process.returncode == 3, attempt.said
    assert [fault for fault in faults if fault.done < fault.times] == []
    store.proxy.faults.clear()
    work.check(out, store)
    work.check_redone(out, bench)
    assert set(commits(out).values()) == {1}


def test_what_fails_in_passing_costs_no_row(bench: Bench, far: Work, store: Store) -> None:
    """Of some requests the driver's client has tries enough, of others it hasn't: then Decode asks again."""
    out = "s3://bucket/passing"
    writes = "PUT /bucket/passing/(data|quarantine|manifests|runs/[0-9a-f]+/(parts|commits|index|events))"
    faults = [
        Fault("slow down", "GET /bucket/in/03", 8),
        Fault("reset", "GET /bucket/in/07", 8),
        Fault("cut", "GET /bucket/in/11", 8),
        Fault("short", "GET /bucket/in/14", 3),
        Fault("slow down", writes, 4),
        Fault("reset", writes, 4),
        Fault("conflict", r"PUT /bucket/passing/runs/[0-9a-f]+/parts", 2),
        Fault("slow down", "GET /bucket/passing/.*parts", 3),
        Fault("cut", "GET /bucket/passing/.*parts", 3),
        Fault("short", "GET /bucket/passing/.*parts", 3),
        Fault("reset", "list-type=2", 3),
        Fault("slow down", "HEAD /bucket/(in|passing)", 6),
    ]
    survives(bench, far, store, out, faults)
    asked = {Path(event["uri"]).stem for event in told(out, "retrying")}
    assert asked >= {"14"}
    assert asked <= {"03", "07", "11", "14"}
    assert all(event["stage"] == "decode" and event["wait_s"] > 0 for event in told(out, "retrying"))


def test_answers_that_are_lost_after_it_was_done(bench: Bench, far: Work, store: Store) -> None:
    """The client asks again, and finds something there: its own."""
    lost = [
        Fault("reply lost", f"PUT /bucket/lost/{folder}", times)
        for folder, times in {
            "runs/[0-9a-f]+/parts": 8,
            "quarantine": 2,
            "data": 1,
            "manifests": 1,
            "runs/leases": 2,
            "runs/[0-9a-f]+/(attempts|run.json|planned)": 2,
        }.items()
    ]
    survives(bench, far, store, "s3://bucket/lost", lost)


def test_an_outage_of_twenty_seconds_in_the_middle(bench: Bench, far: Work, store: Store) -> None:
    out = "s3://bucket/outage"
    attempt = bench.start("run", far.job(out), paces=[Pace("decode begun", 0.3)])
    attempt.wait_for(lambda: attempt.passed("part committed") >= 3)
    store.proxy.outage(20)
    assert attempt.end() == 3, attempt.said
    far.check(out, store)
    assert set(commits(out).values()) == {1}
    retrying = told(out, "retrying")
    assert retrying
    assert {re.sub(r"\d+", "N", event["uri"]) for event in retrying} == {"sN://bucket/in/N.txt"}


def test_a_store_that_ignores_conditions_is_refused(bench: Bench, far: Work, store: Store) -> None:
    store.proxy.faults[:] = [Fault("unconditional", "PUT|POST", EVER)]
    attempt = bench.run("run", far.job("s3://bucket/unconditional"))
    assert attempt.process.returncode == 5, attempt.said
    assert (
        "s3://bucket/unconditional overwrites files that exist where it was asked not to: two writers could not be "
        "told apart. Choose an output on a POSIX file system, S3, GCS or Azure" in attempt.said
    )
    assert keys(store, "unconditional") == []
