"""Everything is killed at random instants, again and again, and the run resumed."""

import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.faults.processes import Bench, Pace
from tests.faults.store import Store
from tests.faults.work import Work

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

KILLS = 15  # into a folder, and as many into a bucket
#: A model of a real size is what a run waits for: then there is something to lose at every instant.
PACE = Pace("predict begun", 0.1)


def kill_at_random(bench: Bench, work: Work, outs: Iterator[str], seed: int) -> list[str]:
    """So many kills of one run after the other; an output that is done meanwhile gives way to a new one.

    Returns the outputs, the last of which may have any number of runs to go.
    """
    dice = random.Random(seed)
    took = work.seconds + PACE.seconds * work.shards
    begun = [next(outs)]
    killed: list[float] = []
    while len(killed) < KILLS:
        instant = dice.uniform(0.1, 1.0) * took
        attempt = bench.start("run", work.job(begun[-1]), paces=[PACE])
        deadline = time.monotonic() + instant
        while time.monotonic() < deadline and attempt.process.poll() is None:
            time.sleep(0.02)
        if attempt.process.poll() is None:
            attempt.kill()
            killed.append(round(instant, 2))
            continue
        assert attempt.process.returncode == 3, (seed, killed, attempt.said)
        begun.append(next(outs))
    return begun


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_killed_at_random_instants(
    where: str, bench: Bench, clips: Work, bucket: Store, tmp_path: Path
) -> None:
    seed = {"folder": 20261125, "bucket": 20261126}[where]
    store = bucket if where == "bucket" else None
    outs = (f"s3://bucket/random-{n}" if store else str(tmp_path / f"out-{n}") for n in count())
    for out in kill_at_random(bench, clips, outs, seed):
        last = bench.run("run", clips.job(out))
        assert last.process.returncode == 3, (seed, last.said)
        clips.check(out, store, again=seed)
        clips.check_redone(out, bench)
