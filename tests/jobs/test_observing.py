"""What became of a run, from its events, its lease and its target: for every way in which it can have ended."""

import importlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.target import Sent
from jobs import finding, following, quarantine
from jobs.events import Events, read
from jobs.lease import Holder, held
from jobs.observing import Status, Watch, observe
from jobs.pace import STAGES, pace
from jobs.states import STATES
from jobs.store import Run, user_store
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


def test_who_ends_while_a_sign_of_life_is_waited_for_is_not_lost(storage: Storage) -> None:
    """Of another host, which can only be watched."""
    happened(storage, 1, ("attempt_started", STARTED))
    holder = vars(replace(Holder.me(), host="there", space="another boot"))
    lease = {"number": 1, "run_id": RUN, "holder": holder, "began": "2026-11-25T10:00:00+00:00"}
    storage.write("runs/leases/000001.json", json.dumps(lease).encode())
    said: list[str] = []

    def ends(text: str) -> None:
        said.append(text)
        happened(storage, 1, ("manifest_published", PUBLISHED), ("attempt_done", {"seconds": 1.0}))
        storage.write("runs/leases/000001.released", b"")

    found = observe(Watch(storage, RUN), tell=ends)
    assert said == ["waiting for a sign of life of there, which held this output last"]
    assert (found.state, found.exit_code, found.attempt.rows) == ("done", 0, 7)


PROGRESS = {"windows": 0, "total": 100, "cores": 2, "cores_busy": 0.5, "memory": 1}
EVENT = st.one_of(
    st.just(("attempt_started", STARTED)),
    st.builds(committed, st.integers(0, 3), st.integers(0, 2)),
    st.integers(0, 20).map(lambda windows: ("progress", windows)),
    st.just(("manifest_published", PUBLISHED)),
    st.just(("attempt_failed", {"error": "OutputError", "message": "no room", "traceback": ""})),
    st.just(("attempt_interrupted", {})),
    st.just(("attempt_done", {"seconds": 1.0})),
)


@settings(max_examples=50, deadline=None)
@given(told=st.lists(st.lists(EVENT, max_size=6), max_size=6), step_s=st.sampled_from([1, 10, 59, 61]))
def test_a_watch_that_is_kept_sees_what_a_new_one_does(
    told: list[list[tuple[str, Any]]], step_s: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(folder)
        kept, seconds, attempt, done = Watch(storage, RUN), 0, 0, 0
        for piece in told:
            for kind, fields in piece:
                what: Any = fields
                seconds += step_s
                if kind == "attempt_started":
                    attempt, done = attempt + 1, 0
                elif kind == "progress":
                    done += what
                    stage = {"workers": 2, "windows": done, "busy_s": done / 8}
                    what = PROGRESS | {"stages": dict.fromkeys(STAGES, stage)}
                at = f"2026-11-25T10:{seconds // 60:02}:{seconds % 60:02}+00:00"
                Events(storage, RUN, attempt).note(kind, at, **what)
            seen = observe(kept)
            assert seen == observe(Watch(storage, RUN))
            assert seen.pace == pace(read(storage, RUN))
        assert len(kept.paced) <= 2 + 60 // step_s + 1


def test_what_happens_is_told_once_as_it_happens(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first look to that at which the run is at rest, and what came just before it."""
    happened(storage, 1, ("attempt_started", STARTED))
    to_come: list[Any] = [[committed(0)], [], [committed(1), ("attempt_done", {"seconds": 1.0})]]
    run = Run(RUN, "texts", "latents", storage.uri, "running")
    with held(storage, RUN, None):
        monkeypatch.setattr(
            following.time, "sleep", lambda _: happened(storage, 1, *to_come.pop(0)) if to_come else None
        )
        found = [event["event"] for event in following.happened(run, user_store(), follow=True)]
    assert found == ["attempt_started", "shard_committed", "shard_committed", "attempt_done"]
    assert not to_come
    again = following.happened(run, user_store(), follow=False)
    assert [event["event"] for event in again] == found


def test_a_watched_status_reads_the_quarantine_once_it_has_grown(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened(storage, 1, ("attempt_started", STARTED))
    end = ("attempt_done", {"seconds": 1.0})
    to_come: list[Any] = [[committed(0)], [committed(1, 2)], [], [committed(2)], [committed(3, 1), end]]
    read_of: list[int] = []  # how many rows there were at each reading

    def errors(out: str) -> pa.Table:
        read_of.append(seen(storage).attempt.quarantined)
        return pa.table({"error": ["MediaError"] * read_of[-1]})

    status = importlib.import_module("jobs.cli.status")  # the package has the command by that name
    monkeypatch.setattr(quarantine, "errors", errors)
    monkeypatch.setattr(finding, "find", lambda *_: Run(RUN, "texts", "latents", storage.uri, "running"))
    monkeypatch.setattr(status.time, "sleep", lambda _: happened(storage, 1, *to_come.pop(0)))
    with held(storage, RUN, None):
        looks = [(one.attempt.quarantined, known) for _, one, known in status._looks(RUN, watch=True)]
    assert [rows for rows, _ in looks] == [0, 0, 2, 2, 2, 3]
    assert all(known == ({"MediaError": rows} if rows else {}) for rows, known in looks)
    assert read_of == [2, 3]
