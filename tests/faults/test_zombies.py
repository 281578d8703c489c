"""Two at once: writers that wake when their run is long done, runs that begin while another goes on."""

import json
from pathlib import Path

import pytest

from pipelines import reader
from pipelines.storage import open_storage
from tests.faults.processes import Bench, Pace, Stop
from tests.faults.store import Store
from tests.faults.work import Work, commits, told

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_machine_that_wakes_when_all_is_done_changes_nothing(
    where: str, bench: Bench, clips: Work, bucket: Store, tmp_path: Path
) -> None:
    """It was paused when a writer was about to create its part; another one resumed the run, to its end."""
    store = bucket if where == "bucket" else None
    out = "s3://bucket/zombie" if store else str(tmp_path / "out")
    asleep = bench.start("run", clips.job(out), stops=[Stop("worker", "draft written", 4)])
    writer = asleep.wait_until_stopped()
    asleep.freeze()
    resumed = bench.start("run", clips.job(out), elsewhere=True)
    assert resumed.end() == 3, resumed.said
    assert "waiting for a sign of life of " in resumed.said
    manifest, before = reader.manifest(out), len(asleep.log)
    asleep.thaw()
    assert asleep.end() == 5, asleep.said
    assert f"{out} has been taken over by a process on " in asleep.said, asleep.said
    assert ("worker", "part committed", str(writer.pid)) in asleep.log[before:]
    clips.check(out, store)
    assert reader.manifest(out) == manifest
    assert {*commits(out).values()} == {1, 2}
    collected = bench.run("gc", out, "--grace", "0s", "--json")
    assert collected.process.returncode == 0, collected.said
    clips.check(out, store)
    storage = open_storage(out)
    left = {*storage.names("data"), *storage.names("quarantine"), *storage.names("runs/tmp")}
    assert left == {part.path for part in manifest.parts} | {*manifest.quarantine}


def test_two_runs_at_once(bench: Bench, clips: Work, tmp_path: Path) -> None:
    """The second is told who works here; when that one's driver is killed, the next takes over at once."""
    out = str(tmp_path / "out")
    job = clips.job(out)
    first = bench.start("run", job, paces=[Pace("predict begun", 0.3)])
    first.wait_for(lambda: first.passed("part committed") >= 3)
    second = bench.run("run", job, "--json")
    assert second.process.returncode == 2, second.said
    said = json.loads(second.printed)["error"]
    assert f"{out} is being worked on: run " in said
    assert f", by process {first.process.pid} on " in said
    assert "Wait for it or stop it, or choose another output.uri." in said
    assert first.process.poll() is None
    first.kill_driver()
    third = bench.start("run", job)
    lease = Path(out, "runs/leases/000002.json")
    third.wait_for(lease.exists)
    assert json.loads(lease.read_text())["holder"]["pid"] == third.process.pid
    assert third.end() == 3, third.said
    assert "waiting for a sign of life" not in third.said
    [taken] = told(out, "lease_taken_over")
    assert (taken["attempt"], taken["pid"]) == (2, first.process.pid)
    clips.check(out)


def test_a_driver_that_was_cut_off_gives_way(bench: Bench, clips: Work, tmp_path: Path) -> None:
    """When it wakes to publish its table, another one has, with the same rows."""
    out = str(tmp_path / "out")
    job = clips.job(out)
    cut_off = bench.start("run", job, stops=[Stop("driver", "table published")])
    driver = cut_off.wait_until_stopped()
    resumed = bench.start("run", job, elsewhere=True)
    assert resumed.end() == 3, resumed.said
    assert "waiting for a sign of life of " in resumed.said
    manifest = reader.manifest(out)
    driver.resume()
    assert cut_off.end() == 3, cut_off.said
    clips.check(out)
    assert reader.manifest(out) == manifest
    assert {*commits(out).values()} == {1}
