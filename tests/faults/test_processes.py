"""One process of a run is killed: what can go on without it does, the rest is resumed."""

import os
from pathlib import Path

import psutil
import pytest

from tests.faults.processes import Bench, Pace, Stop
from tests.faults.work import Work, commits, told

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def test_workers_that_die_at_commit_points_are_survived(bench: Bench, clips: Work, tmp_path: Path) -> None:
    """A shard may cost three of them; whatever a dead one left is found by the next."""
    out = str(tmp_path / "out")
    stops = [
        Stop("worker", "draft begun", 1, "kill"),
        Stop("worker", "draft written", 4, "kill"),
        Stop("worker", "draft synced", 8, "kill"),
        Stop("worker", "created", 12, "kill"),
        Stop("worker", "create acknowledged", 16, "kill"),
        Stop("worker", "part committed", 20, "kill"),
        Stop("worker", "quarantine committed", 1, "kill"),
    ]
    attempt = bench.start("run", clips.job(out), stops=stops)
    assert attempt.end() == 3, attempt.said
    assert attempt.killed == {stop.point for stop in stops}
    clips.check(out)
    assert set(commits(out).values()) == {1}
    assert sorted(attempt.shards("decode begun")) == list(range(clips.shards))  # what was decoded is not lost


def test_actors_that_die_are_survived(bench: Bench, clips: Work, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    stops = [Stop("worker", "decode begun", 5, "kill"), Stop("worker", "predict begun", 10, "kill")]
    attempt = bench.start("run", clips.job(out), stops=stops, paces=[Pace("predict begun", 0.1)])
    attempt.wait_for(lambda: attempt.passed("part committed") >= 15)
    [meter] = attempt.named("Counts")
    meter.kill()
    assert attempt.end() == 3, attempt.said
    assert attempt.killed == {stop.point for stop in stops}
    clips.check(out)
    for point, most in (("decode begun", 2), ("predict begun", 2)):
        again = len(attempt.shards(point)) - clips.shards
        assert 1 <= again <= most, (point, again)  # one that it was at, and one that waited for it


@pytest.mark.parametrize("name", ["driver", "raylet", "gcs_server"])
def test_without_one_of_its_daemons_a_run_ends_and_is_resumed(
    name: str, bench: Bench, clips: Work, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    job = clips.job(out)
    attempt = bench.start("run", job, paces=[Pace("predict begun", 0.2)])
    attempt.wait_for(lambda: attempt.passed("part committed") >= 5)
    if name == "driver":
        attempt.kill_driver()  # whatever is left of it may go on for seconds
    else:
        [daemon] = attempt.named(name)
        daemon.kill()
        assert attempt.end() == 5, (attempt.process.returncode, attempt.said)
        assert f"To resume: perceive run {job}" in attempt.said
    last = bench.run("run", job)
    assert last.process.returncode == 3, last.said
    clips.check(out)
    clips.check_redone(out, bench)
    assert {*commits(out).values()} == {1, 2}


def child_of(actor: psutil.Process) -> psutil.Process:
    """The decoder's process of an actor."""
    [child] = [one for one in actor.children() if "pipelines.decode_child" in one.cmdline()]
    return child


def dead(child: psutil.Process) -> bool:
    """All of it: while other threads of a process are ending, its parent is not told that it has ended."""
    alone = len(os.listdir(f"/proc/{child.pid}/task")) == 1
    return alone and child.status() == psutil.STATUS_ZOMBIE


def test_a_decoders_process_that_is_killed_costs_nothing(bench: Bench, texts: Work, tmp_path: Path) -> None:
    """One that has nothing to do is missed by nobody; what another was at is decoded again, on record."""
    out = str(tmp_path / "out")
    stops = [Stop("worker", "decode begun", 3), Stop("worker", "decode begun", 5)]
    attempt = bench.start("run", texts.job(out), stops=stops)
    actor = attempt.wait_until_stopped(1)
    idle = child_of(actor)
    idle.kill()
    attempt.wait_for(lambda: dead(idle))  # before its actor has to do with it
    actor.resume()
    assert attempt.wait_until_stopped(2) == actor
    child = child_of(actor)
    child.suspend()
    actor.resume()
    # All shards that came before are committed, so this one's first item has been asked for long since.
    attempt.wait_for(lambda: attempt.passed("part committed") == 4)
    child.kill()
    assert attempt.end() == 3, attempt.said
    texts.check(out)
    [retried] = told(out, "retrying")
    assert (retried["stage"], retried["error"]) == ("decode", "DecodeCrash")
    assert "was killed by signal 9 (SIGKILL)" in retried["message"]
