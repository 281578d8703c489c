"""events.jsonl: its schema, its order, and what is left of it after a kill."""

import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import s3fs
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.events import KINDS, Events, Reader, read, recorded
from pipelines.storage import OutputError, Storage, open_storage
from tests.faults.store import Store, s3

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


SHARE = st.sampled_from([0.0, 0.3, 0.9, 1.0])  # of a line without its end
STEPS = st.one_of(
    st.just("note"),
    st.just("look"),
    st.tuples(st.just("killed"), SHARE),  # when so much of a line was written
    st.tuples(st.just("seen"), SHARE),  # while
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=20))
def test_what_is_read_in_pieces_is_what_is_read_at_once(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage, attempt, found = open_storage(folder), 1, list[dict[str, Any]]()
        path = Path(storage.where("runs/run1/events.jsonl"))
        reader = Reader(storage, "run1")
        for step in [*steps, "look"]:
            if step == "note":
                Events(storage, "run1", attempt).note("oom_halved", shard=len(found), batch=2, chunk=1)
            elif step == "look":
                found += reader.new()
                assert found == list(read(storage, "run1"))
            else:
                Events(storage, "run1", attempt).note("stalled", state={"of": attempt})
                data = path.read_bytes()
                begin = data[:-1].rfind(b"\n") + 1
                there = begin + 1 + round(step[1] * (len(data) - begin - 2))
                os.truncate(path, there)
                if step[0] == "killed":
                    attempt += 1
                    continue
                found += reader.new()
                assert found == list(read(storage, "run1"))
                path.write_bytes(data)
        assert not list(reader.new())


def test_a_look_at_a_folder_reads_what_is_new(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Counting(io.FileIO):
        def readinto(self, into: Any) -> int:
            taken.append(super().readinto(into) or 0)
            return taken[-1]

        def readall(self) -> bytes:
            data = super().readall()
            taken.append(len(data))
            return data

    reader = Reader(storage, "run1")
    for count in (0, 1000, 0, 3):
        added = b"".join(b'{"event": "stalled", "state": {"of": %d}}\n' % n for n in range(count))
        if added:
            storage.append("runs/run1/events.jsonl", added)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda self, mode: io.BufferedReader(Counting(self, mode)))
            assert len(list(reader.new())) == count
        assert sum(taken) == len(added)
        taken.clear()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with s3() as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield made
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_look_at_a_bucket_asks_for_what_is_new(bucket: Store) -> None:
    storage, found = open_storage("s3://bucket/out"), list[dict[str, Any]]()
    reader = Reader(storage, "run1")
    for attempt, more in ((1, 20), (2, 0), (2, 1), (3, 4)):
        for shard in range(more):
            Events(storage, "run1", attempt).note("oom_halved", shard=shard, batch=2, chunk=1)
        bucket.proxy.asked.clear()
        found += reader.new()
        asked = [request.split()[0] for request in bucket.proxy.asked]
        assert sorted(asked) == sorted(["GET"] + ["GET", "HEAD"] * more)  # one lists them
        assert found == list(read(storage, "run1"))


def test_a_log_that_was_replaced_while_it_was_followed_is_said(storage: Storage) -> None:
    reader = Reader(storage, "run1")
    Events(storage, "run1", 1).note("stalled", state={"of": "one"})
    assert len(list(reader.new())) == 1
    path = Path(storage.where("runs/run1/events.jsonl"))
    size = path.stat().st_size
    path.unlink()
    with pytest.raises(OutputError) as raised:
        list(reader.new())
    assert str(raised.value) == (
        f"{path} is shorter than it was: expected {size} bytes and what came since, got 0. Somebody deleted or "
        "replaced it while it was followed: look at it anew."
    )


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
