"""Parts, their commits, and the manifest that accounts for them."""

import json
import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from pipelines import reader, sink
from pipelines.errors import ItemError
from pipelines.items import Item
from pipelines.manifest import close
from pipelines.plan import Probed, cut_shards, shards
from pipelines.sink import OutputError, Sink, committed, prepare, read_commits, write_part
from pipelines.stages import block_schema
from pipelines.tensors import Format, pack

TENSOR = pa.fixed_shape_tensor(pa.uint8(), [4, 3])
COLUMNS = pa.schema([pa.field("window", pa.int64()), pa.field("video", TENSOR)])
BROKEN = ItemError("decode", "MediaError", "no moov atom", "d1")


def make_sink(out: Path, format: Format = "arrow", attempt: int = 1) -> Sink:
    made = Sink(str(out), "run0", attempt, format, COLUMNS, json.dumps({"job": "test"}))
    prepare(made)
    return made


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
    manifest = close(plan, out, list(committed(out).values()))
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
    assert not list((tmp_path / "runs/run0/tmp").iterdir())


def test_closing_again_changes_nothing(tmp_path: Path) -> None:
    plan, out = make_plan(), make_sink(tmp_path)
    for spans in shards(plan).values():
        write_part(make_block(spans), out)
    assert close(plan, out, list(committed(out).values())) == close(plan, out, list(committed(out).values()))
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
        close(plan, out, list(committed(out).values()))
    with pytest.raises(OutputError, match=r"No finished run in .*: expected manifests/<n>\.json"):
        reader.dataset(str(tmp_path))


def test_a_commit_says_where_it_came_from(tmp_path: Path) -> None:
    out = make_sink(tmp_path, attempt=3)
    write_part(make_block(shards(make_plan())[0]), out)
    [commit] = read_commits(tmp_path / out.part(0))
    assert (commit.rows, commit.spans, commit.quarantined, commit.attempt) == (3, 3, 1, 3)
    assert commit.quarantine == "quarantine/run0-000000-3.parquet"
    assert sink.read_about(tmp_path / out.part(0))["run"] == {"job": "test"}


def test_orphans_of_a_killed_attempt_go_when_the_run_closes(tmp_path: Path) -> None:
    plan, out = make_plan(), make_sink(tmp_path)
    orphan = tmp_path / "quarantine/run0-000000-0.parquet"
    orphan.write_bytes(b"half")
    (tmp_path / "runs/run0/tmp/draft").write_bytes(b"half")
    out = make_sink(tmp_path, attempt=2)
    assert not list((tmp_path / "runs/run0/tmp").iterdir())
    for spans in shards(plan).values():
        write_part(make_block(spans), out)
    close(plan, out, list(committed(out).values()))
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == ["run0-000000-2.parquet"]


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (os.replace, "a link overwrites a file that exists"),
        (
            Mock(side_effect=PermissionError(1, "not permitted")),
            "without hard links",
        ),
    ],
)
def test_a_file_system_that_cannot_refuse_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: object, message: str
) -> None:
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OutputError, match=message):
        make_sink(tmp_path)


def test_a_failing_disk_leaves_no_half_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make_sink(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_part(make_block(shards(make_plan())[0]), out)
    assert not list((tmp_path / "data").iterdir())
    assert not list((tmp_path / "runs/run0/tmp").iterdir())
