"""Alerts: a webhook that is slow, broken, gone or wrong fails no fire, is tried again, and is told each once."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.scheduling import alerts
from jobs.scheduling.alerts import send_alerts
from jobs.scheduling.steps import STEPS
from jobs.scheduling.store import ScheduleStore
from jobs.scheduling.tick import Outcome, tick
from tests.jobs.scheduling.target import Table, at, mortal, terms

NOON = at("2026-11-26T12:00:00")
MINUTE = timedelta(minutes=1)
PATH = "/services/hush-hush-key"  # as chat systems have it: who knows the address may write


class Webhook:
    """A server that answers as it is told, and keeps what it was told."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = hook.answers.pop(0) if hook.answers else 200
                if answer == 200:
                    hook.told.append((self.path, json.loads(body)))
                self.send_response(answer)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}{PATH}"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    webhook = Webhook()
    thread = threading.Thread(target=webhook.server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("TEAM_WEBHOOK", webhook.address)
    yield webhook
    webhook.server.shutdown()
    thread.join()
    webhook.server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> ScheduleStore:
    """A schedule of whose fires one is missed and one is late."""
    store = ScheduleStore(tmp_path)
    rules = terms(catch_up="all", max_catch_up=1, webhook="TEAM_WEBHOOK", overlap="allow")
    store.apply("nightly", rules, NOON - 90 * MINUTE)
    return store


def test_each_alert_is_told_once(store: ScheduleStore, hook: Webhook) -> None:
    table, said = Table(), []
    look = tick(store, table, NOON + 15 * MINUTE)
    assert [(one.tick[11:13], one.kind) for one in look.alerts] == [("12", "late"), ("11", "missed")]
    for _ in range(2):
        assert not send_alerts(store, NOON + 15 * MINUTE, said.append)
    [run_id] = table.going
    table.end(run_id, Outcome("failed", 5, "The disk is full."))
    tick(store, table, NOON + 30 * MINUTE)
    assert not send_alerts(store, NOON + 30 * MINUTE, said.append)
    assert not said
    assert [path for path, _ in hook.told] == [PATH] * 3
    first, second, third = (body for _, body in hook.told)
    host = first.pop("host")
    assert first == {
        "v": 1,
        "id": "nightly/2026-11-26T11:00:00+00:00/missed",
        "kind": "missed",
        "schedule": "nightly",
        "tick": "2026-11-26T11:00:00+00:00",
        "time": "2026-11-26T12:15:00+00:00",
        "run_id": "",
        "exit_code": None,
        "reason": "It was found 75 min after its time, and 1 later ones are made up for.",
    }
    assert host
    assert (second["kind"], second["reason"]) == ("late", "It was found 15 min after its time.")
    assert (third["kind"], third["run_id"], third["exit_code"], third["reason"]) == (
        "failed", run_id, 5, "The disk is full.",
    )  # fmt: skip
    assert {one.webhook for one in store.alerts("nightly")} == {"sent"}


def test_one_that_is_busy_is_asked_again(store: ScheduleStore, hook: Webhook) -> None:
    hook.answers = [503, 429, 200, 500]
    tick(store, Table(), NOON + 15 * MINUTE)
    assert not send_alerts(store, NOON, print, wait_s=0.001)
    assert len(hook.told) == 2
    assert hook.answers == []


@pytest.mark.parametrize(
    ("answers", "address", "expected"),
    [
        ([404], None, "the webhook refused it with 404: check its address, and what it expects."),
        ([500] * 4, None, "the webhook answered 500, 4 times."),
        ([], f"http://127.0.0.1:9{PATH}", "the webhook could not be reached (Connection refused), 4 times."),
        ([], "", "the environment variable TEAM_WEBHOOK, which is to hold its address, is not set here."),
        ([], f"ftp://host{PATH}", "TEAM_WEBHOOK must hold an address that begins with https:// or http://."),
        ([], f"http://[{PATH}", "the webhook's address can't be read. Check the variable."),
    ],
)
def test_one_that_does_not_take_it_fails_no_fire_and_is_said(
    store: ScheduleStore,
    hook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[int],
    address: str | None,
    expected: str,
) -> None:
    hook.answers = answers
    if address is not None:
        monkeypatch.setenv("TEAM_WEBHOOK", address)
    look = tick(store, Table(), NOON + MINUTE)  # of 11 and 12, one late
    assert [one.state for one in store.ticks("nightly")] == ["submitted", "submitted"]
    assert not look.troubles
    said: list[str] = []
    [lost] = send_alerts(store, NOON + MINUTE, said.append, wait_s=0.001)
    assert said == [f"nightly: the alert of the late fire of {lost.tick} was not sent: {expected}"]
    [alert] = store.alerts("nightly")
    assert alert.webhook == expected
    assert store.events("nightly")[-1] == {
        "time": "2026-11-26T12:01:00+00:00", "schedule": "nightly", "tick": "2026-11-26T11:00:00+00:00",
        "event": "webhook_failed", "kind": "late", "reason": expected,
    }  # fmt: skip
    assert "hush" not in "".join(said) + (store.folder / "schedules.db").read_bytes().decode("latin-1")
    assert not send_alerts(store, NOON + MINUTE, said.append)  # it is not tried for ever


def test_one_that_does_not_answer(
    store: ScheduleStore, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.server.shutdown()  # it takes connections, and says nothing
    monkeypatch.setattr(alerts, "_TIMEOUT_S", 0.1)
    tick(store, Table(), NOON + MINUTE)
    said: list[str] = []
    assert send_alerts(store, NOON + MINUTE, said.append, wait_s=0.001)
    assert said[0].endswith("was not sent: the webhook did not answer within 0 s, 4 times.")


def test_without_a_webhook_nothing_is_sent(tmp_path: Path, hook: Webhook) -> None:
    store = ScheduleStore(tmp_path)
    store.apply("nightly", terms(), NOON - 30 * MINUTE)
    assert tick(store, Table(), NOON + 15 * MINUTE).alerts
    assert not send_alerts(store, NOON + 15 * MINUTE, print)
    assert not hook.told


@pytest.mark.parametrize("step", ["alerts taken", "alert sent"])
def test_whoever_is_killed_while_sending_leaves_it_to_others(
    store: ScheduleStore, hook: Webhook, step: str
) -> None:
    tick(store, Table(), NOON + MINUTE)
    with mortal() as steps, steps.armed(1 + STEPS.index(step) - STEPS.index("alerts taken")):
        send_alerts(store, NOON + MINUTE, print)
    assert steps.passed[-1] == step
    assert not send_alerts(store, NOON + 2 * MINUTE, print)  # it may still be at it
    assert len(hook.told) == (step == "alert sent")
    send_alerts(store, NOON + 10 * MINUTE, print)
    ids = [body["id"] for _, body in hook.told]
    assert {*ids} == {"nightly/2026-11-26T11:00:00+00:00/late"}
    assert len(ids) == 1 + (step == "alert sent")  # at least once
