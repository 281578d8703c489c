"""Object storage that fails: the client's retries survive it, or it ends as an error, never as wrong bytes."""

import io
import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipelines.contents import IMAGE, TEXT, VIDEO
from pipelines.items import InputError, list_items, open_item
from tests.faults.proxy import Fault
from tests.faults.store import Store, s3
from tests.pipelines.sources.reading import chosen, opened
from tests.pipelines.sources.test_webdataset import write_tar

DATA = {f"in/{i}.mp4": random.Random(i).randbytes(200_000 + i) for i in range(3)}
URI = "s3://bucket/in"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with s3() as store:
        tar = write_tar(tmp_path_factory.mktemp("tar") / "t.tar", list(DATA.items()))
        table = io.BytesIO()
        pq.write_table(pa.table({"video": list(DATA.values())}), table, row_group_size=1, compression="none")
        links = "".join(f'{{"video": "../in/{i}.mp4"}}\n' for i in range(3))
        others = {
            "tar/t.tar": tar.read_bytes(),
            "table/t.parquet": table.getvalue(),
            "links/t.jsonl": links.encode(),
            "lines/t.txt": b"one\ntwo\n",
            "in/.hidden.mp4": b"x",
        }
        store.put(DATA | others)
        yield store


@pytest.fixture
def store(running: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3fs.S3FileSystem.clear_instance_cache()
    running.proxy.faults.clear()
    running.proxy.asked.clear()
    yield running
    s3fs.S3FileSystem.clear_instance_cache()


def contents(uri: str, **options: Any) -> list[Any]:
    return [row.get("video", row.get("error")) for row in opened(chosen(uri, (VIDEO,), **options))]


@pytest.mark.parametrize("kind", ["slow down", "reset", "cut", "slow"])
def test_passing_faults_are_survived(store: Store, kind: Any) -> None:
    spoilt = Fault(kind, "list-type=2", 1), Fault(kind, "GET /bucket/.* bytes=", 2), Fault(kind, "HEAD", 1)
    for uri in (URI, "s3://bucket/table", "s3://bucket/tar"):
        store.proxy.faults[:] = [Fault(one.kind, one.match, one.times) for one in spoilt]
        s3fs.S3FileSystem.clear_instance_cache()
        assert contents(uri) == list(DATA.values()), uri
        assert [fault.done for fault in store.proxy.faults][:2] == [1, 2], uri


def test_every_source_reads_from_a_bucket(store: Store) -> None:
    assert [item.uri for item in list_items(URI, (".mp4",))] == [f"s3://bucket/in/{i}.mp4" for i in range(3)]
    assert [item.uri for item in list_items(f"{URI}/[12]*.mp4", ())] == [f"{URI}/{i}.mp4" for i in (1, 2)]
    assert [item.uri for item in list_items("s3://bucket/**/1.mp4", ())] == [f"{URI}/1.mp4"]
    links = contents("s3://bucket/links")
    assert all("outside of the input: s3://bucket/links" in link for link in links)
    assert contents("s3://bucket/links", roots=[URI]) == list(DATA.values())
    lines = opened(chosen("s3://bucket/lines", (TEXT,), format="lines"))
    assert [row["text"] for row in lines] == [b"one", b"two"]


def test_versions_are_etags(store: Store) -> None:
    [before] = list_items("s3://bucket/lines/t.txt", ())
    [listed] = list_items("s3://bucket/lines", (".txt",))
    assert before.version == listed.version
    store.put({"lines/t.txt": b"one\ntwo\n"})
    [same] = list_items("s3://bucket/lines", (".txt",))
    store.put({"lines/t.txt": b"two\none\n"})
    [other] = list_items("s3://bucket/lines", (".txt",))
    store.put({"lines/t.txt": b"one\ntwo\n"})
    assert before == same
    assert other.version != before.version


@pytest.mark.parametrize("kind", ["short", "cut"])
def test_answers_that_stay_short_are_errors_and_never_the_files_end(store: Store, kind: Any) -> None:
    store.proxy.faults[:] = [Fault(kind, r"GET /bucket/(in/1|tar/t|table/t)\S* bytes=", 1000)]
    rows = contents(URI)
    assert (rows[0], rows[2]) == (DATA["in/0.mp4"], DATA["in/2.mp4"])
    assert isinstance(rows[1], str), len(rows[1])
    said = {"short": r"1\.mp4: expected \d+ bytes at \d+, got \d+\. The answer was cut short"}
    assert re.search(said.get(kind, r"1\.mp4 can't be read: ClientPayloadError: "), rows[1]), rows[1]
    with open_item(f"{URI}/1.mp4") as file:
        got: list[bytes] = []
        with pytest.raises(OSError, match=r"in/1\.mp4"):
            got.extend(iter(partial(file.read, 30_000), b""))
    assert DATA["in/1.mp4"].startswith(b"".join(got))
    for uri in ("s3://bucket/table", "s3://bucket/tar"):
        try:
            rows = contents(uri)
        except InputError as error:
            rows = [str(error)]
        assert rows, uri
        assert all(isinstance(row, str) for row in rows), uri


def test_a_tar_is_listed_without_what_it_holds(store: Store, tmp_path: Path) -> None:
    large = write_tar(tmp_path / "t.tar", [(f"{i}.mp4", bytes(8 << 20)) for i in range(3)])
    store.put({"large/t.tar": large.read_bytes()})
    assert len(list(chosen("s3://bucket/large", (VIDEO,)).items())) == 3
    ranges = [re.search(r"t\.tar\S* bytes=(\d+)-(\d+)", asked) for asked in store.proxy.asked]
    assert 0 < sum(int(found[2]) - int(found[1]) + 1 for found in ranges if found) < 8 << 20


def test_a_short_answer_spoils_no_read_before_it(store: Store) -> None:
    with open_item(f"{URI}/0.mp4") as file:
        assert file.read(100) == DATA["in/0.mp4"][:100]
        file.seek(-10, 2)
        assert file.read() == DATA["in/0.mp4"][-10:]


def test_a_store_that_stays_down_is_a_clear_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    for kind in ("slow down", "reset"):
        store.proxy.faults[:] = [Fault(kind, "list-type=2", 1000)]
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match=rf"{URI} can't be listed: .*Check the address, .*credentials"):
            list(list_items(URI, (".mp4",)))
    with pytest.raises(InputError, match=r"nobucket.* can't be listed|No such file or folder: s3://nobucket"):
        list(list_items("s3://nobucket/in", (".mp4",)))


def test_images_named_in_a_bucket_are_not_read_to_be_listed(store: Store) -> None:
    chosen(URI, (VIDEO,), (IMAGE,))
    assert not [asked for asked in store.proxy.asked if asked.startswith("GET /bucket/in/")]
