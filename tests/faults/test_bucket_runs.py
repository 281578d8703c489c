"""Runs into a bucket, killed at their commit points: without Ray, so that many of them are tried."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
import s3fs

from jobs.garbage import collect
from pipelines import reader
from tests.faults.ledger import balance
from tests.faults.proxy import Fault
from tests.faults.store import Store, s3
from tests.jobs.inprocess import Kill, without_ray
from tests.jobs.test_runs import TASKS, Bucket, fill
from tests.pipelines.committing import NoProgress
from tests.pipelines.staging import save_head

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def running() -> Iterator[Store]:
    with s3() as store:
        yield store


@pytest.fixture
def store(running: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    running.proxy.faults.clear()
    yield running
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("texts") / "model", "PerceiverForSequenceClassification")


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    return without_ray(monkeypatch)


def in_bucket(folder: Path, model: Path, name: str, **changes: Any) -> Bucket:
    out = f"s3://bucket/{name}"
    bucket = Bucket(folder, model, **{"output": {"uri": out}, **changes})
    bucket.out = out
    return bucket


def wrong(store: Store, out: str) -> tuple[str, ...]:
    """What the ledger finds, read by pyarrow's own S3, past the proxy."""
    files = pyarrow.fs.S3FileSystem(
        access_key="testing", secret_key="testing", endpoint_override=store.upstream, region="us-east-1"
    )
    return balance(out.removeprefix("s3://"), files).wrong


@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", TASKS)
def test_killed_at_commit_points_the_table_is_the_undisturbed_one(
    tmp_path: Path, model: Path, store: Store, kill: Kill, task: str
) -> None:
    calm = in_bucket(tmp_path / "calm", model, f"calm-{task}", task=task)
    fill(calm, bad="cd")
    calm.run()
    points = kill.count
    expected = reader.dataset(calm.out).to_table().drop_columns(["uri"])
    for at in range(1, points + 1, 4):
        bucket = in_bucket(tmp_path / str(at), model, f"killed-{task}-{at}", task=task)
        fill(bucket, bad="cd")
        with kill.after(at):
            bucket.run()
        bucket.run()
        got = reader.dataset(bucket.out).to_table()
        assert got.drop_columns(["uri"]).equals(expected), at
        assert not wrong(store, bucket.out)


def test_every_answer_to_a_create_is_lost_once(tmp_path: Path, model: Path, store: Store, kill: Kill) -> None:
    """What was done, and whose answer did not come, is one's own: no second row, no quarantine, no error."""
    bucket = in_bucket(tmp_path, model, "lost")
    fill(bucket, bad="a")
    fault = Fault("reply lost", "PUT /bucket/lost/(data|quarantine|manifests|runs/[0-9a-f]+/parts)", times=6)
    store.proxy.faults.append(fault)
    result = bucket.run()
    assert fault.done == 6
    assert (result.exit_code, result.items, result.quarantined) == (3, 7, 1)
    assert not wrong(store, bucket.out)


def test_supersede_retry_and_gc_in_a_bucket(tmp_path: Path, model: Path, store: Store, kill: Kill) -> None:
    bucket = in_bucket(tmp_path, model, "life")
    fill(bucket, bad="bd")
    bucket.run()
    bucket.put("b", b"mended")
    retried = bucket.retry()
    assert retried
    assert retried.quarantined == 1
    bucket.put("new", b"new")
    bucket.remove("a")
    assert bucket.run(supersede=True).windows_now == 1
    assert not wrong(store, bucket.out)
    before = reader.dataset(bucket.out).to_table()
    assert collect(bucket.out, 0, False, NoProgress()).files
    assert not wrong(store, bucket.out)
    assert reader.dataset(bucket.out).to_table().equals(before)
