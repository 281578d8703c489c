"""When a schedule fires, in its time zone.

What of a wall clock an expression matches is cronsim's; which instants those are is said here, by the rules of Debian's
cron, and the same from wherever one begins. (cronsim 2.8's own walk through a zone isn't: of `*/15 2 * * *` on Lord
Howe, whose clocks go back by half an hour, it leaves out two fires, but not if it begins on that day.)

Where the minute or the hour begins with a star, the expression is a rhythm: what the clock leaves out isn't fired, what
it shows twice is fired twice. Else it is a time of the day, and fired once: where the clock leaves it out, as soon as
the clock goes on; where it shows it twice, the first time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_BACK = timedelta(hours=3)  # more than any zone of today puts its clocks back
_MINUTE = timedelta(minutes=1)
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_EXAMPLE = 'Write five fields, such as "30 2 * * *" (every day at 02:30) or "0 */6 * * MON-FRI".'


def check_cron(cron: str) -> None:
    """Raise ValueError unless it is an expression that fires."""
    fields = cron.split()
    if len(fields) != 5:
        raise ValueError(
            f"expected five fields ({', '.join(_FIELDS)}); got {len(fields)} in {cron!r}. {_EXAMPLE}"
        )
    try:
        walls = CronSim(cron, datetime(2000, 1, 1))
    except CronSimError as error:
        named = (
            str(error)
            .removeprefix("Bad ")
            .replace("day-of-month", _FIELDS[2])
            .replace("day-of-week", _FIELDS[4])
        )
        value = fields[_FIELDS.index(named)]
        raise ValueError(f"the {named} can't be {value!r}, in {cron!r}. {_EXAMPLE}") from None
    if next(walls, None) is None:
        raise ValueError(f"no day is ever {cron!r}, so it would never fire. {_EXAMPLE}")


def fires(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """When it fires after an instant, in UTC, in order, each instant once; without an end."""
    minute, hour, *_ = cron.split()
    rhythm = minute.startswith("*") or hour.startswith("*")
    last = after
    ahead: list[datetime] = []
    for wall in CronSim(cron, (after.astimezone(zone) - _BACK).replace(tzinfo=None)):
        first = _instant(wall, zone, 0)
        # Of later walls, none comes before this one's first time.
        while ahead and ahead[0] <= first:
            instant = heappop(ahead)
            if instant > last:
                last = instant
                yield instant
        for instant in _instants(wall, zone, rhythm):
            heappush(ahead, instant)


def between(cron: str, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
    """When it fires after an instant, until another one, that included."""
    return takewhile(lambda instant: instant <= until, fires(cron, zone, after))


def newest(
    cron: str, zone: ZoneInfo, after: datetime, until: datetime, most: int
) -> tuple[list[datetime], bool]:
    """The last fires of `between`, in order, and whether there are more before them, `most` being too few."""
    back = timedelta(hours=1)
    while True:
        start = max(after, until - back)
        found = list(between(cron, zone, start, until))
        if len(found) > most or start == after:
            return found[-most:], len(found) > most
        back *= 4


def _instants(wall: datetime, zone: ZoneInfo, rhythm: bool) -> list[datetime]:
    first, second = _instant(wall, zone, 0), _instant(wall, zone, 1)
    if first <= second:  # it is shown once, or twice
        return [first, second] if rhythm and first != second else [first]
    if rhythm:
        return []
    while not _shown(wall, zone):
        wall += _MINUTE
    return [_instant(wall, zone, 0)]


def _instant(wall: datetime, zone: ZoneInfo, fold: int) -> datetime:
    return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _shown(wall: datetime, zone: ZoneInfo) -> bool:
    return _instant(wall, zone, 0).astimezone(zone).replace(tzinfo=None) == wall
