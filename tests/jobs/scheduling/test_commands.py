"""perceive schedule, tick and scheduler as their users see them; what is submitted is a stand-in's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.errors import SpecError
from jobs.scheduling import looking, runs
from jobs.scheduling.records import iso
from jobs.scheduling.store import ScheduleStore
from jobs.scheduling.tick import Outcome
from tests.jobs.scheduling.target import Table

ROOT = Path(__file__).parents[3]
JOB: dict[str, Any] = {
    "name": "nightly",
    "task": "video-classification",
    "model": {"checkpoint": "demo"},
    "input": {"uri": "clips", "select": "new"},
    "output": {"uri": "out"},
    "schedule": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEIVER_STATE", str(tmp_path / "state"))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    table = Table()
    for module in (runs, looking):
        monkeypatch.setattr(module, "SubmittedRuns", lambda *_: table)
    return table


def perceive(*arguments: str) -> Result:
    done = CliRunner().invoke(main, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done


def plain(*arguments: str) -> Any:
    return json.loads(perceive(*arguments, "--json").stdout)


def test_a_schedules_life(here: Path, table: Table) -> None:
    said = perceive("schedule", "apply", "job.yaml").stdout.splitlines()
    assert said[0] == "Schedule nightly is applied: version 1."
    assert said[1].startswith("nightly  30 2 * * * Europe/Berlin  next ")
    assert said[1].endswith("  overlap forbid  local")
    assert perceive("schedule", "apply", "job.yaml").stdout.startswith(
        "Schedule nightly is as it was: version 1."
    )
    found = plain(
        "schedule", "apply", "job.yaml", "-o", "schedule.overlap=queue", "--address", "http://head:8265"
    )
    assert (found["version"], found["new"], found["target"]) == (2, True, "ray http://head:8265")
    [listed] = plain("schedule", "list")["schedules"]
    assert listed == {name: value for name, value in found.items() if name != "new"}
    assert datetime.fromisoformat(listed["next"]).hour in (2, 3)
    assert perceive("schedule", "pause", "nightly").stdout == (
        "Schedule nightly is paused. Next: perceive schedule resume nightly\n"
    )
    assert "Europe/Berlin  paused  overlap" in perceive("schedule", "list").stdout
    assert plain("schedule", "resume", "nightly")["state"] == "on"
    now = plain("schedule", "run-now", "nightly")
    assert (now["state"], now["version"], now["exit_code"]) == ("submitted", 2, 0)
    waits = perceive("schedule", "run-now", "nightly")
    assert waits.exit_code == 0
    assert "Z  waiting" in waits.stdout or "Z  submitted" in waits.stdout  # in the same second it is that one
    table.end_all()
    assert perceive("tick").exit_code == 0
    history = plain("schedule", "history", "nightly", "--events")
    assert history["ticks"][-1]["state"] == "done"
    assert [one["event"] for one in history["events"]][:5] == [
        "applied",
        "applied",
        "paused",
        "resumed",
        "waiting",
    ]
    assert f"perceive status {now['run_id']}" in perceive("schedule", "history", "nightly").stdout
    assert plain("schedule", "remove", "nightly")["state"] == "removed"
    assert perceive("schedule", "list").stdout == "No schedules. Next: perceive schedule apply FILE\n"
    assert [one["state"] for one in plain("schedule", "list", "--removed")["schedules"]] == ["removed"]


def test_one_that_can_not_be_submitted_now(here: Path, table: Table) -> None:
    perceive("schedule", "apply", "job.yaml")
    table.fails = SpecError("input: No such file or folder: clips.")
    done = perceive("schedule", "run-now", "nightly")
    assert done.exit_code == 5
    assert "failed" in done.stdout
    assert "input: No such file or folder: clips." in done.stdout


def test_tick_says_what_is_wrong_once_and_exits_with_5(here: Path, table: Table) -> None:
    perceive(
        "schedule", "apply", "job.yaml", "-o", 'schedule.cron="* * * * *"', "-o", "schedule.catch_up=none"
    )
    store = ScheduleStore(here / "state")
    now = datetime.now(UTC)
    ticks = store.find("nightly", now + timedelta(minutes=12))  # as nobody looked
    store.add("nightly", now)
    missed = [one.tick for one in ticks if one.state == "missed"]
    assert missed
    quiet = perceive("tick")  # others found them, and have said so
    assert quiet.exit_code == 0
    [run_id] = table.going
    table.end(run_id, Outcome("failed", 5, "The disk is full."))
    done = perceive("tick")
    assert done.exit_code == 5
    assert f"nightly: the fire of {table.order[0]} failed. The disk is full." in done.stderr
    assert "Next: perceive schedule history nightly" in done.stderr
    assert perceive("tick").exit_code == 0
    kinds = {(one["tick"], one["kind"]) for one in plain("schedule", "history", "nightly")["alerts"]}
    assert kinds == {(tick, "missed") for tick in missed} | {(table.order[0], "failed")}


def test_tick_as_json(here: Path, table: Table) -> None:
    perceive("schedule", "apply", "job.yaml", "-o", 'schedule.cron="* * * * *"')
    store = ScheduleStore(here / "state")
    found = store.find("nightly", datetime.now(UTC) + timedelta(minutes=1))
    assert len(found) == 1
    assert plain("tick") == {"ticks": [], "alerts": [], "troubles": [], "exit_code": 0}  # it is not time yet
    store.add("nightly", datetime.now(UTC))
    told = plain("tick")
    assert [one["state"] for one in told["ticks"]] == ["claimed", "submitted"]
    assert told["exit_code"] == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_scheduler_ends_in_order(here: Path, how: signal.Signals) -> None:
    """A real one, of a job that can't be run: it says so, goes on, and ends when it is asked to."""
    perceive("schedule", "apply", "job.yaml")
    now = datetime.now(UTC)
    ScheduleStore(here / "state").add("nightly", now)
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "scheduler", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout
    told = [json.loads(process.stdout.readline()) for _ in range(3)]
    time.sleep(0.1)
    process.send_signal(how)
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert [(one["what"], one.get("state", one.get("kind"))) for one in told] == [
        ("tick", "claimed"), ("tick", "failed"), ("alert", "failed"),
    ]  # fmt: skip
    assert told[-1]["tick"] == iso(now)
    assert told[-1]["reason"].startswith("input: No such file or folder: ")
