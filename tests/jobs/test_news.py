"""input.select: new, and fires: only what is new is done, once, whatever was killed in between."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from jobs import attempt, events
from jobs.cli.run import show
from jobs.estimate import plan
from jobs.garbage import collect
from jobs.spec import SpecError, parse_job
from pipelines import reader
from pipelines.errors import DecodeTimeout
from pipelines.items import version_now
from pipelines.storage import open_storage
from tests.faults.ledger import balance
from tests.jobs.bucket import BAD, OPTIONS, Bucket, fill
from tests.jobs.inprocess import Kill, Killed, NearDecoder
from tests.pipelines.committing import NoProgress

FIRES = [f"2026-11-{day:02d}T03:00:00+00:00" for day in range(1, 31)]


def new(bucket: Bucket, **more: Any) -> dict[str, Any]:
    return {"uri": str(bucket.folder), "select": "new", **more}


@pytest.fixture
def bucket(tmp_path: Path, texts_model: Path, kill: Kill) -> Bucket:
    bucket = Bucket(tmp_path, texts_model)
    bucket.document["input"] = new(bucket)
    fill(bucket)
    return bucket


def stems(out: str) -> list[str]:
    return sorted(Path(uri).stem for uri in reader.dataset(out).to_table(["uri"])["uri"].to_pylist())


def tops(out: str) -> dict[str, int]:
    """How many labels each item's row has, by name."""
    rows = reader.dataset(out).to_table(["uri", "labels"]).to_pylist()
    return {Path(row["uri"]).stem: len(row["labels"]) for row in rows}


def test_only_what_is_new_or_changed_is_done_and_what_is_deleted_stays(bucket: Bucket, kill: Kill) -> None:
    first = bucket.run()
    assert (first.windows_now, first.news) == (7, None)
    bucket.put("b", b"another text")
    bucket.put("new", b"new")
    bucket.remove("g")
    result = bucket.run()
    assert result.windows_now == 2
    assert result.run_id != first.run_id
    assert stems(bucket.out) == ["a", "b", "c", "d", "e", "f", "g", "new"]
    assert not balance(bucket.out).wrong
    [compared] = [
        one
        for one in events.read(open_storage(bucket.out), result.run_id)
        if one["event"] == "input_compared"
    ]
    expected = {
        "added": 1, "changed": 1, "stale": 0, "retried": 0, "deleted": 1, "deleted_kept": True,
        "deleted_uris": [str(bucket.folder / "g.txt")],
    }  # fmt: skip
    assert {name: compared[name] for name in expected} == result.news == expected


def test_a_deleted_file_goes_if_asked_for_and_may_come_again(bucket: Bucket, kill: Kill) -> None:
    bucket.run()
    text, version = bucket.files["g"]
    bucket.remove("g")
    drop = new(bucket, deleted="drop")
    result = bucket.run(input=drop)
    assert (result.windows_now, result.news and result.news["deleted_kept"]) == (0, False)
    assert stems(bucket.out) == [*"abcdef"]
    again = bucket.run(input=drop)  # it is reported once
    assert (again.run_id, again.news and again.news["deleted"]) == (result.run_id, 0)
    (bucket.folder / "g.txt").write_bytes(text)
    os.utime(bucket.folder / "g.txt", ns=(version, version))
    assert bucket.run(input=drop).windows_now == 1
    bucket.check(bucket.files)


def test_with_nothing_new_nothing_is_started_or_written(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = bucket.run()
    bucket.remove("g")
    before = {path: path.stat().st_mtime_ns for path in Path(bucket.out).rglob("*") if path.is_file()}
    monkeypatch.setattr(attempt, "execute", None)
    for fire in ("", FIRES[0], FIRES[1]):
        result = bucket.run(fire=fire)
        assert (result.run_id, result.windows_now, result.items) == (first.run_id, 0, 7)
        assert result.news is not None
        assert (result.news["added"], result.news["deleted"]) == (0, 1)
    assert {path: path.stat().st_mtime_ns for path in Path(bucket.out).rglob("*") if path.is_file()} == before
    show(result, ["uri"])
    said = capsys.readouterr().out
    assert "New since the table before: nothing." in said
    assert f"Deleted from the input: 1 files ({bucket.folder / 'g.txt'}); their rows stay." in said


def test_a_late_file_is_found_however_old_it_says_it_is(bucket: Bucket) -> None:
    bucket.run()
    path = bucket.folder / "late.txt"
    path.write_bytes(b"from long ago")
    os.utime(path, (0, 0))
    assert bucket.run().windows_now == 1
    bucket.check(bucket.files)


def test_stale_rows_are_redone_or_kept(bucket: Bucket) -> None:
    bucket.run()
    bucket.put("new", b"new")
    three = OPTIONS | {"top_k": 3}
    kept = bucket.run(options=three, input=new(bucket, stale="keep"))
    assert kept.windows_now == 1
    assert tops(bucket.out) == dict.fromkeys("abcdefg", 2) | {"new": 3}
    # All but what this recipe made already.
    redone = bucket.run(options=three)
    assert (redone.windows_now, redone.news and redone.news["stale"]) == (7, 7)
    assert {*tops(bucket.out).values()} == {3}
    bucket.check(bucket.files)
    assert bucket.run(options=three).windows_now == 0


def test_rows_that_stay_must_have_the_jobs_columns(bucket: Bucket) -> None:
    bucket.run()
    bucket.put("new", b"new")
    arrow = {"uri": bucket.out, "format": "arrow"}
    with pytest.raises(
        SpecError,
        match=r"rows that stay in .* don't fit to this job's, of which the format is arrow\. Set input\.stale to redo",
    ):
        bucket.run(output=arrow, input=new(bucket, stale="keep"))
    assert bucket.run(output=arrow).windows_now == 8
    bucket.check(bucket.files)
    bucket.remove("a")  # whose row would stay as it is
    parquet = {"uri": bucket.out, "format": "parquet"}
    with pytest.raises(
        SpecError, match=r"and input\.deleted to drop, where it is rows of deleted files that stay"
    ):
        bucket.run(output=parquet)
    assert bucket.run(output=parquet, input=new(bucket, deleted="drop")).windows_now == 7
    bucket.check(bucket.files)


def test_another_tasks_table_is_not_gone_on_with(bucket: Bucket) -> None:
    bucket.run()
    with pytest.raises(
        SpecError,
        match=r"holds a table of text-classification, and this job is of latents: .* replace the table with "
        r"input\.select: all and --supersede\.",
    ):
        bucket.run(task="latents", options={"overlap": 4})


def test_what_failed_in_passing_is_tried_again(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("c", BAD)
    windows = NearDecoder.windows
    slow = {b"D" * 6}

    def failing(
        self: NearDecoder, files: Mapping[str, BinaryIO], info: str | None, first: int, stop: int
    ) -> Iterator[pa.RecordBatch]:
        [file] = files.values()
        text = file.read()
        file.seek(0)
        if text in slow:
            raise DecodeTimeout("It took longer than 1 s.", "digest")
        yield from windows(self, files, info, first, stop)

    monkeypatch.setattr(NearDecoder, "windows", failing)
    assert bucket.run().quarantined == 2
    slow.clear()
    result = bucket.run()
    assert (result.windows_now, result.quarantined, result.news and result.news["retried"]) == (1, 1, 1)
    bucket.check(bucket.files)
    assert bucket.run().windows_now == 0  # what is no text stays none
    more = bucket.run(limits={"seconds": 77})
    assert (more.windows_now, more.news and more.news["retried"]) == (1, 1)  # unless limits are others
    bucket.check(bucket.files)


def test_a_limit_is_of_all_the_input(bucket: Bucket) -> None:
    assert bucket.run(input=new(bucket, limit=3)).items == 3
    grown = bucket.run(input=new(bucket, limit=5))
    assert (grown.windows_now, grown.items, grown.news and grown.news["deleted"]) == (2, 5, 0)
    assert bucket.run().windows_now == 2
    bucket.check(bucket.files)


@pytest.mark.parametrize("fire", ["", FIRES[1]])
def test_a_run_that_is_not_done_is_finished_first_as_it_was(bucket: Bucket, kill: Kill, fire: str) -> None:
    with kill.after(40):
        bucket.run(fire=FIRES[0] if fire else "")
    begun = reader_runs(bucket.out)
    assert len(begun) == 1
    bucket.put("new", b"new")
    result = bucket.run(fire=fire)
    assert result.run_id not in begun
    assert (result.windows_now, result.news and result.news["added"]) == (1, 1)
    bucket.check(bucket.files)
    index = reader.index(bucket.out)
    assert {*index["run_id"].to_pylist()} == {*begun, result.run_id}


@pytest.mark.parametrize("at", range(20, 48, 2))
def test_a_fire_killed_while_it_begins_takes_the_input_as_it_is_then(
    bucket: Bucket, kill: Kill, at: int
) -> None:
    with kill.after(at):
        bucket.run(fire=FIRES[0])
    begun = reader_runs(bucket.out)
    bucket.put("a", b"another text")
    bucket.put("new", b"new")
    first = bucket.run(fire=FIRES[0])
    if begun:  # what it is is on record
        assert "new" not in stems(bucket.out)
    second = bucket.run(fire=FIRES[1])
    assert (first.windows_now > 7) is not bool(begun)
    assert (second.windows_now == 0) is not bool(begun)
    bucket.check(bucket.files)
    collect(bucket.out, 0, False, NoProgress())
    plans = [path.parents[1].name for path in Path(bucket.out, "runs").glob("*/planned-*/plan.parquet")]
    assert sorted(plans) == sorted(reader_runs(bucket.out))
    bucket.check(bucket.files)


def reader_runs(out: str) -> list[str]:
    return [path.parent.name for path in Path(out, "runs").glob("*/run.json")]


def test_a_fire_is_one_run_however_often_it_is_tried(bucket: Bucket, kill: Kill) -> None:
    first = bucket.run(fire=FIRES[0])
    bucket.put("new", b"new")
    second = bucket.run(fire=FIRES[1])
    bucket.put("newer", b"newer")
    assert len({first.run_id, second.run_id}) == 2
    for fire, then in ((FIRES[0], first), (FIRES[1], second), (FIRES[0], first)):
        again = bucket.run(fire=fire)
        assert (again.run_id, again.windows_now, again.items) == (then.run_id, 0, then.items)
    assert "newer" not in stems(bucket.out)


def test_a_fire_of_all_does_all_again_and_once(bucket: Bucket, kill: Kill) -> None:
    every = {"uri": str(bucket.folder)}
    first = bucket.run(fire=FIRES[0], input=every)
    second = bucket.run(fire=FIRES[1], input=every)
    assert first.run_id != second.run_id
    assert (first.windows_now, second.windows_now) == (7, 7)
    with kill.after(60):
        bucket.run(fire=FIRES[2], input=every)
    third = bucket.run(fire=FIRES[2], input=every)
    assert (third.attempt, bucket.run(fire=FIRES[2], input=every).windows_now) == (2, 0)
    bucket.check(bucket.files)


def test_plan_says_what_is_new(bucket: Bucket, kill: Kill) -> None:
    job = parse_job(bucket.document)
    assert plan(job, NoProgress(), probe=False).does == "new"
    bucket.run()
    assert plan(job, NoProgress(), probe=False).does == "nothing"
    bucket.put("new", b"new")
    found = plan(job, NoProgress(), probe=False)
    assert (found.does, found.items, found.windows) == ("incremental", 1, 1)
    with kill.after(10):
        bucket.run()
    assert plan(job, NoProgress(), probe=False).does in ("incremental", "resume")


class Nights(RuleBasedStateMachine):
    """A bucket that grows, changes and loses files between fires that are killed anywhere, late, or tried again."""

    model: Path
    folder: Path
    kill: Kill

    @initialize(
        task=st.sampled_from(["text-classification", "latents"]), deleted=st.sampled_from(["keep", "drop"])
    )
    def begin(self, task: str, deleted: str) -> None:
        shutil.rmtree(self.folder / "life", ignore_errors=True)
        self.kill.arm(None)
        self.bucket = Bucket(self.folder / "life", self.model, task)
        self.bucket.document["input"] = new(self.bucket, deleted=deleted)
        self.dropped = deleted == "drop"
        self.night = 0
        fill(self.bucket, "ab")

    @rule(name=st.sampled_from("abcdef"), bad=st.booleans())
    def put(self, name: str, bad: bool) -> None:
        self.bucket.put(name, BAD if bad else b"x" * (self.bucket.times + 1))

    @rule(name=st.sampled_from("abcdef"))
    def remove(self, name: str) -> None:
        if name in self.bucket.files and len(self.bucket.files) > 1:
            self.bucket.remove(name)

    @rule(at=st.integers(1, 120), again=st.booleans())
    def killed(self, at: int, again: bool) -> None:
        self.night += not again
        self.kill.arm(at)
        with suppress(Killed):
            self.bucket.run(fire=FIRES[self.night])
        self.kill.arm(None)
        self.look()

    @rule()
    def fire(self) -> None:
        self.night += 1
        now = self.bucket.files
        self.bucket.run(fire=FIRES[self.night])
        table = {
            Path(row["uri"]).stem: row["version"]
            for row in reader.index(self.bucket.out).select(["uri", "version"]).to_pylist()
        }
        newest = {path.stem: version_now(str(path)) for path in self.bucket.folder.iterdir()}
        assert {name: table.get(name) for name in newest} == newest
        if self.dropped:
            self.bucket.check(now)
        self.look()

    @rule()
    def collect(self) -> None:
        if Path(self.bucket.out, "manifests").exists():
            collect(self.bucket.out, 0, False, NoProgress())
            self.look()

    def look(self) -> None:
        """Whatever happened: the table adds up, and no item is there twice."""
        if Path(self.bucket.out, "manifests").exists():
            ledger = balance(self.bucket.out)
            assert not ledger.wrong, ledger.wrong
            rows = reader.dataset(self.bucket.out).to_table(["uri"])["uri"].to_pylist()
            assert len(rows) == len({*rows})

    def teardown(self) -> None:
        self.kill.arm(None)


@pytest.mark.timeout(300)
def test_a_table_over_many_nights(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    Nights.model, Nights.folder, Nights.kill = texts_model, tmp_path, kill
    run_state_machine_as_test(
        Nights,
        settings=settings(
            max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=[*HealthCheck]
        ),
    )
