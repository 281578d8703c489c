"""What became of a run, from its events, its lease and its target: for every way in which it can have ended."""

from pathlib import Path
from typing import Any

import pytest

from cluster.target import Sent
from jobs.events import Events
from jobs.lease import held
from jobs.observing import Status, Watch, observe
from jobs.states import STATES
from pipelines.storage import Storage, open_storage

RUN = "0123456789ab"
STARTED = {
    "host": "h", "pid": 1, "code": "0", "device": "cpu", "environment": {}, "shards": 4, "done": 0,
    "windows": 8, "items": 3,
}  # fmt: skip
PUBLISHED = {"number": 1, "items": 3, "rows": 7, "quarantined": 0, "items_quarantined": 0}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path))
    storage.prepare()
    return storage


def happened(storage: Storage, attempt: int, *told: tuple[str, dict[str, Any]]) -> None:
    events = Events(storage, RUN, attempt)
    for kind, fields in told:
        events.note(kind, **fields)


def committed(shard: int, quarantined: int = 0) -> tuple[str, dict[str, Any]]:
    return "shard_committed", {"shard": shard, "rows": 2, "quarantined": quarantined, "notes": {}}


def seen(storage: Storage, sent: Sent | None = None) -> Status:
    return observe(Watch(storage, RUN), sent)


def ended(storage: Storage, *told: tuple[str, dict[str, Any]]) -> Status:
    happened(storage, 1, ("attempt_started", STARTED), committed(0), committed(2, 1), *told)
    return seen(storage)


def test_done(storage: Storage) -> None:
    found = ended(storage, ("manifest_published", PUBLISHED), ("attempt_done", {"seconds": 1.0}))
    assert (found.state, found.exit_code, found.attempt.rows, found.attempt.quarantined) == ("done", 0, 7, 0)


def test_done_with_quarantined_rows(storage: Storage) -> None:
    published = PUBLISHED | {"quarantined": 1, "items_quarantined": 1}
    found = ended(storage, ("manifest_published", published), ("attempt_done", {"seconds": 1.0}))
    assert (found.state, found.exit_code, found.attempt.quarantined) == ("done", 3, 1)


def test_failed(storage: Storage) -> None:
    found = ended(
        storage, ("attempt_failed", {"error": "OutputError", "message": "no room", "traceback": ""})
    )
    assert (found.state, found.exit_code, found.message) == ("failed", 5, "no room")
    assert (found.attempt.shards_done, found.attempt.rows, found.attempt.quarantined) == (2, 4, 1)


def test_more_failed_than_allowed(storage: Storage) -> None:
    over = {"items": 3, "quarantined": 1, "message": "too many"}
    failed = {"error": "ErrorBudgetError", "message": "too many", "traceback": ""}
    found = ended(storage, ("budget_exceeded", over), ("attempt_failed", failed))
    assert (found.state, found.exit_code) == ("failed", 4)


def test_stopped(storage: Storage) -> None:
    found = ended(storage, ("attempt_interrupted", {}))
    assert (found.state, found.exit_code) == ("stopped", 130)


def test_killed(storage: Storage) -> None:
    found = ended(storage)
    assert (found.state, found.exit_code, found.message) == (
        "lost",
        5,
        "It was killed, or its machine or its output is gone.",
    )


def test_running_while_its_lease_is_held(storage: Storage) -> None:
    happened(storage, 1, ("attempt_started", STARTED))
    with held(storage, RUN, None):
        assert (seen(storage).state, seen(storage).exit_code) == ("running", None)
        assert observe(Watch(storage, "another")).state == "lost"
    assert seen(storage).state == "lost"


def test_the_next_attempt_counts_from_what_was_there(storage: Storage) -> None:
    ended(storage, ("attempt_interrupted", {}))
    happened(storage, 2, ("attempt_started", STARTED | {"done": 2}), committed(1))
    attempt = seen(storage).attempt
    assert (attempt.number, attempt.ended, attempt.shards_done, attempt.rows) == (2, None, 3, 6)


@pytest.mark.parametrize(
    ("sent", "state", "code"),
    [
        (Sent("s", "pending"), "submitted", None),
        (Sent("s", "running"), "running", None),
        (Sent("s", "failed", "no such job", 2), "failed", 2),
        (Sent("s", "failed", "it broke", 1), "failed", 5),
        (Sent("s", "failed", "the node died"), "lost", 5),
        (Sent("s", "stopped", "stopped"), "stopped", 130),
        (None, "lost", 5),
    ],
)
@pytest.mark.parametrize("before", [False, True], ids=["before its attempt", "killed in its attempt"])
def test_what_the_target_says(
    before: bool, sent: Sent | None, state: str, code: int | None, storage: Storage
) -> None:
    if before:
        happened(storage, 1, ("attempt_started", STARTED))
        state = "running" if state == "submitted" else state  # it has begun
    found = seen(storage, sent)
    assert (found.state, found.exit_code) == (state, code)
    assert found.state in STATES


def test_a_resumed_run_is_not_as_its_last_attempt_ended(storage: Storage) -> None:
    ended(storage, ("attempt_interrupted", {}))
    assert seen(storage, Sent("s", "pending")).state == "submitted"
    assert seen(storage, Sent("s", "running")).state == "running"
    refused = seen(storage, Sent("s", "failed", "", 2))
    assert (refused.state, refused.message) == (
        "failed",
        "The job can't be run as it is: perceive logs says why.",
    )
