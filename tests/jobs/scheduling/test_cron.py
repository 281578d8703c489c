"""When a schedule fires: against every minute of the clock, one by one, and the same from wherever one begins."""

import re
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.scheduling.cron import between, check_cron, fires, newest

MINUTE = timedelta(minutes=1)
#: A zone, and a day on which its clocks change: north, south, half an hour, at midnight, in Ramadan, by 45 minutes from
#: UTC, a whole day left out, and one that never does.
DAYS = (
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Australia/Sydney", "2026-04-05"),
    ("Australia/Sydney", "2026-10-04"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Santiago", "2026-04-05"),
    ("America/Santiago", "2026-09-06"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Pacific/Chatham", "2026-09-27"),
    ("America/St_Johns", "2026-11-01"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Kolkata", "2026-06-01"),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def matches(cron: str, wall: datetime) -> bool:
    """Whether an expression of numbers, stars and steps matches, by nothing but its text."""

    def one(field: str, value: int, first: int) -> bool:
        for term in field.split(","):
            span, _, step = term.partition("/")
            if span == "*":
                if (value - first) % int(step or 1) == 0:
                    return True
            elif int(span) == value:
                return True
        return False

    minute, hour, day, month, weekday = cron.split()
    days = one(day, wall.day, 1), one(weekday, wall.isoweekday() % 7, 0)
    starred = day.startswith("*") or weekday.startswith("*")
    on_day = all(days) if starred else any(days)
    return one(minute, wall.minute, 0) and one(hour, wall.hour, 0) and one(month, wall.month, 1) and on_day


def minute_by_minute(cron: str, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """What a clock on the wall would do that is looked at every minute, by Debian's rules."""
    minute, hour, *_ = cron.split()
    rhythm = minute.startswith("*") or hour.startswith("*")
    found = []
    now = after.replace(second=0) - timedelta(days=2)
    before = now.astimezone(zone).replace(tzinfo=None)
    latest = before
    while now < until:
        now += MINUTE
        wall = now.astimezone(zone).replace(tzinfo=None)
        if rhythm:
            fired = matches(cron, wall)
        else:
            # All that the clock has not shown until now, up to what it shows: none where it was put back.
            new = (latest + MINUTE * n for n in range(1, int((wall - latest) / MINUTE) + 1))
            fired = any(matches(cron, one) for one in new)
        latest = max(latest, wall)
        if fired and after < now <= until:
            found.append(now)
    return found


FIELDS = st.tuples(
    st.sampled_from(["*", "*/15", "*/7", "0", "30", "59", "0,30", "15,45"]),
    st.sampled_from(["*", "*/2", "*/6", "0", "1", "2", "3", "1,2", "0,23", "2,3"]),
    st.sampled_from(["*", "*", "1", "5", "*/2"]),
    st.sampled_from(["*", "*", "3,4", "*/3"]),
    st.sampled_from(["*", "*", "0", "1,5"]),
).map(" ".join)
STARTS = st.integers(-36 * 60, 36 * 60)


@given(FIELDS, st.sampled_from(DAYS), STARTS, st.integers(0, 40 * 60))
@example("*/15 2 * * *", ("Australia/Lord_Howe", "2026-04-05"), -1800, 2400)
@example("*/30 0 * * *", ("America/Santiago", "2026-09-06"), -1800, 2400)
@example("0,30 2 * * *", ("America/New_York", "2026-03-08"), -1800, 2400)
@settings(max_examples=60, deadline=None)
def test_it_is_the_clock_on_the_wall(cron: str, day: tuple[str, str], start: int, length: int) -> None:
    zone, after = ZoneInfo(day[0]), at(day[1]) + MINUTE * start
    until = after + MINUTE * length
    assert list(between(cron, zone, after, until)) == minute_by_minute(cron, zone, after, until)


@given(FIELDS, st.sampled_from(DAYS), STARTS, st.lists(st.integers(0, 4000), max_size=8))
@settings(max_examples=100, deadline=None)
def test_however_an_interval_is_cut_each_fire_is_there_once(
    cron: str, day: tuple[str, str], start: int, cuts: list[int]
) -> None:
    zone, after = ZoneInfo(day[0]), at(day[1]) + MINUTE * start
    edges = [after, *(after + timedelta(seconds=61 * cut) for cut in sorted(cuts)), after + timedelta(days=3)]
    whole = list(between(cron, zone, after, edges[-1]))
    assert all(one < other for one, other in pairwise(whole))
    assert [one for a, b in pairwise(edges) for one in between(cron, zone, a, b)] == whole
    assert all(one.tzinfo is UTC and not one.second for one in whole)


@given(FIELDS, st.sampled_from(DAYS), STARTS, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_the_newest_are_the_last_ones(cron: str, day: tuple[str, str], start: int, most: int) -> None:
    zone, after = ZoneInfo(day[0]), at(day[1]) + MINUTE * start
    until = after + timedelta(days=4)
    whole = list(between(cron, zone, after, until))
    assert newest(cron, zone, after, until, most) == (whole[-most:], len(whole) > most)


@given(
    st.sampled_from(["30 1 * * *", "15 2 * * *", "0 3 * * MON", "*/5 * * * *", "0 */2 * * *", "0 0 1 * *"]),
    st.sampled_from([day for day in DAYS if day[0] not in ("Australia/Lord_Howe", "America/Santiago")]),
)
def test_where_cronsim_needs_no_help_it_says_the_same(cron: str, day: tuple[str, str]) -> None:
    zone, after = ZoneInfo(day[0]), at(day[1]) - timedelta(days=3)
    walked = (one.astimezone(UTC) for one in CronSim(cron, after.astimezone(zone)))
    ours = fires(cron, zone, after)
    assert list(islice(ours, 40)) == list(islice(walked, 40))


@pytest.mark.parametrize(
    ("zone", "cron", "day", "expected"),
    [
        (
            "America/New_York",
            "30 2 * * *",
            "2026-03-08",
            "07:00",
        ),  # 02:30 is left out: as the clock shows 03:00
        ("America/New_York", "30 1 * * *", "2026-11-01", "05:30"),  # 01:30 comes twice: the first
        ("America/New_York", "*/30 1 * * *", "2026-11-01", "05:00 05:30 06:00 06:30"),  # a rhythm goes on
        ("America/New_York", "*/30 2 * * *", "2026-03-08", ""),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03", "15:30"),  # 02:00 to 02:30 is left out
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04", "14:45"),  # 01:30 to 02:00 comes twice
        ("America/Santiago", "0 0 * * *", "2026-09-06", "04:00"),  # midnight is left out: at 01:00
        ("Europe/Berlin", "0 3 * * *", "2026-03-29", "01:00"),
    ],
)
def test_days_on_which_clocks_change(zone: str, cron: str, day: str, expected: str) -> None:
    found = between(cron, ZoneInfo(zone), at(day), at(day) + timedelta(hours=23, minutes=59))
    assert " ".join(f"{one:%H:%M}" for one in found) == expected


EXAMPLE = 'Write five fields, such as "30 2 * * *" (every day at 02:30) or "0 */6 * * MON-FRI".'


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        (
            "@daily",
            "expected five fields (minute, hour, day of the month, month, day of the week); got 1 in '@daily'.",
        ),
        (
            "0 0 2 * * *",
            "expected five fields (minute, hour, day of the month, month, day of the week); got 6 in '0 0 2 * * *'.",
        ),
        ("60 * * * *", "the minute can't be '60', in '60 * * * *'."),
        ("0 24 * * *", "the hour can't be '24', in '0 24 * * *'."),
        ("0 2 * * MONDAY", "the day of the week can't be 'MONDAY', in '0 2 * * MONDAY'."),
        ("0 2 * JANUARY *", "the month can't be 'JANUARY', in '0 2 * JANUARY *'."),
        ("0 2 30 2 *", "the day of the month can't be '30', in '0 2 30 2 *'."),
        ("0 2 * 2 1#5,1#6", "the day of the week can't be '1#5,1#6', in '0 2 * 2 1#5,1#6'."),
    ],
)
def test_what_it_is_not(cron: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(expected)} {re.escape(EXAMPLE)}$"):
        check_cron(cron)


def refused(cron: str) -> str:
    """Why it is none, in words; empty if it is one."""
    try:
        check_cron(cron)
    except ValueError as error:
        return str(error)
    return ""


@given(st.text(max_size=20))
def test_any_text_is_one_or_is_refused_in_words(text: str) -> None:
    said = refused(text)
    assert said.endswith(EXAMPLE) if said else next(fires(text, ZoneInfo("UTC"), at("2026-01-01")))


@given(st.lists(st.text("0123456789*/-,#LW", min_size=1, max_size=5), min_size=5, max_size=5).map(" ".join))
@settings(deadline=None)
def test_any_five_fields_are_one_or_are_refused_in_words(text: str) -> None:
    said = refused(text)
    assert not said or said.endswith(EXAMPLE)
