"""Each fire once, wherever those who look are killed, and however many look at once."""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.scheduling.cron import between
from jobs.scheduling.records import iso
from jobs.scheduling.states import (
    GOING,
    TICK_STATES,
    TICK_TRANSITIONS,
)
from jobs.scheduling.steps import STEPS
from jobs.scheduling.store import ScheduleStore
from jobs.scheduling.tick import Outcome, tick
from tests.jobs.scheduling.target import HOUR, NOON, Steps, Table, mortal, states, terms

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("overlap", ["forbid", "queue", "replace", "allow"])
def test_killed_at_every_step_each_fire_is_one_run(in_memory: Path, overlap: Any) -> None:
    """Two fires of half an hour each, looked at every quarter: killed at each step of that, and looked again."""

    def life(folder: Path, steps: Steps, at_step: int | None) -> tuple[list[tuple[str, str]], Table, int]:
        table, store, passed = Table(), ScheduleStore(folder), 0
        store.apply("nightly", terms(overlap=overlap, catch_up="all"), NOON - HOUR / 2)
        for quarter in range(7):
            now = NOON + quarter * HOUR / 4
            before = passed
            kill = at_step - passed if at_step is not None and at_step > passed else None
            with steps.armed(kill):
                tick(store, table, now)
            passed += len(steps.passed)
            if kill is not None and passed - before >= kill:
                tick(store, table, now)
            if quarter % 2:
                table.end_all()
        return states(store), table, passed

    with mortal() as steps:
        expected, calm, count = life(in_memory / "calm", steps, None)
        assert [one for one, _ in expected] == ["12:00", "13:00"]
        assert count > 15
        for at_step in range(1, count + 1):
            found, table, _ = life(in_memory / str(at_step), steps, at_step)
            assert (found, table.order) == (expected, calm.order), at_step
            assert table.most <= calm.most


def test_of_all_who_look_at_once_one_submits(store: ScheduleStore) -> None:
    table = Table()
    for name in ("a", "b", "c"):
        store.apply(name, terms(overlap="allow", catch_up="all", max_catch_up=4), NOON - HOUR / 2)
    with ThreadPoolExecutor(6) as pool:
        looks = list(pool.map(lambda _: tick(store, table, NOON + 3 * HOUR), range(6)))
    claimed = [(one.schedule, one.tick) for look in looks for one in look.ticks if one.state == "claimed"]
    assert len(claimed) == len({*claimed}) == 12
    assert {*table.submitted.values()} == {1}
    assert len([alert for look in looks for alert in look.alerts]) >= 9  # the late ones, each at least once


class Looks(RuleBasedStateMachine):
    """Schedulers that are killed anywhere, runs that end when they like, a clock that jumps, terms that change."""

    folder: Path

    @initialize(
        overlap=st.sampled_from(["forbid", "queue", "replace", "allow"]),
        catch_up=st.sampled_from(["none", "latest", "all"]),
        deadline=st.sampled_from([None, "90m"]),
        jitter=st.sampled_from([None, "20m"]),
    )
    def begin(self, **rules: Any) -> None:
        self.rules = {"overlap": rules["overlap"], "catch_up": rules["catch_up"], "jitter": rules["jitter"]}
        self.rules |= {"start_deadline": rules["deadline"], "max_catch_up": 3}
        self.store = ScheduleStore(Path(tempfile.mkdtemp(dir=self.folder)))
        self.table, self.now = Table(), NOON
        self.crons = [("0,20 * * * *", NOON)]
        self.store.apply("nightly", terms(self.crons[0][0], **self.rules), self.now)

    @rule(minutes=st.sampled_from([1, 5, 15, 30, 240]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(at_step=st.integers(1, 14))
    def killed(self, at_step: int) -> None:
        with mortal() as steps, steps.armed(at_step):
            tick(self.store, self.table, self.now)

    @rule(twice=st.booleans())
    def look(self, twice: bool) -> None:
        with mortal():
            for _ in range(1 + twice):
                assert not tick(self.store, self.table, self.now).troubles

    @precondition(lambda self: self.table.going)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["done", "failed", "stopped"]))
    def end(self, which: int, how: Any) -> None:
        run_id = sorted(self.table.going)[which % len(self.table.going)]
        self.table.end(run_id, Outcome(how, 0))

    @rule()
    def pause_or_resume(self) -> None:
        paused = self.store.get("nightly").paused
        (self.store.resume if paused else self.store.pause)("nightly", self.now)

    @rule(cron=st.sampled_from(["0,20 * * * *", "*/30 * * * *", "7 * * * *"]))
    def apply(self, cron: str) -> None:
        if not self.store.get("nightly").paused:
            _, new = self.store.apply("nightly", terms(cron, **self.rules), self.now)
            self.crons += [(cron, self.now)] if new else []

    @invariant()
    def each_fire_is_one(self) -> None:
        ticks = {one.tick: one for one in self.store.ticks("nightly")}
        assert {*self.table.order} <= ticks.keys()
        assert len({*self.table.order}) == len(self.table.order)
        for one in ticks.values():
            has_run = one.tick in self.table.order
            assert has_run or one.state not in ("submitted", "stopping", "done", "stopped"), one
            assert not has_run or one.state not in ("skipped", "missed", "waiting"), one
        if self.rules["overlap"] != "allow":
            assert self.table.most <= 1

    @invariant()
    def each_goes_by_the_table(self) -> None:
        path: dict[str, list[str]] = {}
        for event in self.store.events("nightly"):
            if event["tick"] and event["event"] in TICK_STATES:
                path.setdefault(event["tick"], []).append(event["event"])
        for tick_, seen in path.items():
            assert seen[0] in ("waiting", "skipped", "missed")
            for before, after in pairwise(seen):
                assert after == before == "claimed" or after in TICK_TRANSITIONS[before][1], (tick_, seen)  # type: ignore[index]

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        with mortal():  # in the end all that is there comes to an end, and none was left out
            if self.store.get("nightly").paused:
                self.store.resume("nightly", self.now)
            for _ in range(12):
                tick(self.store, self.table, self.now)
                self.table.end_all()
                self.now += timedelta(minutes=9)
            self.store.pause("nightly", self.now)
            for _ in range(3):
                tick(self.store, self.table, self.now)
                self.table.end_all()
        found = {one.tick for one in self.store.ticks("nightly")}
        ends = [*(when for _, when in self.crons[1:]), self.now]
        spec = self.store.get("nightly").spec
        expected = {
            iso(when)
            for (cron, since), until in zip(self.crons, ends, strict=True)
            for when in between(cron, spec.zone, since, until)
        }
        assert found == expected
        left = [one for one in self.store.ticks("nightly") if one.state in GOING]
        assert not left, left


def test_many_looks(in_memory: Path) -> None:
    Looks.folder = in_memory
    run_state_machine_as_test(
        Looks,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=[*HealthCheck]
        ),
    )


def test_all_steps_are_passed() -> None:
    """Those of alerts: tests/jobs/scheduling/test_alerts.py."""
    assert STEPS == ("looked", "found", "claimed", "sent", "recorded", "alerts taken", "alert sent")


def test_real_processes_that_are_killed(tmp_path: Path) -> None:
    """Four at a time look as fast as they can while the hours go by, and are killed at random: SIGKILL."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.jobs.scheduling.killed", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] >= 10
    assert told["states"] == {"submitted": told["fires"]}
    assert told["runs"] == told["fires"] == 24
