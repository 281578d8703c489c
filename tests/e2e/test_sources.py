"""`perceive run` over every source: the same media, so the same rows, wherever they lay."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import reader
from tests.clips import write_clip
from tests.e2e.command import perceive, write_job
from tests.faults.proxy import Fault
from tests.faults.store import s3

pytestmark = pytest.mark.sources
NAMES = ["a.mp4", "b.webm", "bad.mp4", "c.mkv"]  # in the order of every listing


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "a.mp4", frames=37, audio_codec="aac")
    write_clip(folder / "b.webm", frames=20, codec="libvpx-vp9", audio_codec="libopus")
    (folder / "bad.mp4").write_text("this is not a video\n" * 20)
    write_clip(folder / "c.mkv", frames=16, audio_codec=None)
    return folder


def run(folder: Path, checkpoint: Path, **input: Any) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The table of a run, and its quarantine rows."""
    done = perceive("run", write_job(folder, folder, checkpoint, input=input))
    assert done.returncode == 3, done.stderr
    out = str(folder / "out")
    return reader.dataset(out).to_table(), reader.quarantine(out).to_pylist()


def values(table: pa.Table) -> pa.Table:
    """What the task says, without where it was."""
    return table.drop_columns(["item_id", "version", "uri", "member"])


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Equal, but for the last bits of what the model computes, which a busy machine may change."""
    assert found.schema.equals(expected.schema)
    for name in expected.schema.names:
        if name in ("video", "audio"):
            assert found[name].is_valid().equals(expected[name].is_valid())
            pixels, sounds = reader.to_numpy(found, name).astype(float), reader.to_numpy(expected, name)
            np.testing.assert_allclose(pixels, sounds, rtol=0, atol=1 if name == "video" else 1e-5)
        elif name in ("scores", "video_psnr", "audio_psnr"):
            values = [np.array(table[name].to_pylist(), float) for table in (found, expected)]
            np.testing.assert_allclose(*values, rtol=1e-4)
        else:
            assert found[name].equals(expected[name]), name


@pytest.fixture(scope="module")
def expected(media: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    table, [bad] = run(tmp_path_factory.mktemp("files"), checkpoint, uri=str(media))
    assert bad["uri"].endswith("bad.mp4")
    assert table.num_rows == 3 + 2 + 1
    return values(table)


def test_parquet_of_bytes(media: Path, expected: pa.Table, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in/split=train"
    folder.mkdir(parents=True)
    cells = [(media / name).read_bytes() for name in NAMES]
    columns = {"clip": cells, "name": NAMES, "tags": [["x"], [], None, ["y", "z"]]}
    pq.write_table(pa.table(columns), folder / "t.parquet", row_group_size=3)
    found, [bad] = run(
        tmp_path / "run",
        checkpoint,
        uri=str(tmp_path / "in"),
        columns={"video": "clip"},
        keep=["name", "tags", "split"],
    )
    kept = found.select(["member", "name", "tags", "split"]).to_pylist()
    rows = [
        {"member": str(i), "name": NAMES[i], "tags": columns["tags"][i], "split": "train"} for i in range(4)
    ]
    assert kept == [rows[i] for i in (0, 0, 0, 1, 1, 3)]
    assert_same(values(found.drop_columns(["name", "tags", "split"])), expected)
    assert (bad["uri"], bad["member"], bad["stage"]) == (str(folder / "t.parquet"), "2", "probe")
    assert "expected MP4/MOV or Matroska/WebM" in bad["message"]


def test_webdataset(media: Path, expected: pa.Table, checkpoint: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for i, name in enumerate(NAMES):
            tar.add(media / name, f"clips/{name}")
            for suffix, text in (("json", f'{{"i": {i}}}'), ("cls", str(i))):
                info = tarfile.TarInfo(f"clips/{Path(name).stem}.{suffix}")
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    found, [bad] = run(tmp_path / "run", checkpoint, uri=str(tmp_path / "t.tar"), keep=["json", "cls"])
    assert found.schema.field("cls").type == pa.int64()
    kept = found.select(["member", "json", "cls"]).to_pylist()
    rows = [
        {"member": f"clips/{Path(name).stem}", "json": f'{{"i": {i}}}', "cls": i}
        for i, name in enumerate(NAMES)
    ]
    assert kept == [rows[i] for i in (0, 0, 0, 1, 1, 3)]
    assert_same(values(found.drop_columns(["json", "cls"])), expected)
    assert bad["member"] == "clips/bad"


def test_csv_of_links(media: Path, expected: pa.Table, checkpoint: Path, tmp_path: Path) -> None:
    lines = [
        "video,n,note",
        *(f'{media}/{name},{i},"a, b"' for i, name in enumerate(NAMES)),
        "/etc/passwd,9,x",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found, [bad, outside] = run(
        tmp_path / "run", checkpoint, uri=str(tmp_path / "t.csv"), keep=["n", "note"], roots=[str(media)]
    )
    assert found.schema.field("n").type == pa.int64()
    assert found["n"].to_pylist() == [0, 0, 0, 1, 1, 3]
    assert set(found["note"].to_pylist()) == {"a, b"}
    assert_same(values(found.drop_columns(["n", "note"])), expected)
    assert bad["member"] == "2"
    assert (outside["member"], outside["error"]) == ("4", "SourceError")
    assert "'/etc/passwd' leads to '/etc/passwd', outside of the input" in outside["message"]


def test_object_storage_that_fails_now_and_then(
    media: Path, expected: pa.Table, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3() as store:
        store.put({f"in/{name}": (media / name).read_bytes() for name in NAMES})
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        kinds = ("slow down", "reset", "cut", "slow")
        store.proxy.faults[:] = [
            *(Fault(kind, "list-type=2") for kind in kinds),
            *(Fault(kind, r"GET /bucket/in/.* bytes=", 2) for kind in kinds),
        ]
        found, [bad] = run(tmp_path / "run", checkpoint, uri="s3://bucket/in")
        assert [fault.done for fault in store.proxy.faults] == [1] * 4 + [2] * 4
    assert_same(values(found), expected)
    assert set(found["uri"].to_pylist()) == {f"s3://bucket/in/{name}" for name in NAMES if name != "bad.mp4"}
    assert (bad["uri"], bad["stage"]) == ("s3://bucket/in/bad.mp4", "probe")
    assert "testing" not in "".join(path.read_text() for path in (tmp_path / "run/out/runs").rglob("*.json"))


def test_what_does_not_fit_is_refused_before_anything_is_written(
    media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"video": [b"x"], "labels": [1], "uri": ["x"], "n": [1]}), tmp_path / "t.parquet")
    job = write_job(
        tmp_path,
        tmp_path,
        checkpoint,
        input={"uri": str(tmp_path / "t.parquet"), "keep": ["n", "labels", "uri"]},
    )
    done = perceive("run", job)
    assert done.returncode == 2
    assert (
        "input.keep asks for labels, uri, but the output of multimodal-autoencoding has columns of"
        in done.stderr
    )
    done = perceive("run", job, "-o", f"input.uri={media}", "-o", "input.keep=[]", "-o", "input.format=table")
    assert done.returncode == 2
    assert "input: No input in" in done.stderr
    assert not (tmp_path / "out").exists()
