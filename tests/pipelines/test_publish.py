"""The end of a run: MP4s, the published table, the manifest; and the same after a kill at any point."""

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from pipelines import publish, reader, videos
from pipelines.contact_sheet import write_contact_sheet
from pipelines.manifest import Manifest, closed
from pipelines.publish import drop_staged
from pipelines.sink import committed, read_commits
from pipelines.storage import OutputError, open_storage
from pipelines.tensors import Format, to_numpy
from tests.clips import write_clip
from tests.pipelines.committing import ended
from tests.pipelines.copying import CopyingRun


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long item in several shards, short ones that share some, one that can't be read."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "long.mp4", frames=16 * 4 + 5, audio_codec="aac")
    write_clip(folder / "mute.mp4", frames=20, audio_codec=None)
    write_clip(folder / "short one.mp4", frames=9, audio_codec="aac")
    (folder / "text.mp4").write_text("not a video")
    return folder


def end(run: CopyingRun, format: Format | None = None) -> Manifest:
    """What jobs.attempt does from the last commit on."""
    run.sink.storage.prepare()
    manifest = closed(run.sink)
    if manifest is None:
        run.commit()
        manifest = ended(run.plan, run.sink, run.task, format or run.task.format)
    write_contact_sheet(run.plan, run.sink, run.task, run.config, run.source, run.decoder)
    drop_staged(run.sink)
    return manifest


def seen(out: Path) -> dict[str, Any]:
    """All that is in an output but drafts: its files' bytes; of manifests all but when they were made, of MP4s what is
    in them (x264's bytes vary for tiny pictures)."""
    return {
        str(path.relative_to(out)): _inside(path)
        for path in out.rglob("*")
        if path.is_file() and path.parent != out / "runs/tmp"
    }


def _inside(path: Path) -> Any:
    if path.parent.name == "manifests":
        return {name: value for name, value in json.loads(path.read_text()).items() if name != "closed"}
    if path.suffix != ".mp4":
        return path.read_bytes()
    with av.open(str(path)) as file:
        return len(list(file.decode(video=0))), len(file.streams.audio)


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_one_mp4_per_item_beside_its_tensors(media: Path, tmp_path: Path, format: Format) -> None:
    run = CopyingRun.over(media, tmp_path, "both", format)
    manifest = end(run)
    table = reader.dataset(str(tmp_path)).to_table()
    assert (manifest.items, manifest.rows, manifest.quarantined) == (4, 5 + 2 + 1, 1)
    assert {path.name.rpartition("-")[0] for path in (tmp_path / "video").iterdir()} == {
        "long", "mute", "short_one",
    }  # fmt: skip
    for name, frames, samples in (("long", 69, 69 * 1920), ("mute", 20, 0), ("short", 9, 9 * 1920)):
        rows = table.filter(pa.array(name in uri for uri in table["uri"].to_pylist()))
        [path] = rows["mp4"].unique().to_pylist()
        with av.open(str(tmp_path / path)) as file:
            shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
            assert file.duration == frames * 40_000
            assert bool(file.streams.audio) == bool(samples)
        expected = to_numpy(rows, "video").reshape(-1, 24, 32, 3)[:frames]
        assert len(shown) == frames
        assert np.abs(np.stack(shown).astype(int) - expected).mean() < 12  # colours at half size, crf 18
        if samples:
            with av.open(str(tmp_path / path)) as file:
                heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
            source = to_numpy(rows, "audio").reshape(-1)[:samples]
            assert np.corrcoef(heard[:samples], source)[0, 1] > 0.9


def played(out: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The frames and the sound of an item's MP4."""
    [path] = (out / "video").glob(f"{name}*")
    with av.open(str(path)) as file:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(int)
    with av.open(str(path)) as file:
        heard = [frame.to_ndarray()[0] for frame in file.decode(audio=0)] if file.streams.audio else []
    return shown, np.concatenate(heard or [np.empty(0)])


@pytest.mark.parametrize("overlap", [3, 8])
def test_an_mp4_of_overlapping_windows_has_each_frame_once(media: Path, tmp_path: Path, overlap: int) -> None:
    """What is blended is the same on both sides here, so it is the MP4 of windows that don't overlap."""
    end(CopyingRun.over(media, tmp_path / "plain", "mp4"))
    end(CopyingRun.over(media, tmp_path / "overlapped", "mp4", shard_windows=2, overlap=overlap))
    for name, frames in (("long", 69), ("mute", 20), ("short", 9)):
        (shown, heard), (expected, sound) = (played(tmp_path / run, name) for run in ("overlapped", "plain"))
        assert len(shown) == frames
        # x264 makes other bytes of the same frames now and then; a frame twice or left out is another matter.
        assert np.abs(shown - expected).mean() < np.abs(shown[1:] - expected[:-1]).mean() / 2
        assert np.abs(shown[1:] - expected[:-1]).mean() > 4
        np.testing.assert_allclose(heard, sound, atol=1e-3)


def test_a_letterboxed_mp4_has_the_sources_aspect(media: Path, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media/tall.mp4", frames=18, size=(36, 72))
    run = CopyingRun.over(tmp_path / "media", tmp_path / "out", "both", fit="letterbox")
    end(run)
    table = reader.dataset(str(tmp_path / "out")).to_table()
    assert table["picture_left"].to_pylist() == [10, 10]
    assert table["picture_width"].to_pylist() == [
        12,
        12,
    ]  # of 32, for 24 rows of a picture twice as tall as wide
    shown, _ = played(tmp_path / "out", "tall")
    assert shown.shape == (18, 24, 12, 3)
    expected = to_numpy(table, "video").reshape(-1, 24, 32, 3)[:18, :, 10:22]
    assert np.abs(shown - expected).mean() < 12


def test_a_published_table_is_the_other_one_without_its_tensors(media: Path, tmp_path: Path) -> None:
    both, mp4 = (CopyingRun.over(media, tmp_path / video, video) for video in ("both", "mp4"))
    end(both)
    manifest = end(mp4)
    expected = reader.dataset(str(tmp_path / "both")).to_table().drop_columns(["video", "audio"])
    assert reader.dataset(str(tmp_path / "mp4")).to_table().equals(expected)
    [part] = manifest.parts
    assert part.path == "data/run0-000000.parquet"
    assert [commit.shard for commit in read_commits(mp4.sink.storage, part.path)] == list(range(4))
    assert reader.quarantine(str(tmp_path / "mp4")).equals(reader.quarantine(str(tmp_path / "both")))
    made = [{path.name for path in (tmp_path / video / "video").iterdir()} for video in ("both", "mp4")]
    assert made[0] == made[1] == {Path(path).name for path in expected["mp4"].to_pylist()}
    assert not list(mp4.sink.storage.names(mp4.sink.folder))


def test_a_published_table_is_cut_into_files_of_a_size(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(CopyingRun.over(media, tmp_path / "one", "mp4"))
    monkeypatch.setattr(publish, "_FILE_BYTES", 600)
    manifest = end(CopyingRun.over(media, tmp_path / "more", "mp4"), "arrow")
    assert [part.path for part in manifest.parts] == [f"data/run0-{n:06d}.arrow" for n in range(3)]
    assert sum(part.rows for part in manifest.parts) == manifest.rows == 8
    tables = [reader.dataset(str(tmp_path / name)).to_table() for name in ("one", "more")]
    assert tables[0].equals(tables[1])


def test_an_item_that_misses_windows_has_no_mp4(media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("long.mp4", "mute.mp4"):
        (folder / name).write_bytes((media / name).read_bytes())
    for video in ("both", "mp4"):
        run = CopyingRun.over(folder, tmp_path / video, video)
        run.commit(stop=1)
        kept = (folder / "long.mp4").read_bytes()
        (folder / "long.mp4").write_bytes(kept[:9000])  # the file breaks in the middle of the run
        end(run)
        (folder / "long.mp4").write_bytes(kept)
        table = reader.dataset(str(tmp_path / video)).to_table()
        named = dict(zip(table["uri"].to_pylist(), table["mp4"].to_pylist(), strict=True))
        assert [path.name.split("-")[0] for path in (tmp_path / video / "video").iterdir()] == ["mute"]
        assert (tmp_path / video / named[str(folder / "mute.mp4")]).exists()
        long = named[str(folder / "long.mp4")]
        assert long is None if video == "mp4" else not (tmp_path / video / long).exists()
        assert table.num_rows == 3 + 2


class Killed(BaseException):
    """What no `except Exception` stops."""


def kills(monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> Callable[[], int]:
    """Kill at the `at`-th change of a name in the file system, before or after it; returns how many there were."""
    count, lock, dead = 0, threading.Lock(), False

    def deadly(change: Callable[..., None]) -> Callable[..., None]:
        def changed(*arguments: Any, **options: Any) -> None:
            nonlocal count, dead
            with lock:
                count += 1
                if dead or (count == at and not after):
                    dead = True
                    raise Killed
                try:
                    change(*arguments, **options)
                finally:
                    if count == at:
                        dead = True
                        raise Killed

        return changed

    for name in ("link", "unlink", "replace"):
        monkeypatch.setattr(os, name, deadly(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("video", ["both", "mp4"])
def test_killed_at_any_point_the_end_is_the_same(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video: str
) -> None:
    committed_only = CopyingRun.over(media, tmp_path / "committed", video)
    committed_only.commit()
    shutil.copytree(
        tmp_path / "committed", tmp_path / "calm"
    )  # what parts say of their seconds is the same, too
    calm = CopyingRun.over(media, tmp_path / "calm", video)
    end(calm)
    expected = seen(tmp_path / "calm")
    steps = 0
    for after in (False, True):
        for at in range(1, 300):
            out = tmp_path / f"{at}-{after}"
            shutil.copytree(tmp_path / "committed", out)
            run = dataclasses.replace(
                calm, sink=dataclasses.replace(calm.sink, storage=open_storage(str(out)))
            )
            with monkeypatch.context() as patch:
                count = kills(patch, at, after)
                try:
                    end(run)
                except Killed:
                    steps += 1
                else:
                    assert count() < at
                    break
            end(run)
            assert seen(out) == expected, (at, after)
    assert steps > 20


def test_running_again_touches_nothing(media: Path, tmp_path: Path) -> None:
    run = CopyingRun.over(media, tmp_path, "mp4")
    first = end(run)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert closed(run.sink) == end(run) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not committed(run.sink)


def test_a_published_file_that_is_gone_is_made_again(media: Path, tmp_path: Path) -> None:
    run = CopyingRun.over(media, tmp_path, "mp4")
    end(run)
    expected, before = reader.dataset(str(tmp_path)).to_table(), set(seen(tmp_path))
    (tmp_path / "data/run0-000000.parquet").unlink()
    assert closed(run.sink) is None
    end(run)  # its rows are the same; what it says of its seconds need not be
    assert reader.dataset(str(tmp_path)).to_table().equals(expected)
    assert set(seen(tmp_path)) == before


def test_missing_shards_are_named_before_any_video_is_made(media: Path, tmp_path: Path) -> None:
    run = CopyingRun.over(media, tmp_path, "mp4")
    run.commit()
    Path(run.sink.storage.where(committed(run.sink)[1])).unlink()
    with pytest.raises(OutputError, match=r"of 4 shards, 1 are missing or incomplete: 1 \(none of 1 spans\)"):
        ended(run.plan, run.sink, run.task, "parquet")
    assert not (tmp_path / "video").exists()


def test_an_encoder_that_fails_fails_the_run_and_leaves_nothing(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CopyingRun.over(media, tmp_path, "mp4")
    run.commit()

    def full(path: Path, shots: Iterator[Any], *_: Any) -> None:
        path.write_bytes(b"half")
        next(shots)
        raise av.error.OSError(28, "No space left on device")

    monkeypatch.setattr(videos, "write_mp4", full)
    with pytest.raises(
        OutputError, match=r"video/.*mp4 could not be written: .*No space left.* run the job again"
    ):
        ended(run.plan, run.sink, run.task, "parquet")
    assert not list(run.sink.storage.names("video"))
    assert not list(run.sink.storage.names("runs/tmp"))
    assert not list(run.sink.storage.names("manifests"))


def test_parts_that_lack_a_window_fail_the_run(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CopyingRun.over(media, tmp_path, "mp4")
    run.commit()
    rows = videos.rows

    def all_but_window_4(*arguments: Any) -> Iterator[pa.Table]:
        return (row for row in rows(*arguments) if row["window"][0].as_py() != 4)

    monkeypatch.setattr(videos, "rows", all_but_window_4)
    with pytest.raises(
        OutputError, match=r"the parts have 4 windows in order for video/long-.*mp4, expected 5"
    ):
        ended(run.plan, run.sink, run.task, "parquet")
    assert not [path for path in (tmp_path / "video").iterdir() if path.name.startswith("long")]
