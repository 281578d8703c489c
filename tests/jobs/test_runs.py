"""Runs over an input that changes, killed at any commit point: the table is always that of an undisturbed run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs import events
from jobs.budget import ErrorBudgetError
from jobs.garbage import collect
from jobs.quarantine import errors, grouped
from jobs.spec import SpecError
from pipelines import commit_points, reader
from pipelines.storage import open_storage
from tests.faults.ledger import balance
from tests.jobs.bucket import BAD, OPTIONS, Bucket, fill
from tests.jobs.inprocess import Kill, Killed
from tests.pipelines.committing import NoProgress

TASKS = ("text-classification", "latents")  # one publishes in the end, the other's parts are the table


@pytest.mark.parametrize("task", TASKS)
def test_killed_at_every_commit_point_the_table_is_the_undisturbed_one(
    tmp_path: Path, texts_model: Path, kill: Kill, task: str
) -> None:
    bucket = Bucket(tmp_path, texts_model, task)
    fill(bucket, bad="cd")
    calm = bucket.run()
    assert (calm.exit_code, calm.items, calm.quarantined) == (3, 7, 2)
    expected = reader.dataset(bucket.out).to_table()
    points = kill.count
    passed = set(kill.passed)
    assert points > 40
    missing = {"staged parts deleted"} if task == "latents" else set()
    assert passed == {*commit_points.POINTS} - missing
    for at in range(1, points + 1):
        shutil.rmtree(bucket.out)
        with kill.after(at):
            bucket.run()
        bucket.run()
        assert reader.dataset(bucket.out).to_table().equals(expected), at
        bucket.check(bucket.files)


@pytest.mark.parametrize("task", TASKS)
def test_killed_at_every_point_again_and_again(
    tmp_path: Path, texts_model: Path, kill: Kill, task: str
) -> None:
    """Each attempt gets one commit point further than the one before: all of them together do the work once."""
    bucket = Bucket(tmp_path, texts_model, task)
    fill(bucket, bad="a")
    bucket.run()
    expected = reader.dataset(bucket.out).to_table()
    shutil.rmtree(bucket.out)
    at, kills = 8, 0
    while True:
        kill.arm(at)
        try:
            bucket.run()
        except Killed:
            at, kills = at + 1, kills + 1
            continue
        break
    assert kills > 10
    assert reader.dataset(bucket.out).to_table().equals(expected)
    bucket.check(bucket.files)


def test_names_that_are_no_utf8_are_items_like_others(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, ("a", "caf\udce9", "caf%E9", "n\udcff", "z"), bad=("n\udcff",))
    bucket.run()
    expected = reader.dataset(bucket.out).to_table()
    assert expected["uri"].to_pylist().count(f"file://{bucket.folder}/caf%E9.txt") == 1
    [bad] = reader.quarantine(bucket.out).to_pylist()
    assert (bad["uri"], bad["error"]) == (f"file://{bucket.folder}/n%FF.txt", "TextError")
    bucket.check(bucket.files)
    shutil.rmtree(bucket.out)
    with kill.after(60):
        bucket.run()
    assert 0 < bucket.run().windows_now < 5
    assert reader.dataset(bucket.out).to_table().equals(expected)
    bucket.check(bucket.files)
    bucket.put("n\udcff", b"mended")
    assert bucket.retry()
    bucket.check(bucket.files)
    bucket.put("caf\udce9", b"another text")
    bucket.run(supersede=True)
    bucket.check(bucket.files)


def test_the_same_job_again_does_nothing(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    first = bucket.run()
    before = {path: path.stat().st_mtime_ns for path in Path(bucket.out).rglob("*") if path.is_file()}
    again = bucket.run()
    assert (again.windows_now, again.attempt, again.rows) == (0, 1, first.rows)
    assert {path: path.stat().st_mtime_ns for path in Path(bucket.out).rglob("*") if path.is_file()} == before


def test_a_changed_job_or_input_is_refused_by_name(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    bucket.run()
    with pytest.raises(
        SpecError, match=r"differs from this job: options.top_k was 2, is 3\. .* put this job's"
    ):
        bucket.run(options=OPTIONS | {"top_k": 3})
    bucket.put("new", b"new")
    bucket.put("a", b"other")
    bucket.remove("b")
    with pytest.raises(
        SpecError,
        match=r"input \(1 files added, 1 changed, 1 gone\)\. .* add --supersede to do what is new or changed",
    ):
        bucket.run()


@pytest.mark.parametrize("task", TASKS)
def test_only_what_changed_is_done_again(tmp_path: Path, texts_model: Path, kill: Kill, task: str) -> None:
    bucket = Bucket(tmp_path, texts_model, task)
    fill(bucket, bad="d")
    bucket.run()
    before = reader.dataset(bucket.out).to_table()
    bucket.put("b", b"another text")  # which shares a shard with a
    bucket.put("new", b"new")
    bucket.remove("g")
    result = bucket.run(supersede=True)
    assert result.windows_now == 2
    bucket.check(bucket.files)
    after = reader.dataset(bucket.out).to_table()
    kept = [uri for uri in before["uri"].to_pylist() if Path(uri).stem not in "bg"]

    def of(table: pa.Table) -> list[dict[str, Any]]:
        rows = [row for row in table.to_pylist() if row["uri"] in kept]
        return sorted(rows, key=lambda row: row["uri"])

    assert of(after) == of(before)
    index = reader.index(bucket.out)
    assert len(set(index["run_id"].to_pylist())) == 2
    data = list(Path(bucket.out, "data").iterdir())
    found = collect(bucket.out, 0, True, NoProgress())
    assert list(Path(bucket.out, "data").iterdir()) == data  # it was only asked
    collect(bucket.out, 0, False, NoProgress())
    assert {f"data/{path.name}" for path in data} - {*found.files} == {
        part.path for part in reader.manifest(bucket.out).parts
    }
    format = "parquet" if data[0].suffix == ".parquet" else "ipc"
    glob = pyarrow.dataset.dataset(f"{bucket.out}/data", format=format).to_table()
    assert sorted(glob["uri"].to_pylist()) == sorted(after["uri"].to_pylist())
    bucket.check(bucket.files)


def test_a_changed_job_takes_the_tables_place(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, options=OPTIONS | {"csv": True})
    fill(bucket)
    bucket.run()
    csv = Path(bucket.out, "labels.csv").read_text()
    result = bucket.run(supersede=True, options=OPTIONS | {"top_k": 3, "csv": True})
    assert (result.windows_now, result.attempt) == (7, 1)
    bucket.check(bucket.files)
    assert {len(labels) for labels in reader.dataset(bucket.out).to_table()["labels"].to_pylist()} == {3}
    assert len(Path(bucket.out, "labels.csv").read_text().splitlines()[0]) > len(csv.splitlines()[0])
    with pytest.raises(SpecError, match=r"options.top_k was 3, is 2"):
        bucket.run(options=OPTIONS | {"csv": True})


def test_a_run_that_was_superseded_before_it_was_done_is_gone_on_with(
    tmp_path: Path, texts_model: Path, kill: Kill
) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    with kill.after(60):
        bucket.run()
    with kill.after(60):
        bucket.run(supersede=True, options=OPTIONS | {"top_k": 3})
    result = bucket.run(supersede=True)
    assert 0 < result.windows_now < 7
    assert result.attempt == 2
    bucket.check(bucket.files)
    found = collect(bucket.out, 0, False, NoProgress())
    assert any("/parts/" in name for name in found.files)  # of the one in between
    bucket.check(bucket.files)


@pytest.mark.parametrize("task", TASKS)
def test_retry_does_what_failed_and_nothing_else(
    tmp_path: Path, texts_model: Path, kill: Kill, task: str
) -> None:
    bucket = Bucket(tmp_path, texts_model, task)
    fill(bucket, bad="bdf")
    bucket.run()
    [group] = grouped(errors(bucket.out))
    assert (group.error, group.stage, group.rows, group.items) == ("TextError", "decode", 3, 3)
    with pytest.raises(
        SpecError, match=r"Nothing in quarantine is of the class MediaError\. There is: TextError\."
    ):
        bucket.retry("MediaError")
    bucket.put("b", b"mended")
    bucket.remove("f")  # and nobody superseded it: it stays where it was
    result = bucket.retry("TextError")
    assert result
    assert (result.exit_code, result.windows_now, result.quarantined) == (3, 2, 2)
    files = bucket.files | {"f": (BAD, 0)}
    bucket.check(files)
    attempts = {Path(row["uri"]).stem: row["attempt"] for row in errors(bucket.out).to_pylist()}
    assert attempts == {"d": 1, "f": 1}
    again = bucket.retry()
    assert again
    assert (again.windows_now, again.quarantined) == (1, 2)
    bucket.put("d", b"mended at last")
    last = bucket.retry()
    assert last
    assert (last.exit_code, last.windows_now, last.quarantined) == (3, 1, 1)
    bucket.check(bucket.files | {"f": (BAD, 0)})
    assert bucket.retry() is None  # its file is gone
    with pytest.raises(SpecError, match="1 gone"):
        bucket.run()
    bucket.run(supersede=True)
    bucket.check(bucket.files)


def test_retry_with_other_limits_is_the_same_job_still(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, limits={"text": 6})
    fill(bucket)
    assert bucket.run().quarantined == 3
    result = bucket.retry("LimitError", "limits.text=8")
    assert result
    assert result.quarantined == 1
    assert bucket.run().windows_now == 0
    with pytest.raises(SpecError, match=r"can't be retried as it was made: options.top_k was 2, is 3"):
        bucket.retry(None, "options.top_k=3")


def test_a_row_of_a_table_that_changed_is_not_retried(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, input={"uri": str(tmp_path / "in"), "format": "lines"})
    bucket.put("lines", b"one\n" + BAD + b"\nthree\n")
    bucket.run()
    assert bucket.retry() is not None
    bucket.put("lines", b"one\ntwo\nthree\n")
    assert bucket.retry() is None
    bucket.run(supersede=True)
    assert (reader.manifest(bucket.out).rows, reader.quarantine(bucket.out).num_rows) == (3, 0)
    assert not balance(bucket.out).wrong


def test_a_table_that_could_not_be_read_is_not_taken_for_done_by_a_retry(
    tmp_path: Path, texts_model: Path, kill: Kill
) -> None:
    bucket = Bucket(tmp_path, texts_model)
    table = pa.table({"text": ["one", "two"]})
    pq.write_table(table, bucket.folder / "a.parquet")
    (bucket.folder / "b.parquet").write_bytes(b"PAR1 no table PAR1")
    assert bucket.run().quarantined == 1
    pq.write_table(table, bucket.folder / "b.parquet")
    assert bucket.retry() is None
    with pytest.raises(SpecError, match="1 changed"):
        bucket.run()
    assert bucket.run(supersede=True).windows_now == 2
    assert (reader.manifest(bucket.out).rows, reader.quarantine(bucket.out).num_rows) == (4, 0)
    assert not balance(bucket.out).wrong


def test_the_error_rate_is_checked_while_it_runs(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, max_error_rate=0.2)
    fill(bucket, "abcdefghij", bad="bcd")
    for _ in range(2):
        with pytest.raises(
            ErrorBudgetError,
            match=r"max_error_rate is 0.2: of 10 items at most 2 may fail, and 3 have\. .*could not be processed",
        ):
            bucket.run()
    assert errors(bucket.out).num_rows == 3  # of a run that is not done, too
    storage = open_storage(bucket.out)
    [run_id] = {name.split("/")[1] for name in storage.names("runs") if name.endswith("run.json")}
    noted = [event["event"] for event in events.read(storage, run_id)]
    assert noted.count("budget_exceeded") == 2
    assert noted.count("attempt_failed") == 2
    done = bucket.run(max_error_rate=0.3)
    assert (done.exit_code, done.quarantined) == (3, 3)
    with pytest.raises(ErrorBudgetError, match="at most 2 may fail, and 3 have"):
        bucket.run()


def test_a_run_without_files_left_has_an_empty_table(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, "latents")
    fill(bucket, "ab")
    bucket.run()
    bucket.remove("b")
    bucket.put("a", BAD)
    bucket.run(supersede=True)
    bucket.check(bucket.files)
    assert reader.dataset(bucket.out).to_table().num_rows == 0


def test_gc_deletes_nothing_that_is_young_or_of_use(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    with pytest.raises(SpecError, match="No run in"):
        collect(bucket.out, 0, False, NoProgress())
    fill(bucket, bad="a")
    kill.arm(50)
    with pytest.raises(Killed):
        bucket.run()
    draft = Path(bucket.out, "runs/tmp/draft")
    draft.write_bytes(b"half")
    assert collect(bucket.out, 3600, False, NoProgress()).files == ()
    found = collect(bucket.out, 0, False, NoProgress())
    assert found.files == ("runs/tmp/draft",)  # the run goes on from all else
    kill.arm(None)
    bucket.run()
    bucket.check(bucket.files)
    bucket.put("a", b"mended")
    bucket.run(supersede=True)
    assert (
        collect(bucket.out, 3600, False, NoProgress()).kept > 0
    )  # readers of the table before have their files still
    collect(bucket.out, 0, False, NoProgress())
    bucket.check(bucket.files)


def test_events_tell_the_whole_story(killed: Bucket) -> None:
    result = killed.run()
    storage = open_storage(killed.out)
    told = list(events.read(storage, result.run_id))
    first, second = ([event for event in told if event["attempt"] == attempt] for attempt in (1, 2))
    assert first[0]["event"] == "attempt_started"
    assert (first[0]["shards"], first[0]["done"]) == (4, 0)
    assert second[0]["event"] == "lease_taken_over"
    assert second[1]["done"] > 0
    assert [event["event"] for event in second[-2:]] == ["manifest_published", "attempt_done"]
    shards = [event["shard"] for event in told if event["event"] == "shard_committed"]
    assert sorted(shards) == sorted(set(shards))
    assert all(json.dumps(event) for event in told)


class Life(RuleBasedStateMachine):
    """An output over weeks: files come, change and go; runs, retries and collections, killed now and then."""

    model: Path
    folder: Path
    kill: Kill
    count = 0

    @initialize(task=st.sampled_from(TASKS))
    def begin(self, task: str) -> None:
        type(self).count += 1
        self.bucket = Bucket(self.folder / str(self.count), self.model, task)
        self.table: dict[str, tuple[bytes, int]] | None = None

    @rule(name=st.sampled_from("abcdef"), length=st.integers(1, 30), bad=st.booleans())
    def put(self, name: str, length: int, bad: bool) -> None:
        self.bucket.put(name, BAD if bad else b"x" * length)

    @precondition(lambda self: len(self.bucket.files) > 1)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.bucket.remove(data.draw(st.sampled_from(sorted(self.bucket.files))))

    @precondition(lambda self: self.bucket.files)
    @rule(supersede=st.booleans(), at=st.none() | st.integers(1, 120))
    def run(self, supersede: bool, at: int | None) -> None:
        before = self.number
        self.kill.arm(at)
        try:
            self.bucket.run(supersede)
        except SpecError as error:
            assert not supersede
            assert "already holds run" in str(error)  # noqa: PT017
        except Killed:
            if self.number != before:  # it came after the manifest
                self.table = self.bucket.files
        else:
            self.table = self.bucket.files
        self.kill.arm(None)
        self.look()

    @precondition(lambda self: self.table is not None)
    @rule(at=st.none() | st.integers(1, 120))
    def retry(self, at: int | None) -> None:
        assert self.table is not None
        then = {name: self.table[name] for name in self.bad}
        now = self.bucket.files
        before = self.number
        self.kill.arm(at)
        try:
            self.bucket.retry()
        except SpecError as error:
            assert "is not done" in str(error)  # noqa: PT017
        except Killed:
            pass
        if self.number != before:
            self.table = self.table | {name: now[name] for name in then if name in now}
        self.kill.arm(None)
        self.look()

    @precondition(lambda self: self.table is not None)
    @rule()
    def collect(self) -> None:
        collect(self.bucket.out, 0, False, NoProgress())
        self.look()

    @property
    def bad(self) -> list[str]:
        return [Path(uri).stem for uri in reader.quarantine(self.bucket.out)["uri"].to_pylist()]

    def look(self) -> None:
        """Whatever happened: the newest table is exact."""
        if Path(self.bucket.out, "manifests").exists():
            ledger = balance(self.bucket.out)
            assert not ledger.wrong, ledger.wrong
        if self.table is not None:
            self.bucket.check(self.table)

    @property
    def number(self) -> int:
        return len(list(Path(self.bucket.out, "manifests").glob("*.json")))

    def teardown(self) -> None:
        self.kill.arm(None)
        shutil.rmtree(self.bucket.folder.parent, ignore_errors=True)


@pytest.mark.timeout(300)
def test_an_output_over_its_life(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    Life.model, Life.folder, Life.kill = texts_model, tmp_path, kill
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=30, stateful_step_count=12, deadline=None, suppress_health_check=[*HealthCheck]
        ),
    )
