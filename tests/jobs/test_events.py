"""events.jsonl: its schema, its order, and what is left of it after a kill."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from jobs.events import KINDS, Events, read, recorded
from pipelines.storage import OutputError, Storage, open_storage

README = Path(__file__).parent.parent.parent / "README.md"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "out"))
    storage.prepare()
    return storage


def test_every_event_says_when_and_of_what(storage: Storage) -> None:
    events = Events(storage, "run1", 3)
    events.note("oom_halved", shard=4, batch=2, chunk=10)
    events.note("worker_replaced", at="2026-11-25T10:00:00+00:00", stage="predict", shard=4, why="CUDA error")
    first, second = read(storage, "run1")
    assert datetime.fromisoformat(first.pop("time")).tzinfo
    assert first == {
        "v": 1, "run_id": "run1", "attempt": 3, "event": "oom_halved", "shard": 4, "batch": 2, "chunk": 10,
    }  # fmt: skip
    assert second["time"] == "2026-11-25T10:00:00+00:00"


def test_an_event_has_the_fields_of_its_kind_and_no_others(storage: Storage) -> None:
    events = Events(storage, "run1", 1)
    with pytest.raises(ValueError, match="An event oom_halved has the fields shard, batch, chunk; got shard"):
        events.note("oom_halved", shard=4)
    with pytest.raises(KeyError):
        events.note("what")
    assert not list(read(storage, "run1"))


def test_a_line_that_a_kill_cut_short_spoils_no_other(storage: Storage) -> None:
    Events(storage, "run1", 1).note("attempt_interrupted")
    path = Path(storage.where("runs/run1/events.jsonl"))
    path.write_bytes(path.read_bytes() + b'{"v": 1, "event": "att')
    Events(storage, "run1", 2).note("attempt_interrupted")
    assert [event["attempt"] for event in read(storage, "run1")] == [1, 2]
    assert len(path.read_text().splitlines()) == 3


def test_how_an_attempt_ends_is_noted(storage: Storage) -> None:
    with recorded(Events(storage, "run1", 1)):
        pass
    with pytest.raises(ZeroDivisionError), recorded(Events(storage, "run1", 2)):
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), recorded(Events(storage, "run1", 3)):
        raise KeyboardInterrupt
    done, failed, interrupted = read(storage, "run1")
    assert (done["event"], done["seconds"]) == ("attempt_done", 0.0)
    assert (failed["event"], failed["error"], failed["message"]) == (
        "attempt_failed", "ZeroDivisionError", "division by zero",
    )  # fmt: skip
    assert "test_events.py" in failed["traceback"]
    assert interrupted["event"] == "attempt_interrupted"


def test_where_events_cannot_be_written_the_attempts_own_error_is_raised(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, name: str, data: bytes) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(type(storage), "append", full)
    with pytest.raises(ZeroDivisionError) as raised, recorded(Events(storage, "run1", 1)):
        _ = 1 / 0
    assert raised.value.__notes__ == ["It could not be noted in events.jsonl: no room"]


def test_no_secret_of_the_environment_gets_in(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", 'can"ary/9')
    with pytest.raises(ValueError, match="ary"), recorded(Events(storage, "run1", 1)):
        raise ValueError('with can"ary/9 and https://h/?X-Amz-Signature=abc&n=1')
    text = Path(storage.where("runs/run1/events.jsonl")).read_text()
    assert "ary/9" not in text
    assert "abc" not in text
    assert json.loads(text)["message"] == "with [hidden] and https://h/?X-Amz-Signature=[hidden]&n=1"


def test_the_readme_has_every_kind_with_its_fields() -> None:
    for kind, (meaning, fields) in KINDS.items():
        names = ", ".join(f"`{name}`" for name in fields)
        line = f"| `{kind}` | {meaning} | {names} |"
        assert re.sub(r"\s+", " ", line) in README.read_text(), line
