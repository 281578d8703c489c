"""Each fire once: whoever looks, however often, wherever it is killed, and whatever the runs before do."""

from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import SpecError, TargetError
from jobs.scheduling.records import iso
from jobs.scheduling.states import (
    GOING,
    TICK_STATES,
    TICK_TRANSITIONS,
    TickState,
    TickStateError,
    check_tick,
)
from jobs.scheduling.store import ScheduleStore
from jobs.scheduling.tick import Outcome, fire, tick
from tests.jobs.scheduling.target import HOUR, NOON, Table, mortal, states, terms


def test_every_state_of_a_tick_leads_to_an_end() -> None:
    assert set(TICK_TRANSITIONS) == set(TICK_STATES) == set(get_args(TickState))
    ends = {state for state, (_, after) in TICK_TRANSITIONS.items() if not after}
    assert ends == {"done", "failed", "stopped", "skipped", "missed"}
    for state, (meaning, after) in TICK_TRANSITIONS.items():
        assert meaning
        assert set(after) <= set(TICK_STATES) - {state}
        assert state in ends or set(after) & (ends | {"submitted"})
    assert not set(GOING) & ends


@given(st.sampled_from(TICK_STATES), st.sampled_from(TICK_STATES))
def test_only_what_the_table_of_ticks_says(before: TickState, after: TickState) -> None:
    if after in TICK_TRANSITIONS[before][1]:
        check_tick("t", before, after)
        return
    with pytest.raises(TickStateError, match=rf"The fire of t is {before} \(.*\): it can't become {after}, "):
        check_tick("t", before, after)


def test_a_fire_is_submitted_once_and_seen_to_its_end(store: ScheduleStore) -> None:
    table = Table()
    store.apply("nightly", terms(), NOON - timedelta(minutes=5))
    assert not tick(store, table, NOON - timedelta(seconds=1)).ticks
    look = tick(store, table, NOON)
    assert [one.state for one in look.ticks] == ["waiting", "claimed", "submitted"]
    for late in range(3):
        assert not tick(store, table, NOON + timedelta(seconds=late)).ticks
    table.end_all()
    [done] = tick(store, table, NOON + timedelta(minutes=2)).ticks
    assert (done.state, done.exit_code, done.version, done.tries) == ("done", 0, 1, 1)
    assert {*table.submitted.values()} == {1}
    assert [one["event"] for one in store.events("nightly")] == [
        "applied", "waiting", "claimed", "submitted", "done",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overlap", "expected", "order"),
    [
        ("forbid", "done skipped skipped submitted", "12 15"),
        ("queue", "done done done submitted", "12 13 14 15"),
        ("allow", "done done done submitted", "12 13 14 15"),
        ("replace", "stopped skipped skipped submitted", "12 15"),
    ],
)
def test_overlaps(store: ScheduleStore, overlap: Any, expected: str, order: str) -> None:
    """The run of twelve goes on until after two; then each ends when it is looked at."""
    table = Table()
    store.apply("nightly", terms(overlap=overlap), NOON - HOUR / 2)
    for hours in range(3):
        tick(store, table, NOON + hours * HOUR)
    assert table.most == (3 if overlap == "allow" else 1)
    for minutes in (1, 2, 3, 60, 61):
        now = NOON + 2 * HOUR + timedelta(minutes=minutes)
        if minutes != 61:
            table.end_all()
        tick(store, table, now)
    # Of replace, the one of two was submitted at last, and ended when three's came.
    if overlap == "replace":
        assert states(store) == [
            ("12:00", "stopped"), ("13:00", "skipped"), ("14:00", "done"), ("15:00", "submitted"),
        ]  # fmt: skip
        return
    assert " ".join(state for _, state in states(store)) == expected
    assert " ".join(one[11:13] for one in table.order) == order


def test_replace_stops_the_run_before_and_says_for_which(store: ScheduleStore) -> None:
    table = Table()
    store.apply("nightly", terms(overlap="replace"), NOON - HOUR / 2)
    tick(store, table, NOON)
    tick(store, table, NOON + HOUR)
    assert states(store) == [("12:00", "stopping"), ("13:00", "waiting")]
    assert len(table.asked) == 1
    tick(store, table, NOON + HOUR)  # it is asked once
    table.end_all()
    look = tick(store, table, NOON + HOUR + timedelta(minutes=1))
    assert states(store) == [("12:00", "stopped"), ("13:00", "submitted")]
    assert (
        look.ticks[0].reason == "The fire of 2026-11-26T13:00:00+00:00 takes its place: overlap is replace."
    )
    assert not look.alerts


def test_what_a_tick_ran_stays_what_it_ran(store: ScheduleStore) -> None:
    """Also where it is submitted again after its claimer died, and the schedule has changed meanwhile."""
    table = Table()
    store.apply("nightly", terms(target="ray http://a:1"), NOON - HOUR / 2)
    with mortal() as steps, steps.armed(3):
        tick(store, table, NOON)
    assert steps.passed[-1] == "claimed"
    found, new = store.apply("nightly", terms(target="ray http://b:1"), NOON)
    assert (found.version, new) == (2, True)
    assert store.apply("nightly", terms(target="ray http://b:1"), NOON)[1] is False
    with mortal():
        tick(store, table, NOON)
    table.end_all()
    tick(store, table, NOON + HOUR)
    assert [(one.tick[11:13], one.version) for one in store.ticks("nightly")] == [("13", 2), ("12", 1)]
    assert [*table.versions.values()] == ["ray http://a:1", "ray http://b:1"]
    assert store.terms("nightly", 1).target == "ray http://a:1"


def test_a_new_version_leaves_no_fire_of_the_old_one_out(store: ScheduleStore) -> None:
    table = Table()
    store.apply("nightly", terms("0 * * * *"), NOON - HOUR / 2)
    store.apply("nightly", terms("30 * * * *"), NOON + timedelta(minutes=1))  # nobody looked at noon
    tick(store, table, NOON + timedelta(minutes=2))
    tick(store, table, NOON + timedelta(minutes=59))
    assert states(store) == [
        ("12:00", "submitted"),
        ("12:30", "waiting"),
    ]  # half an hour late, so that it is made up for


def test_paused_resumed_removed(store: ScheduleStore) -> None:
    table = Table()
    store.apply("nightly", terms(catch_up="all", overlap="queue"), NOON - HOUR / 2)
    assert store.pause("nightly", NOON + timedelta(minutes=1)).paused  # nobody looked at noon
    tick(store, table, NOON + 3 * HOUR)
    assert states(store) == [("12:00", "waiting")]
    store.resume("nightly", NOON + 3.5 * HOUR)
    look = tick(store, table, NOON + 3.5 * HOUR)
    assert states(store) == [
        ("12:00", "submitted"), ("13:00", "waiting"), ("14:00", "waiting"), ("15:00", "waiting"),
    ]  # fmt: skip
    assert not look.alerts
    assert store.remove("nightly", NOON + 4.5 * HOUR).removed
    table.end_all()
    tick(store, table, NOON + 6 * HOUR)
    assert [state for _, state in states(store)] == ["done", "skipped", "skipped", "skipped"]
    assert store.ticks("nightly")[0].reason == "The schedule was removed."
    assert not store.all()
    again, _ = store.apply("nightly", terms(), NOON + 7.5 * HOUR)
    assert (again.version, again.paused) == (2, False)
    tick(store, table, NOON + 8 * HOUR)
    assert states(store)[-1] == ("20:00", "submitted")


@pytest.mark.parametrize(
    ("catch_up", "expected"), [("none", []), ("latest", ["14:00"]), ("all", ["13:00", "14:00"])]
)
def test_what_a_pause_left_out(store: ScheduleStore, catch_up: Any, expected: list[str]) -> None:
    table = Table()
    store.apply("nightly", terms(catch_up=catch_up, overlap="allow"), NOON + HOUR / 2)
    store.pause("nightly", NOON + HOUR / 2)
    store.resume("nightly", NOON + 2 * HOUR + timedelta(minutes=1))
    look = tick(store, table, NOON + 2 * HOUR + timedelta(minutes=1))
    assert [one[11:16] for one in table.order] == expected
    assert [one for one, state in states(store) if state == "submitted"] == expected
    assert not look.alerts


def test_a_target_that_does_not_answer_is_tried_again_and_then_the_fire_failed(store: ScheduleStore) -> None:
    table = Table(fails=TargetError("http://head:8265 does not answer."))
    store.apply("nightly", terms(), NOON - HOUR / 2)
    said: list[str] = []
    tried = []
    for minute in range(60):
        look = tick(store, table, NOON + timedelta(minutes=minute), said.append)
        tried += [minute for one in look.ticks if one.state == "claimed"]
    assert tried == [0, 1, 3, 7, 15]
    assert said[0] == (
        "nightly: the fire of 2026-11-26T12:00:00+00:00 is tried again after 2026-11-26T12:01:00+00:00: "
        "http://head:8265 does not answer."
    )
    [alert] = store.alerts("nightly")
    assert (alert.kind, alert.reason, alert.exit_code) == ("failed", "http://head:8265 does not answer.", 5)
    table.fails = None
    tick(store, table, NOON + HOUR)
    assert states(store) == [("12:00", "failed"), ("13:00", "submitted")]


def test_a_job_that_can_not_be_run_failed_at_once(store: ScheduleStore) -> None:
    table = Table(fails=SpecError("input: No such file or folder."))
    store.apply("nightly", terms(), NOON - HOUR / 2)
    look = tick(store, table, NOON)
    assert [(alert.kind, alert.exit_code) for alert in look.alerts] == [("failed", 2)]
    assert not tick(store, table, NOON).alerts  # it is said once


def test_a_run_that_failed_is_an_alert_and_one_that_was_stopped_is_none(store: ScheduleStore) -> None:
    table = Table()
    store.apply("nightly", terms(overlap="allow"), NOON - HOUR / 2)
    tick(store, table, NOON)
    tick(store, table, NOON + HOUR)
    first, second = table.going
    table.end(first, Outcome("failed", 4, "3 of 5 items failed."))
    table.end(second, Outcome("stopped", 130, "Somebody stopped it."))
    [alert] = tick(store, table, NOON + HOUR).alerts
    assert (alert.kind, alert.run_id, alert.exit_code, alert.reason) == (
        "failed",
        first,
        4,
        "3 of 5 items failed.",
    )
    assert states(store) == [("12:00", "failed"), ("13:00", "stopped")]


def test_what_is_wrong_with_one_schedule_hides_no_other(store: ScheduleStore) -> None:
    class Silent(Table):
        def look(self, tick: Any) -> Outcome | None:
            if tick.schedule == "a":
                raise TargetError("http://head:8265 does not answer.")
            return super().look(tick)

    table = Silent()
    for name in ("a", "b"):
        store.apply(name, terms(), NOON - HOUR / 2)
    tick(store, table, NOON)
    table.end_all()
    said: list[str] = []
    look = tick(store, table, NOON + timedelta(minutes=1), said.append)
    assert states(store, "b") == [("12:00", "done")]
    assert states(store, "a") == [("12:00", "submitted")]  # nobody knows
    assert look.troubles == said
    assert said[0].startswith("a: what became of run ")
    assert said[0].endswith(" is not known: http://head:8265 does not answer.")


def test_run_now_goes_by_the_rule_of_overlaps_and_by_no_pause(store: ScheduleStore) -> None:
    table = Table()
    store.apply("nightly", terms(), NOON - HOUR / 2)
    store.pause("nightly", NOON - HOUR / 2)
    now = NOON - timedelta(minutes=7)
    one = fire(store, table, "nightly", now)
    assert (one.state, one.tick) == ("submitted", iso(now))
    assert fire(store, table, "nightly", now) == one  # it is that one
    two = fire(store, table, "nightly", now + timedelta(seconds=1))
    assert (two.state, two.reason) == (
        "skipped",
        f"The fire of {one.tick}, run {one.run_id}, goes on: overlap is forbid.",
    )
    table.end_all()
    assert fire(store, table, "nightly", now + timedelta(seconds=2)).state == "submitted"


def test_a_clock_that_is_put_back_fires_nothing_twice(store: ScheduleStore) -> None:
    table = Table()
    store.apply("nightly", terms(overlap="allow"), NOON - HOUR / 2)
    tick(store, table, NOON + HOUR)
    tick(store, table, NOON)
    tick(store, table, NOON + HOUR)
    assert [one[11:13] for one in table.order] == ["13"]  # catch_up is latest
    assert {*table.submitted.values()} == {1}
