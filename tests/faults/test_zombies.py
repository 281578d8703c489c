"""Two at once: writers that wake when their run is long done, runs that begin while another goes on."""

import json
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.dataset
import pytest

from pipelines import reader
from tests.faults.processes import Attempt, Bench, Pace, Stop
from tests.faults.store import Store
from tests.faults.work import Work, commits

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def asleep_before_its_part(bench: Bench, work: Work, out: str) -> tuple[Attempt, psutil.Process]:
    """An attempt of which a single process is left, which stands before the creation of a part that it has written."""
    attempt = bench.start("run", work.job(out), stops=[Stop("worker", "draft written", 4)])
    zombie = attempt.wait_until_stopped()
    attempt.kill_but(zombie)
    assert zombie.status() == psutil.STATUS_STOPPED
    return attempt, zombie


def wake(attempt: Attempt, zombie: psutil.Process) -> None:
    """Let it go on, to the end of its commit."""
    zombie.resume()
    done = ("worker", "part committed", str(zombie.pid))
    attempt.wait_for(
        lambda: done in attempt.log[attempt.log.index(("woke", *done[:1], "draft written", done[2])) :],
        ends=True,
    )
    with suppress(psutil.NoSuchProcess):
        zombie.kill()
        zombie.wait(10)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_writer_that_wakes_after_the_resume_changes_nothing(
    where: str, bench: Bench, clips: Work, bucket: Store, tmp_path: Path
) -> None:
    store = bucket if where == "bucket" else None
    out = "s3://bucket/zombie" if store else str(tmp_path / "out")
    attempt, zombie = asleep_before_its_part(bench, clips, out)
    last = bench.run("run", clips.job(out))
    assert last.process.returncode == 3, last.said
    manifest = reader.manifest(out)
    wake(attempt, zombie)
    clips.check(out, store)
    assert reader.manifest(out) == manifest
    assert {*commits(out).values()} == {1, 2}
    collected = bench.run("gc", out, "--grace", "0s", "--json")
    assert collected.process.returncode == 0, collected.said
    clips.check(out, store)
    left = {part.path for part in manifest.parts} | {*manifest.quarantine}
    storage = reader.open_storage(out)
    assert {*storage.names("data"), *storage.names("quarantine")} == left
    assert [*storage.names("runs/tmp")] == []


def test_two_runs_at_once(bench: Bench, clips: Work, tmp_path: Path) -> None:
    """The second is told who works here; when that one's driver is killed, the next takes over at once."""
    out = str(tmp_path / "out")
    job = clips.job(out)
    first = bench.start("run", job, paces=[Pace("predict begun", 0.3)])
    first.wait_for(lambda: first.passed("part committed") >= 3)
    second = bench.run("run", job, "--json")
    assert second.process.returncode == 2, second.said
    told = json.loads(second.printed)["error"]
    assert f"{out} is being worked on: run " in told
    assert f", by process {first.process.pid} on " in told
    assert "Wait for it or stop it, or choose another output.uri." in told
    assert first.process.poll() is None
    first.kill_driver()
    third = bench.start("run", job)
    lease = Path(out, "runs/leases/000002.json")
    began = time.monotonic()
    third.wait_for(lease.exists)
    assert json.loads(lease.read_text())["holder"]["pid"] == third.process.pid
    assert time.monotonic() - began < 20  # it is not waited for a sign of life, for 25 s
    assert "waiting for a sign of life" not in third.said
    assert third.end() == 3, third.said
    clips.check(out)


def test_a_driver_that_was_cut_off_gives_way(bench: Bench, clips: Work, tmp_path: Path) -> None:
    """To processes of other name spaces it is on another host: after 25 s without a sign of life it counts as dead."""
    out = str(tmp_path / "out")
    job = clips.job(out)
    cut_off = bench.start("run", job, stops=[Stop("driver", "table published")])
    driver = cut_off.wait_until_stopped()
    apart = bench.start("run", job, before=["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"])
    assert apart.end() == 3, apart.said
    assert "waiting for a sign of life of " in apart.said
    clips.check(out)
    manifest = reader.manifest(out)
    driver.resume()
    cut_off.end()
    clips.check(out)
    assert reader.manifest(out) == manifest
    assert cut_off.process.returncode in (3, 5), cut_off.said
    glob = pyarrow.dataset.dataset(f"{out}/data", format="ipc")
    assert glob.count_rows() == clips.table.num_rows
