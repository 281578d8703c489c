"""input.limit: the first so many items, and what a later run without it, or with another, still does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.planning import listed
from jobs.spec import SpecError, parse_job
from pipelines import reader
from pipelines.contents import TEXT
from pipelines.items import Item
from pipelines.listing import as_items, items_of, list_files
from pipelines.sources.files import Files
from tests.faults.ledger import balance
from tests.jobs.inprocess import Kill, without_ray
from tests.jobs.test_runs import Bucket, fill
from tests.pipelines.committing import NoProgress
from tests.pipelines.staging import save_head


@pytest.fixture(scope="module")
def texts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("texts") / "model", "PerceiverForSequenceClassification")


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    return without_ray(monkeypatch)


def names(bucket: Bucket) -> list[str]:
    return sorted(Path(uri).stem for uri in reader.dataset(bucket.out).to_table()["uri"].to_pylist())


def limited(bucket: Bucket, limit: int | None) -> dict[str, Any]:
    return {"input": bucket.document["input"] | {"limit": limit}}


def test_only_the_first_items_are_done_and_the_rest_later(
    tmp_path: Path, texts_model: Path, kill: Kill
) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    first = bucket.run(**limited(bucket, 3))
    assert (first.items, names(bucket)) == (3, ["a", "b", "c"])
    assert bucket.run(**limited(bucket, 3)).windows_now == 0  # the same job is the same run
    with pytest.raises(
        SpecError, match=r"input \(4 files added, 0 changed, 0 gone\); input\.limit was 3, is None"
    ):
        bucket.run()
    rest = bucket.run(supersede=True)
    assert (rest.windows_now, rest.items) == (4, 7)
    bucket.check(bucket.files)
    less = bucket.run(supersede=True, **limited(bucket, 2))
    assert (less.windows_now, names(bucket)) == (0, ["a", "b"])


def test_a_limit_that_ends_in_a_table(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    for name in "abc":
        pq.write_table(
            pa.table({"text": [f"{name}{i}" for i in range(4)]}), bucket.folder / f"{name}.parquet"
        )

    def members() -> list[tuple[str, str]]:
        table = reader.dataset(bucket.out).to_table()
        return sorted(
            zip(
                (Path(uri).stem for uri in table["uri"].to_pylist()), table["member"].to_pylist(), strict=True
            )
        )

    everything = [(name, str(i)) for name in "abc" for i in range(4)]
    assert bucket.run(**limited(bucket, 6)).items == 6
    assert members() == everything[:6]
    more = bucket.run(supersede=True, **limited(bucket, 7))
    assert (more.windows_now, members()) == (3, everything[:7])  # of b, all again: a file is what changes
    assert bucket.run(supersede=True).windows_now == 8
    assert members() == everything
    assert bucket.run(supersede=True, **limited(bucket, 5)).windows_now == 1
    assert members() == everything[:5]
    pq.write_table(pa.table({"text": ["x", "y"]}), bucket.folder / "aa.parquet")
    bucket.run(supersede=True, **limited(bucket, 5))
    assert members() == [("a", "0"), ("a", "1"), ("a", "2"), ("a", "3"), ("aa", "0")]
    assert not balance(bucket.out).wrong


@settings(max_examples=15, deadline=None, suppress_health_check=[*HealthCheck])
@given(steps=st.lists(st.none() | st.integers(1, 13), min_size=1, max_size=4), data=st.data())
def test_whatever_limits_follow_each_other_the_table_is_that_of_the_last(
    tmp_path_factory: pytest.TempPathFactory, texts_model: Path, data: st.DataObject, steps: list[int | None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        bucket = Bucket(tmp_path_factory.mktemp("limits"), texts_model, input={"uri": ""})
        bucket.document["input"] = {"uri": str(bucket.folder), "format": "table"}
        sizes: dict[str, int] = {}
        for limit in steps:
            name = data.draw(st.sampled_from("abcd"))
            sizes[name] = data.draw(st.integers(1, 4))
            rows = [f"{name}{i} of {sizes[name]}" for i in range(sizes[name])]
            pq.write_table(pa.table({"text": rows}), bucket.folder / f"{name}.parquet")
            bucket.run(supersede=True, **limited(bucket, limit))
            table = reader.dataset(bucket.out).to_table()
            columns = [table[name].to_pylist() for name in ("uri", "member", "bytes")]
            found = sorted((Path(uri).stem, *more) for uri, *more in zip(*columns, strict=True))
            everything = [
                (name, i, f"{name}{i} of {size}") for name, size in sorted(sizes.items()) for i in range(size)
            ]
            assert found == [(name, str(i), len(text)) for name, i, text in everything][:limit]


class Endless(Files):
    """A folder of a million files that fails whoever lists them all."""

    def files(self) -> Iterator[Item]:
        for n in range(20):
            yield Item(f"{n:016x}", f"/in/{n}.txt", "1", 1)
        raise AssertionError("all were listed")


def test_listing_ends_at_the_limit() -> None:
    source = Endless((), TEXT)
    listing = list_files(source, limit=8)
    assert listing["uri"].to_pylist() == [f"/in/{n}.txt" for n in range(8)]
    assert listed(source, NoProgress(), 8) == listing
    assert [item.uri for item in items_of(source, listing, 8, listing)] == listing["uri"].to_pylist()
    assert next(as_items(listing)).item_id == "0" * 16


def test_a_retry_of_a_limited_run_is_of_its_items(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, bad="bf")
    assert bucket.run(**limited(bucket, 3)).quarantined == 1
    bucket.put("b", b"mended")
    again = bucket.retry()
    assert again
    assert (again.items, again.quarantined, names(bucket)) == (3, 0, ["a", "b", "c"])
    bucket.run(supersede=True)
    bucket.check(bucket.files)


def test_a_limit_is_a_number_of_items(tmp_path: Path, texts_model: Path) -> None:
    bucket = Bucket(tmp_path, texts_model)
    with pytest.raises(SpecError, match=r"input\.limit: expected at least 1; got 0\."):
        parse_job(bucket.document | limited(bucket, 0))
