"""Progress for whoever waits: true after a resume and where no total is known, and plain lines where no terminal is."""

import io
import re
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from jobs.cli.progress import BarProgress, LineProgress, terminal_progress


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_lines_count_what_was_done_before_for_the_share_and_not_for_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = LineProgress(sys.exit)
    lines.stage("windows", 100, 40)
    clock.now += 10
    lines.at(50)
    clock.now += 1
    lines.at(51)  # too soon for another line
    clock.now += 39
    lines.at(90)
    clock.now += 1
    lines.at(100)  # the last one is always said, and once
    lines.at(100)
    assert capsys.readouterr().err.splitlines() == [
        "windows: 100, 40 of them done before",
        "windows: 50/100 (50%), 1.0/s, 50 s left",
        "windows: 90/100 (90%), 1.0/s, 10 s left",
        "windows: 100/100 (100%), 1.2/s",
    ]


def test_lines_without_a_total_promise_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineProgress(sys.exit)
    lines.stage("files listed", None)
    clock.now += 6
    lines.at(1200)
    lines.total(1300)
    assert capsys.readouterr().err.splitlines() == ["files listed: 1200, 200.0/s", "files listed: 1300"]


def test_what_is_quick_has_one_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineProgress(sys.exit)
    lines.stage("windows", 3)
    for done in range(4):
        clock.now += 1
        lines.at(done)
    assert capsys.readouterr().err.splitlines() == ["windows: 3"]


def test_a_log_of_days_has_a_line_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineProgress(sys.exit)
    lines.stage("windows", 10**9)
    for second in range(86_400):
        clock.now += 1
        lines.at(second + 1)
    said = capsys.readouterr().err.splitlines()
    assert 86_400 / 60 <= len(said) < 86_400 / 60 + 300
    assert said[-1].endswith("1.0/s, 11573 days left")


@given(st.lists(st.integers(0, 50), min_size=1), st.integers(0, 20))
def test_lines_never_promise_less_than_nothing(steps: list[int], before: int) -> None:
    total = before + sum(steps)
    with pytest.MonkeyPatch.context() as patch:
        clock, said = Clock(patch), io.StringIO()
        patch.setattr(sys, "stderr", said)
        lines = LineProgress(sys.exit)
        lines.stage("windows", total, before)
        done = before
        for step in steps:
            clock.now += 7
            done += step
            lines.at(done)
    assert said.getvalue().splitlines()[-1].startswith(f"windows: {total}/{total} (")
    assert all(float(rate) >= 0 for rate in re.findall(r"(\S+)/s", said.getvalue()))


def test_a_bars_rate_is_of_this_attempt() -> None:
    now = 0.0
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(console=console, get_time=lambda: now, auto_refresh=False) as bars:
        bar = BarProgress(bars, sys.exit)
        bar.stage("files listed", None)
        bar.at(7)
        assert (bars.tasks[0].total, bars.tasks[0].completed) == (None, 7)
        bar.total(9)
        assert bars.tasks[0].finished
        bar.stage("windows", 1000, 900)
        for second in range(1, 11):
            now = float(second)
            bar.at(900 + 2 * second)
        windows = bars.tasks[1]
        assert windows.percentage == pytest.approx(92)
        assert windows.speed == pytest.approx(2, rel=0.2)
        assert windows.time_remaining == pytest.approx(40, rel=0.2)


def test_bars_are_for_terminals_that_can_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal_progress() as found:
        assert isinstance(found, LineProgress)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with terminal_progress() as found:
        assert isinstance(found, LineProgress)
    monkeypatch.setenv("TERM", "xterm")
    with terminal_progress() as found:
        assert isinstance(found, BarProgress)
