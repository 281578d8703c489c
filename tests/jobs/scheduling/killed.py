"""python -m tests.jobs.scheduling.killed FOLDER: processes that look at schedules, killed at random till all is fired.

A process of its own, with one thread: it forks. A run is a file that is created once.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from jobs.scheduling.records import Terms, Tick, instant
from jobs.scheduling.store import ScheduleStore
from jobs.scheduling.tick import Outcome, tick
from tests.jobs.scheduling.target import at, run_of, terms

BEGAN = at("2026-11-26T00:00:00")
HOURS = 12
NAMES = ("a", "b")


class Files:
    """Runs as files: the first who submits one makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def submit(self, terms: Terms, tick: Tick) -> tuple[str, str]:
        time.sleep(0.002)
        (self.folder / run_of(tick)).touch()
        with (self.folder / "log").open("a") as log:
            log.write(f"{tick.schedule} {tick.tick}\n")
        time.sleep(0.002)
        return run_of(tick), "/out"

    def look(self, tick: Tick) -> Outcome | None:
        return None

    def stop(self, tick: Tick) -> None: ...


def look_on(store: ScheduleStore, runs: Files, began: float) -> None:
    """An hour each eighth of a second."""
    while True:
        hours = min(HOURS, int((time.monotonic() - began) * 8))
        tick(store, runs, BEGAN + timedelta(hours=hours))


def main(folder: Path) -> None:
    store, runs = ScheduleStore(folder / "state"), Files(folder / "runs")
    runs.folder.mkdir()
    rules = terms("0 * * * *", overlap="allow", catch_up="all", max_catch_up=1000)
    for name in NAMES:
        store.apply(name, rules, BEGAN)
    draw, kills, began = random.Random(7), 0, time.monotonic()
    living: list[int] = []
    deadline = began + 30
    while time.monotonic() < deadline:
        while len(living) < 4:
            pid = os.fork()
            if not pid:
                look_on(store, runs, began)
            living.append(pid)
        time.sleep(draw.uniform(0.01, 0.1))
        ticks = store.ticks()
        if (
            len(ticks) == HOURS * len(NAMES)
            and all(one.state == "submitted" for one in ticks)
            and kills >= 10
        ):
            break
        victim = living.pop(draw.randrange(len(living)))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        kills += 1
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    ticks = store.ticks()
    assert {instant(one.tick) for one in ticks} == {BEGAN + timedelta(hours=n) for n in range(1, HOURS + 1)}
    found = {
        "kills": kills,
        "fires": len(ticks),
        "runs": len([*runs.folder.iterdir()]) - 1,
        "states": Counter(one.state for one in ticks),
        "submitted": len((runs.folder / "log").read_text().splitlines()),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
