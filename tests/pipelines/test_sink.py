"""Parts, their commits, and the manifest that accounts for them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from pipelines import reader, sink
from pipelines.commits import Commits
from pipelines.errors import ItemError
from pipelines.items import Item
from pipelines.plan import Probed, count_shards, cut_shards, shards
from pipelines.sink import Commit, Sink, committed, read_commits, write_part
from pipelines.stages import block_schema
from pipelines.storage import OutputError, Storage, check_conditions
from pipelines.tensors import Format, pack
from tests.pipelines.committing import ended, prepared

TENSOR = pa.fixed_shape_tensor(pa.uint8(), [4, 3])
COLUMNS = pa.schema([pa.field("window", pa.int64()), pa.field("video", TENSOR)])
BROKEN = ItemError("decode", "MediaError", "no moov atom", "d1")


def make_sink(out: Path, format: Format = "arrow", attempt: int = 1) -> Sink:
    return Sink(prepared(out), "run0", attempt, format, COLUMNS, json.dumps({"job": "test"}))


def make_plan() -> pa.Table:
    """Three shards: a, b whole; c broken; d cut in two."""
    counts = {"a": 2, "b": 1, "c": 0, "d": 6}
    return cut_shards(
        [Probed(Item(k, f"/in/{k}", "v1", 9), n, "{}", None if n else BROKEN) for k, n in counts.items()],
        4,
    )


def make_block(spans: pa.Table) -> pa.Table:
    """What Predict would give for a shard of the plan."""
    schema = block_schema(COLUMNS)
    good, failed = [], []
    for span in spans.to_pylist():
        origin = {k: span[k] for k in ("shard", "item_id", "version", "uri", "first", "stop")}
        good += [origin | {"window": w} for w in range(span["first"], span["stop"])]
        if span["error"]:
            failed.append(origin | {"error": span["error"]})
    video = (
        np.stack([np.full((4, 3), row["window"], np.uint8) for row in good]) if good else np.empty((0, 4, 3))
    )
    table = pa.Table.from_pylist(good, pa.schema([f for f in schema if f.name != "video"]))
    table = table.add_column(
        schema.get_field_index("video"), schema.field("video"), pack(video.astype(np.uint8))
    )
    return pa.concat_tables([table, pa.Table.from_pylist(failed, schema)])


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_parts_and_manifest_hold_everything_once(tmp_path: Path, format: Format) -> None:
    plan, out = make_plan(), make_sink(tmp_path, format)
    for spans in shards(plan).values():
        write_part(make_block(spans), out)
    manifest = ended(plan, out)
    assert (manifest.items, manifest.rows, manifest.quarantined) == (4, 9, 1)
    table = reader.dataset(str(tmp_path)).to_table()
    pairs = list(zip(table["item_id"].to_pylist(), table["window"].to_pylist(), strict=True))
    assert pairs == [("a", 0), ("a", 1), ("b", 0), *(("d", w) for w in range(6))]
    assert (reader.to_numpy(table, "video")[:, 0, 0] == table["window"].to_numpy()).all()
    [bad] = reader.quarantine(str(tmp_path)).to_pylist()
    assert bad == {
        "item_id": "c", "version": "v1", "uri": "/in/c", "member": None, "first": 0, "stop": 0,
        "stage": "decode", "error": "MediaError", "message": "no moov atom", "traceback_digest": "d1", "attempt": 1,
    }  # fmt: skip
    glob = pyarrow.dataset.dataset(str(tmp_path / "data"), format="ipc" if format == "arrow" else format)
    assert glob.count_rows() == 9
    assert not list((tmp_path / "runs/tmp").iterdir())


def test_closing_again_changes_nothing(tmp_path: Path) -> None:
    plan, out = make_plan(), make_sink(tmp_path)
    for spans in shards(plan).values():
        write_part(make_block(spans), out)
    assert ended(plan, out) == ended(plan, out)
    assert [path.name for path in (tmp_path / "manifests").iterdir()] == ["000001.json"]


def test_a_second_writer_finds_the_part_and_leaves(tmp_path: Path) -> None:
    block = make_block(shards(make_plan())[0])
    first = write_part(block, make_sink(tmp_path, attempt=1))
    before = (tmp_path / make_sink(tmp_path).part(0)).stat()
    second = write_part(block, make_sink(tmp_path, attempt=2))
    assert first.equals(second)
    assert second["attempt"].to_pylist() == [1]
    assert (tmp_path / make_sink(tmp_path).part(0)).stat().st_ino == before.st_ino


def test_two_writers_at_once_make_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other writer's link comes between our look and our link."""
    block, link = make_block(shards(make_plan())[0]), os.link

    def overtaken(source: Path, target: Path) -> None:
        if target.parent.name == "data":
            monkeypatch.setattr(os, "link", link)
            write_part(block, other)
        link(source, target)

    mine, other = make_sink(tmp_path, attempt=8), make_sink(tmp_path, attempt=7)
    monkeypatch.setattr(os, "link", overtaken)
    assert write_part(block, mine)["attempt"].to_pylist() == [7]
    assert len(list((tmp_path / "data").iterdir())) == 1


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    plan, out = make_plan(), make_sink(tmp_path)
    write_part(make_block(shards(plan)[0]), out)
    assert committed(out).keys() == {0}
    with pytest.raises(OutputError, match=r"of 3 shards, 2 are missing or incomplete: 1 \(none of 1 spans\)"):
        ended(plan, out)
    with pytest.raises(OutputError, match=r"No finished run in .*: expected manifests/<n>\.json"):
        reader.dataset(str(tmp_path))


def test_a_commit_says_where_it_came_from(tmp_path: Path) -> None:
    out = make_sink(tmp_path, attempt=3)
    write_part(make_block(shards(make_plan())[0]), out)
    [commit] = read_commits(out.storage, out.part(0))
    assert (commit.rows, commit.spans, commit.quarantined, commit.attempt) == (3, 3, 1, 3)
    assert commit.quarantine == "quarantine/run0-00000000-3.parquet"
    assert sink.read_about(out.storage, out.part(0))["run"] == {"job": "test"}


def test_orphans_of_a_killed_attempt_are_no_part_of_the_table(tmp_path: Path) -> None:
    plan, out = make_plan(), make_sink(tmp_path, attempt=2)
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine/run0-00000000-1.parquet").write_bytes(b"half")
    (tmp_path / "runs/tmp/draft").write_bytes(b"half")
    for spans in shards(plan).values():
        write_part(make_block(spans), out)
    manifest = ended(plan, out)
    assert manifest.quarantine == ("quarantine/run0-00000000-2.parquet",)
    assert reader.quarantine(str(tmp_path)).num_rows == 1
    assert (
        tmp_path / "quarantine/run0-00000000-1.parquet"
    ).exists()  # `perceive gc` deletes, nothing else does


def test_a_part_that_went_after_it_was_committed_is_missed(tmp_path: Path) -> None:
    """The snapshot says that it is there; the account is made of a listing."""
    plan, out = make_plan(), make_sink(tmp_path)
    commits = Commits(out, count_shards(plan))
    for spans in shards(plan).values():
        commits.add(Commit(**write_part(make_block(spans), out).to_pylist()[0]))
    commits.save()
    (tmp_path / out.part(1)).unlink()
    assert Commits(out, 3).done.tolist() == [True, True, True]
    with pytest.raises(
        OutputError, match=r"1 parts that were committed are gone from .*: run0-00000001\.arrow\. Run"
    ):
        ended(plan, out)
    assert Commits(out, 3).done.tolist() == [True, False, True]  # the next attempt does it again
    write_part(make_block(shards(plan)[1]), out)
    assert ended(plan, out).rows == 9


def test_a_resume_lists_what_is_after_the_snapshot_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = make_plan(), make_sink(tmp_path)
    commits = Commits(out, 3)
    for shard, spans in shards(plan).items():
        row = write_part(make_block(spans), out).to_pylist()[0]
        if shard == 0:
            commits.add(Commit(**row))
    commits.save()
    names, asked = type(out.storage).names, []

    def listing(self: Storage, folder: str, after: str = "") -> Iterator[str]:
        asked.append((folder, after))
        return names(self, folder, after)

    monkeypatch.setattr(type(out.storage), "names", listing)
    again = Commits(out, 3)
    assert again.done.all()
    assert again.unread == [1, 2]
    assert asked == [("data", out.part(0))]
    assert [commit.shard for commit in again.read()] == [1, 2]
    assert again.all()["shard"].to_pylist() == [0, 1, 2]


def test_a_link_that_overwrites_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = prepared(tmp_path)
    check_conditions(storage)
    monkeypatch.setattr(os, "link", os.replace)
    with pytest.raises(OutputError, match="overwrites files that exist where it was asked not to"):
        check_conditions(storage)


def test_a_file_system_without_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(1, "not permitted")))
    with pytest.raises(
        OutputError, match=r"without hard links \(not permitted\), by which files are created only if"
    ):
        prepared(tmp_path)


def test_a_failing_disk_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make_sink(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OutputError, match=r"can't be written to: No space left on device\. Make room .* to resume\."
    ):
        write_part(make_block(shards(make_plan())[0]), out)
    assert not list(out.storage.names("data"))
    assert not list((tmp_path / "runs/tmp").iterdir())
