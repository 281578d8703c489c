"""Progress for whoever waits: a bar on a terminal, a line every few seconds elsewhere, always on stderr."""

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

from pipelines import meter

_LINE_EVERY_S = 5.0


@contextmanager
def terminal_progress(give_up: Callable[[str], None] = sys.exit) -> Iterator[meter.Progress]:
    """Progress that suits stderr; `give_up` ends the process."""
    if not sys.stderr.isatty():
        yield LineProgress(give_up)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
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
    """A line every few seconds, with the rate since the stage began and the time that it leaves."""

    def __init__(self, give_up: Callable[[str], None], every_s: float = _LINE_EVERY_S) -> None:
        self.give_up, self.every_s = give_up, every_s
        self.name, self.first = "", 0
        self.known: int | None = None
        self.began = self.said = 0.0

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        self.name, self.known, self.first = name, total, done
        self.began = self.said = time.monotonic()
        resumed = f", {done} of them done before" if done else ""
        if total is not None:
            print(f"{name}: {total}{resumed}", file=sys.stderr, flush=True)

    def total(self, total: int) -> None:
        self.known = total
        print(f"{self.name}: {total}", file=sys.stderr, flush=True)

    def at(self, done: int) -> None:
        now = time.monotonic()
        if now - self.said < self.every_s:
            return
        self.said = now
        rate = (done - self.first) / (now - self.began)
        of = "" if self.known is None else f"/{self.known}"
        left = f", {(self.known - done) / rate:.0f} s left" if rate and self.known is not None else ""
        print(f"{self.name}: {done}{of}, {rate:.1f}/s{left}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")
