"""What becomes of fires as they are found."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.scheduling.due import LATE, found, jitter, too_late
from jobs.scheduling.spec import ScheduleSpec
from tests.jobs.scheduling.target import at

NOON = at("2026-11-26T12:00:00")
HOUR = timedelta(hours=1)


def spec(**more: Any) -> ScheduleSpec:
    return ScheduleSpec(cron="0 * * * *", **more)


#: Fires of 8 to 12, found a minute after the last one; what becomes of each, and why.
CASES: list[tuple[dict[str, Any], bool, list[tuple[str, str, str | None]]]] = [
    (
        {"catch_up": "latest"},
        False,
        [("skipped", "A later fire stands for it: catch_up is latest.", None)] * 4 + [("waiting", "", None)],
    ),
    (
        {"catch_up": "none"},
        False,
        [
            ("missed", "It was found 4 h after its time, and catch_up is none.", "missed"),
            ("missed", "It was found 3 h after its time, and catch_up is none.", "missed"),
            ("missed", "It was found 2 h after its time, and catch_up is none.", "missed"),
            ("missed", "It was found 61 min after its time, and catch_up is none.", "missed"),
            ("waiting", "", None),
        ],
    ),
    (
        {"catch_up": "all", "max_catch_up": 3},
        False,
        [
            ("missed", "It was found 4 h after its time, and 3 later ones are made up for.", "missed"),
            ("waiting", "It was found 3 h after its time.", "late"),
            ("waiting", "It was found 2 h after its time.", "late"),
            ("waiting", "It was found 61 min after its time.", "late"),
            ("waiting", "", None),
        ],
    ),
    (
        {"catch_up": "all", "start_deadline": "90m"},
        False,
        [("missed", "It could not begin within 90m of its time: start_deadline.", "missed")] * 3
        + [("waiting", "It was found 61 min after its time.", "late"), ("waiting", "", None)],
    ),
    (
        {"catch_up": "none"},
        True,
        [
            (
                "skipped",
                f"The schedule was paused. It was found {span} after its time, and catch_up is none.",
                None,
            )
            for span in ("4 h", "3 h", "2 h", "61 min", "60 s")
        ],
    ),
    (
        {"catch_up": "latest"},
        True,
        [("skipped", "A later fire stands for it: catch_up is latest.", None)] * 4
        + [("waiting", "It was found 60 s after its time.", None)],
    ),
]


@pytest.mark.parametrize(("more", "paused", "expected"), CASES)
def test_what_becomes_of_fires(
    more: dict[str, Any], paused: bool, expected: list[tuple[str, str, str | None]]
) -> None:
    ticks = [NOON - hours * HOUR for hours in (4, 3, 2, 1, 0)]
    got = found("nightly", spec(**more), ticks, NOON + timedelta(minutes=1), paused)
    assert [one.tick for one in got] == ticks
    assert [(one.state, one.reason, one.alarm) for one in got] == expected


def test_a_fire_that_is_found_late_is_said_to_be() -> None:
    for late in (LATE, LATE + timedelta(seconds=1)):
        [one] = found("nightly", spec(), [NOON], NOON + late)
        assert (one.state, one.made_up, one.alarm) == (
            ("waiting", False, None) if late == LATE else ("waiting", True, "late")
        )


@given(
    st.lists(st.integers(0, 500), unique=True, max_size=30).map(sorted),
    st.sampled_from(["none", "latest", "all"]),
    st.integers(1, 5),
    st.sampled_from([None, "30m", "5h"]),
    st.sampled_from([None, "25m"]),
    st.booleans(),
)
def test_each_is_there_once_and_of_the_late_ones_as_many_as_are_made_up_for(
    minutes: list[int], catch_up: Any, most: int, deadline: str | None, spread: str | None, paused: bool
) -> None:
    ticks = [NOON + timedelta(minutes=one) for one in minutes]
    now = NOON + timedelta(minutes=500)
    rules = spec(catch_up=catch_up, max_catch_up=most, start_deadline=deadline, jitter=spread)
    got = found("nightly", rules, ticks, now, paused)
    assert [one.tick for one in got] == ticks
    made_up = [one for one in got if one.made_up]
    assert len(made_up) <= {"none": 0, "latest": 1, "all": most}[catch_up]
    assert all(one.state == "waiting" for one in made_up)
    assert all(timedelta(0) <= one.due - one.tick <= timedelta(minutes=25) for one in got)
    for one in got:
        assert (one.alarm == "missed") == (one.state == "missed")
        assert one.reason or (one.state == "waiting" and not one.made_up)
        assert one.state != "waiting" or not too_late(rules, one.due, now)
        assert not paused or one.alarm is None
    if catch_up == "all" and deadline is None:
        late = [one for one in got if paused or now - one.due > LATE]
        assert made_up == late[-most:]


@given(st.text(max_size=8), st.integers(0, 10**6), st.integers(0, 7200))
def test_jitter_is_the_same_whenever_it_is_asked(name: str, minute: int, seconds: int) -> None:
    tick, spread = NOON + timedelta(minutes=minute), timedelta(seconds=seconds)
    drawn = jitter(name, tick, spread)
    assert drawn == jitter(name, tick, spread)
    assert timedelta(0) <= drawn < max(spread, timedelta(seconds=1))


def test_jitter_spreads() -> None:
    drawn = [jitter("nightly", NOON + n * HOUR, HOUR).total_seconds() / 3600 for n in range(200)]
    assert 0.4 < sum(drawn) / 200 < 0.6
    assert min(drawn) < 0.05
    assert max(drawn) > 0.95
