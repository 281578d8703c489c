"""Looks at this user's schedules, by this machine's clock: one, or one after the other."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from jobs.scheduling.alerts import send_alerts
from jobs.scheduling.cron import fires
from jobs.scheduling.runs import SubmittedRuns
from jobs.scheduling.store import ScheduleStore, user_schedules
from jobs.scheduling.tick import Look, tick
from jobs.store import user_store

_EVERY = timedelta(seconds=15)  # runs are looked at so often; fires are waited for


def look_once(now: datetime, say: Callable[[str], None] = lambda _: None) -> Look:
    """One look, and the alerts that wait to be sent. Raises StoreError."""
    store = user_schedules()
    look = tick(store, SubmittedRuns(user_store(), say), now, say)
    send_alerts(store, now, say)
    return look


def look_on(ended: threading.Event, say: Callable[[str], None] = lambda _: None) -> Iterator[Look]:
    """Look until it is said that it has ended; yields each look."""
    while not ended.is_set():
        yield look_once(datetime.now(UTC), say)
        now = datetime.now(UTC)
        ended.wait((_next(user_schedules(), now) - now).total_seconds())


def _next(store: ScheduleStore, now: datetime) -> datetime:
    """When there is something to look at again."""
    coming = now + _EVERY
    for schedule in store.all():
        if not schedule.paused:
            spec = schedule.spec
            coming = min([coming, *filter(None, [next(fires(spec.cron, spec.zone, now), None)])])
    return coming
