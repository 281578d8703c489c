"""What an output's storage promises, on a local folder, S3, GCS and Azure alike."""

import errno
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipelines import commit_points
from pipelines.items import locate
from pipelines.storage import (
    OutputError,
    Place,
    Storage,
    check_conditions,
    create_text,
    created,
    open_storage,
    pieces,
)
from pipelines.storage.local import LocalStorage
from pipelines.storage.objects import ObjectStorage
from tests.pipelines.storage.backends import STORES, failing, put, scheme_of

# gcsfs hands aiohttp whole files.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")


def enter(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


def race(storage: Storage, names: list[str], writer: int) -> list[str]:
    """What this process wins."""
    return [name for name in names if put(storage, name, b"writer %d" % writer)]


@pytest.mark.parametrize("size", [0, 10, 6 << 20])
def test_files_are_created_once(storage: Storage, size: int) -> None:
    data, other = os.urandom(size), os.urandom(size or 1)
    name = "data/part one ñ 部.parquet"
    assert not storage.exists(name)
    assert put(storage, name, data)
    assert not put(storage, name, other)
    assert storage.exists(name)
    with storage.open(name) as file:
        assert file.size() == size
        assert file.read() == data
        file.seek(size // 2)
        assert file.read(7) == data[size // 2 :][:7]
    found = storage.stat(name)
    assert (found.name, found.size) == (name, size)
    assert abs(found.modified - time.time()) < 60
    with created(storage, name) as draft:
        draft.write_bytes(other)
    assert storage.read(name) == data
    assert list(storage.names("data")) == [name]


def test_of_many_threads_one_creates(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda writer: put(storage, "data/x", b"writer %d" % writer), range(8)))
    assert won.count(True) == 1
    assert storage.read("data/x") == b"writer %d" % won.index(True)


def test_of_many_processes_one_creates(storage: Storage, request: pytest.FixtureRequest) -> None:
    """The storage goes to them pickled."""
    scheme = scheme_of(storage)
    environment = request.getfixturevalue("stores")[scheme].environment if scheme in STORES else {}
    names = [f"data/{i}" for i in range(8)]
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(3, context, enter, (dict(environment),)) as pool:
        won = list(pool.map(race, [storage] * 3, [names] * 3, range(3)))
    assert sorted(name for names_won in won for name in names_won) == names
    for writer, names_won in enumerate(won):
        assert {storage.read(name) for name in names_won} <= {b"writer %d" % writer}
    assert list(storage.names("data")) == names


def test_names_are_in_order(storage: Storage) -> None:
    names = ["data/é", "data/a/b", "data/a-b", "data/a.b", "data/b/c/d", *(f"data/{i:02}" for i in range(11))]
    for name in [*names, "data2/x", "dat", "other/data/x"]:
        create_text(storage, name, name)
    assert list(storage.names("data")) == sorted(names)
    assert list(storage.names("data", after="data/05")) == [
        name for name in sorted(names) if name > "data/05"
    ]
    assert list(storage.names("data", after="data/a")) == [
        "data/a-b",
        "data/a.b",
        "data/a/b",
        "data/b/c/d",
        "data/é",
    ]
    assert list(storage.names("data", after="data/zz")) == ["data/é"]
    assert list(storage.names("data", after="data2")) == []
    assert list(storage.names("data/a")) == ["data/a/b"]
    assert list(storage.names("nothing")) == []
    assert [name for name in storage.names("") if not name.startswith("runs/")] == sorted(
        [*names, "data2/x", "dat", "other/data/x"]
    )


def test_logs_keep_their_order(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.appended("runs/events") == b""
    other = open_storage(storage.uri)
    clock = count(time.time_ns(), -1)  # one that is set back
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    for i in range(10):
        (storage, other)[i % 2].append("runs/events", b"line %d\nmore\n" % i)
    assert storage.appended("runs/events") == b"".join(b"line %d\nmore\n" % i for i in range(10))
    storage.append("runs/events2", b"x\n")
    assert other.appended("runs/events2") == b"x\n"


def test_logs_are_read_on_from_a_place(storage: Storage) -> None:
    assert storage.added("runs/events", None)[0] == b""
    place: Place = None
    found = b""
    for i in range(10):
        storage.append("runs/events", b"line %d\n" % i)
        if i % 3:
            data, place = storage.added("runs/events", place)
            found += data
            assert found == b"".join(b"line %d\n" % n for n in range(i + 1))
            assert storage.added("runs/events", place) == (b"", place)
    assert storage.added("runs/events", place)[0] == b"line 9\n"


def test_what_comes_late_to_a_log_is_read(remote: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a clock that is behind. What is an hour old is not looked for again: place and listing stay small."""
    hour, now = 3600 * 10**9, time.time_ns()
    place: Place = None
    for minutes in (-200, -100, 0, -59, -30, 0, 45):
        monkeypatch.setattr(pieces, "_next_time", lambda at=now + minutes * hour // 60: at)
        remote.append("log", b"%d\n" % minutes)
        data, place = remote.added("log", place)
        assert data == b"%d\n" % minutes
    assert isinstance(place, frozenset)
    assert len(place) == 3  # of the last hour
    assert remote.appended("log") == b"-200\n-100\n-59\n-30\n0\n0\n45\n"


def test_a_torn_line_has_its_own_end(tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.append("log", b"one\n")
    with (tmp_path / "log").open("ab") as file:
        file.write(b"tw")
    storage.append("log", b"three\n")
    assert storage.appended("log") == b"one\ntw\nthree\n"


def test_write_replaces(storage: Storage) -> None:
    for data in (b"first", b"", b"longer than the first"):
        storage.write("runs/state", data)
        assert storage.read("runs/state") == data
    assert list(storage.names("runs/state")) == []


def test_missing_files(storage: Storage) -> None:
    create_text(storage, "data/x/y", "")
    for name in ("missing", "data/x", "data"):
        for ask in (storage.read, storage.open, storage.stat):
            if isinstance(storage, LocalStorage) and name != "missing":
                continue
            with pytest.raises(FileNotFoundError):
                ask(name)
    assert not storage.exists("missing")
    storage.delete("missing")
    storage.delete("data/x/y")
    assert not storage.exists("data/x/y")
    with pytest.raises(FileNotFoundError), storage.draft() as draft:
        storage.create("data/x", draft.with_name("never-written"))


def test_arrow_reads_where_it_is(storage: Storage) -> None:
    table = pa.table({"x": list(range(1000))})
    for name in ("data/0.parquet", "data/1.parquet"):
        with created(storage, name) as draft:
            pq.write_table(table, draft)
    where = [storage.where(f"data/{i}.parquet") for i in range(2)]
    assert pq.read_table(where[0], filesystem=storage.arrow) == table
    with pq.ParquetFile(where[0], filesystem=storage.arrow) as file:
        assert file.metadata.num_rows == 1000
    assert ds.dataset(where, filesystem=storage.arrow).count_rows() == 2000
    with storage.open("data/0.parquet") as file:
        assert pq.read_table(file) == table


def test_commit_points_are_passed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    monkeypatch.setattr(commit_points, "passing", passed.append)
    assert put(storage, "data/x", b"x")
    synced = ["draft synced"] if isinstance(storage, LocalStorage) else []
    assert passed == ["draft begun", "draft written", *synced, "created", "create acknowledged"]
    passed.clear()
    assert not put(storage, "data/x", b"y")
    assert passed == ["draft begun", "draft written", *synced]


def test_conditions_are_checked(storage: Storage) -> None:
    check_conditions(storage)
    assert list(storage.names("runs")) == []


def test_local_folders_that_corrupt_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.prepare()
    monkeypatch.setattr(LocalStorage, "read", lambda *_: b"fi\0st")
    with pytest.raises(
        OutputError, match=rf"^{tmp_path} does not give back what was written to it\. Choose another"
    ):
        check_conditions(storage)


def test_listings_are_not_remembered(remote: ObjectStorage) -> None:
    remote.write("runs/state", b"short")
    fs, path = locate(remote.where("runs"))
    assert len(fs.ls(path)) == 1
    remote.write("runs/state", b"longer than before")
    remote.write("runs/other", b"new")
    fs.ls(path)
    remote._fs.pipe_file(f"{path}/state", b"another one")  # past what is remembered
    assert remote.stat("runs/state").size == len(b"another one")
    with remote.open("runs/state") as file:
        assert file.read() == remote.read("runs/state") == b"another one"
    remote._fs.rm_file(f"{path}/other")
    assert not remote.exists("runs/other")
    assert list(remote.names("runs")) == ["runs/state"]


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file")]
)
def test_local_disks_that_refuse_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    storage = LocalStorage(str(tmp_path))
    storage.prepare()
    for broken in ("os.link", "os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, failing(number))
            with pytest.raises(
                OutputError, match=rf"^{tmp_path} can't be written to: {said}.* Make room .*resume\.$"
            ):
                put(storage, "data/x", b"x")
    assert put(storage, "data/x", b"x")
    assert list(storage.names("runs")) == []
