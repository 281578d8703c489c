"""Progress for whoever waits: a bar on a terminal, a line every few seconds elsewhere, always on stderr."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from jobs.durations import spoken
from pipelines import meter

_LINE_EVERY_S, _LEAST_OFTEN_S = 5.0, 60.0
_SHARE = 60  # of a stage's own seconds, between two lines: a log of days is to be read still
_SPEED_S = 120  # the bar's rate is of so long: a window may take a minute


@contextmanager
def terminal_progress(give_up: Callable[[str], None] = sys.exit) -> Iterator[meter.Progress]:
    """Progress that suits stderr; `give_up` ends the process."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield LineProgress(give_up)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=_SPEED_S) as bars:
        yield BarProgress(bars, give_up)


class BarProgress:
    """One bar a stage, under the bars of those that are done."""

    def __init__(self, bars: Progress, give_up: Callable[[str], None]) -> None:
        self.bars, self.give_up = bars, give_up
        self.bar: TaskID | None = None

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        self.bar = self.bars.add_task(name, total=total, completed=done)

    def total(self, total: int) -> None:
        if self.bar is not None:
            self.bars.update(self.bar, total=total, completed=total)

    def at(self, done: int) -> None:
        if self.bar is not None:
            self.bars.update(self.bar, completed=done)

    def say(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False)


class LineProgress:
    """A line every few seconds, of a long stage every minute: the rate since it began, and the time that it leaves.

    What was done before the stage began, by an attempt that was resumed, counts for the share and not for the rate.
    """

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self.give_up = give_up
        self.name, self.first = "", 0
        self.known: int | None = None
        self.ended = False  #: whether it was said that all is done
        self.began = self.said = 0.0

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        self.name, self.known, self.first, self.ended = name, total, done, False
        self.began = self.said = time.monotonic()
        resumed = f", {done} of them done before" if done else ""
        if total is not None:
            print(f"{name}: {total}{resumed}", file=sys.stderr, flush=True)

    def total(self, total: int) -> None:
        self.known, self.ended = total, True
        print(f"{self.name}: {total}", file=sys.stderr, flush=True)

    def at(self, done: int) -> None:
        now = time.monotonic()
        passed = now - self.began
        ended = done == self.known and self.said > self.began and not self.ended  # of what is quick, no word
        every_s = min(_LEAST_OFTEN_S, max(_LINE_EVERY_S, passed / _SHARE))
        if now - self.said < every_s and not ended:
            return
        self.said, self.ended = now, self.ended or ended
        rate = (done - self.first) / passed if passed else 0.0
        of = "" if self.known is None else f"/{self.known} ({done / max(1, self.known):.0%})"
        left = f", {spoken((self.known - done) / rate)} left" if rate and self.known and not ended else ""
        print(f"{self.name}: {done}{of}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")
