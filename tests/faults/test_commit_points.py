"""Everything is killed at every commit point, and the run resumed: each time the table is the undisturbed one."""

from pathlib import Path

import pytest

from pipelines import commit_points
from tests.faults.processes import Bench, Stop
from tests.faults.store import Store
from tests.faults.work import Work

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: In the order in which a run passes them, each where it hurts: those of shards in the workers that write them, with
#: some commits in between; those of a run in its driver, at its beginning and at its end.
STOPS = (
    Stop("driver", "draft begun", 4),
    Stop("driver", "draft written", 5),
    Stop("driver", "create acknowledged", 7),
    Stop("worker", "draft begun"),
    Stop("worker", "draft written", 2),
    Stop("worker", "draft synced", 2),
    Stop("worker", "created"),
    Stop("worker", "create acknowledged", 2),
    Stop("worker", "quarantine committed"),
    Stop("worker", "part committed", 2),
    Stop("driver", "snapshot written"),
    Stop("driver", "table published"),
    Stop("driver", "manifest published"),
    Stop("driver", "staged parts deleted"),
)


def test_an_undisturbed_run_passes_all_points(texts: Work, clips: Work) -> None:
    begun = {"decode begun", "predict begun"}
    assert texts.points == {*commit_points.POINTS} | begun
    assert clips.points == texts.points - {"staged parts deleted"}
    assert {stop.point for stop in STOPS} == {*commit_points.POINTS}


def chain(bench: Bench, work: Work, out: str, stops: list[Stop]) -> None:
    """One output, one run after the other; each gets to its point, where all of it is killed."""
    job = work.job(out)
    for stop in stops:
        attempt = bench.start("run", job, stops=[stop])
        attempt.wait_until_stopped()
        attempt.kill()
    last = bench.run("run", job)
    assert last.process.returncode == 3, last.said


def test_killed_at_each_point_into_a_folder(bench: Bench, texts: Work, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    chain(bench, texts, out, [*STOPS])
    texts.check(out)
    texts.check_redone(out, bench)


def test_killed_at_each_point_into_a_bucket(bench: Bench, texts: Work, bucket: Store) -> None:
    out = "s3://bucket/points"
    chain(bench, texts, out, [stop for stop in STOPS if stop.point != "draft synced"])  # of a folder alone
    texts.check(out, bucket)
    texts.check_redone(out, bench)


def test_parts_that_are_the_table_are_not_there_twice(bench: Bench, clips: Work, tmp_path: Path) -> None:
    """Where parts are not staged, a plain listing of data/ is exact as well."""
    out = str(tmp_path / "out")
    points = ("draft synced", "created", "part committed")
    chain(bench, clips, out, [Stop("worker", point, 3) for point in points])
    clips.check(out)
    clips.check_redone(out, bench)
    assert len(list(Path(out, "data").iterdir())) == clips.shards
