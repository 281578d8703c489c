"""`perceive run` from end to end, on real encoded media."""

import json
import math
import re
import shutil
import time
from pathlib import Path
from typing import Any

import av
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from perceiver_core.checkpoint import load
from perceiver_core.output_points import OutputPoints
from pipelines import reader
from pipelines.items import list_items
from pipelines.media.info import probe
from pipelines.media.windows import WindowShape, read_windows
from tests.clips import write_clip
from tests.conftest import LABELS
from tests.e2e.command import interrupt, kill_tree, perceive, start, wait_for, write_job

SHAPE = WindowShape(height=24, width=32)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good clips of several kinds, and the bad ones of every strange bucket."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "nested").mkdir()
    write_clip(folder / "h264.mp4", frames=37, audio_codec="aac")
    write_clip(folder / "nested/vp9.webm", frames=20, codec="libvpx-vp9", audio_codec="libopus")
    write_clip(folder / "silent.mkv", frames=16, audio_codec=None)
    (folder / "text.mp4").write_text("this is not a video\n" * 20)
    (folder / "zero.mp4").touch()
    write_clip(folder / "cut.mp4", frames=40)
    whole = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def finished(media: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run over all of it, as Arrow; returns the job's folder."""
    folder = tmp_path_factory.mktemp("run")
    done = perceive("run", write_job(folder, media, checkpoint))
    assert done.returncode == 3, done.stderr  # done, with quarantined rows
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def test_every_row_is_the_models_answer(finished: Path, media: Path, checkpoint: Path) -> None:
    table = reader.dataset(str(finished / "out")).to_table()
    model = load(checkpoint)
    video, audio = reader.to_numpy(table, "video"), reader.to_numpy(table, "audio")
    row = 0
    for item in list_items(str(media), (".mp4", ".webm", ".mkv")):
        if Path(item.uri).stem in ("text", "zero", "cut"):
            continue
        with Path(item.uri).open("rb") as file:
            info = probe(file)
            for window in read_windows(file, info, SHAPE, 0, -(-info.frames // 16)):
                pixels = torch.from_numpy(window.video).permute(0, 3, 1, 2)[None] / 255
                sound = torch.from_numpy(window.audio)[None, :, None]
                with torch.inference_mode():
                    latents = model.encode({"image": pixels, "audio": sound})
                    answer = model.decode(latents, OutputPoints.all(model.config))
                got = table.slice(row, 1).to_pylist()[0]
                assert (got["item_id"], got["version"], got["uri"]) == (item.item_id, item.version, item.uri)
                assert (got["window"], got["frames"], got["samples"]) == (
                    window.index,
                    window.frames,
                    window.samples,
                )
                assert got["start_time"] == window.start_time
                expected = (answer["image"][0].clamp(0, 1) * 255).numpy().reshape(video[row].shape)
                assert (
                    np.abs(video[row] - expected).max() < 0.51
                )  # rounded, and batches differ in the last bit
                real = video[row][: window.frames].astype(float) - window.video[: window.frames]
                assert math.isclose(
                    got["video_psnr"], -10 * np.log10(np.mean((real / 255) ** 2)), rel_tol=1e-4
                )
                if window.samples:
                    np.testing.assert_allclose(audio[row], answer["audio"][0].numpy(), atol=1e-4)
                    error = (audio[row] - window.audio)[: window.samples].astype(float)
                    assert math.isclose(got["audio_psnr"], -10 * np.log10(np.mean(error**2)), rel_tol=1e-4)
                else:
                    assert got["audio"] is None
                    assert got["audio_psnr"] is None
                scores, labels = answer["label"][0].softmax(-1).topk(2)
                assert got["labels"] == [LABELS[i] for i in labels]
                np.testing.assert_allclose(got["scores"], scores.numpy(), rtol=1e-4)
                row += 1
    assert row == table.num_rows == 3 + 2 + 1


def test_bad_items_are_named_and_explained(finished: Path, media: Path) -> None:
    rows = {Path(r["uri"]).stem: r for r in reader.quarantine(str(finished / "out")).to_pylist()}
    assert rows.keys() == {"text", "zero", "cut"}
    for row in rows.values():
        assert row["stage"] == "probe"
        assert row["error"] == "MediaError"
    assert rows["cut"]["message"].startswith(
        "truncated: its 'mdat' box promises 3930 bytes; the file has 2586"
    )
    assert rows["text"]["message"].startswith(
        "expected MP4/MOV or Matroska/WebM; the file begins with b'this is"
    )
    assert rows["zero"]["message"] == "expected a video file; got 0 bytes; upload it again"
    shown = (finished / "stdout").read_text()
    assert "6 rows" in shown
    assert "3 quarantined" in shown
    assert rows["zero"]["message"][:20] in shown
    [sheet] = (finished / "out/runs").glob("*/contact-sheet.png")
    assert f"Pictures of it: {sheet}" in shown
    assert "videos" not in shown


def test_progress_on_stderr_and_nothing_else(finished: Path) -> None:
    said = (finished / "stderr").read_text().splitlines()
    assert said[:3] == ["files listed: 6", "items planned: 6", "windows: 6"]
    assert all(line.startswith("windows: ") for line in said[2:]), said


def test_running_again_does_nothing(finished: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in (finished / "out").rglob("*") if path.is_file())
    done = perceive("run", finished / "job.yaml", "--json")
    assert done.stderr == "files listed: 6\n"  # nothing is planned: no decoder, no Ray and no model
    result = json.loads(done.stdout)
    assert (done.returncode, result["exit_code"], result["windows_now"], result["rows"]) == (3, 3, 0, 6)
    assert (
        sorted(path.stat().st_mtime_ns for path in (finished / "out").rglob("*") if path.is_file()) == before
    )


def test_a_changed_job_is_refused_by_name_of_what_changed(finished: Path, media: Path) -> None:
    done = perceive("run", finished / "job.yaml", "-o", "options.top_k=1", "-o", "compute.shard_windows=3")
    assert done.returncode == 2
    assert "already holds run" in done.stderr
    assert "options.top_k was 2, is 1" in done.stderr
    assert "shard_windows was 2, is 3" in done.stderr
    extra = shutil.copy(media / "h264.mp4", media / "new.mp4")
    try:
        done = perceive("run", finished / "job.yaml")
    finally:
        Path(extra).unlink()
    assert done.returncode == 2
    assert "input (1 files added, 0 changed, 0 gone)" in done.stderr
    assert "add --supersede to do what is new or changed" in done.stderr


@pytest.mark.e2e
def test_no_fold_is_the_plain_model(finished: Path, media: Path, checkpoint: Path, tmp_path: Path) -> None:
    refused = perceive("run", finished / "job.yaml", "--no-fold")
    assert refused.returncode == 2
    assert "fold was True, is False" in refused.stderr
    done = perceive("run", write_job(tmp_path, media, checkpoint), "--no-fold")
    assert done.returncode == 3, done.stderr
    folded, plain = (reader.dataset(str(folder / "out")).to_table() for folder in (finished, tmp_path))
    assert plain["labels"].equals(folded["labels"])
    sounds = [reader.to_numpy(table, "audio") for table in (folded, plain)]
    np.testing.assert_allclose(*sounds, rtol=0, atol=2e-5 * np.nanmax(np.abs(sounds[1])))
    assert not np.array_equal(*sounds, equal_nan=True)  # two ways to compute, which round differently
    pixels = [reader.to_numpy(table, "video").astype(int) for table in (folded, plain)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert (pixels[0] != pixels[1]).mean() < 1e-3


README = Path(__file__).parent.parent.parent / "README.md"


@pytest.mark.parametrize("library", ["pyarrow", "Polars", "pandas", "Ray Data", "DuckDB"])
def test_the_readmes_readers_give_the_same_tensors(
    library: str, finished: Path, ray_here: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = [
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if block.startswith(f"# {library}")
    ]
    monkeypatch.chdir(finished)
    scope: dict[str, Any] = {}
    exec(code.replace("demo-output", "out").replace("16, 32, 32, 3", "16, 24, 32, 3"), scope)
    expected = reader.to_numpy(reader.dataset(str(finished / "out")).to_table(), "video")
    assert scope["video"].dtype == np.uint8
    np.testing.assert_array_equal(scope["video"], expected)


@pytest.mark.e2e
def test_parquet_holds_the_same_table_and_names_mp4s(
    finished: Path, media: Path, checkpoint: Path, tmp_path: Path
) -> None:
    output = {"uri": str(tmp_path / "out"), "format": "parquet"}
    job = write_job(tmp_path, media, checkpoint, output=output, options={"top_k": 2, "video": "both"})
    done = perceive("run", job)
    assert done.returncode == 3, done.stderr
    said = f"3 videos in {tmp_path}/out/video; 3 of the items have none, as windows of theirs are quarantined"
    assert said in done.stdout
    arrow = reader.dataset(str(finished / "out")).to_table()
    parquet = reader.dataset(str(tmp_path / "out")).to_table()
    tensors = ["video", "audio"]
    assert parquet.drop_columns([*tensors, "mp4"]).equals(arrow.drop_columns(tensors))
    for uri, mp4 in zip(parquet["uri"].to_pylist(), parquet["mp4"].to_pylist(), strict=True):
        with av.open(str(tmp_path / "out" / mp4)) as video, av.open(uri) as source:
            assert video.streams.video[0].frames == round(source.duration / 1e6 * 25)
            assert len(video.streams.audio) == len(source.streams.audio)
    for name in tensors:
        assert parquet[name].null_count == arrow[name].null_count
        np.testing.assert_array_equal(reader.to_numpy(parquet, name), reader.to_numpy(arrow, name))
    glob = str(tmp_path / "out" / "data" / "*.parquet")
    for cells in (
        pl.read_parquet(glob)["video"],
        pd.read_parquet(tmp_path / "out" / "data")["video"],
        [cell for (cell,) in duckdb.sql(f"select video from '{glob}'").fetchall()],
    ):
        pixels = np.stack([np.frombuffer(cell, np.uint8) for cell in cells])
        np.testing.assert_array_equal(pixels.reshape(-1, 16, 24, 32, 3), reader.to_numpy(arrow, "video"))


@pytest.fixture(scope="module")
def long_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    write_clip(folder / "a.mp4", frames=16 * 13 + 3, audio_codec="aac", options={"bf": "2"})
    write_clip(folder / "b.mkv", frames=16 * 5, codec="libx265", audio_codec="libopus")
    (folder / "bad.mp4").write_text("no")
    return folder


@pytest.mark.e2e
def test_killed_while_mp4s_are_made_the_run_goes_on_from_there(
    media: Path, finished: Path, checkpoint: Path, tmp_path: Path
) -> None:
    job = write_job(tmp_path, media, checkpoint, options={"top_k": 2, "video": "mp4"})
    out = tmp_path / "out"
    process = start("run", job)
    wait_for(lambda: list(out.glob("video/*.mp4")), process)
    kill_tree(process)
    done = perceive("run", job, "--json")  # how far it had come is chance; test_publish kills at every point
    result = json.loads(done.stdout)
    assert (done.returncode, result["windows_now"]) == (3, 0)
    assert (result["videos"], result["items_without_video"]) == (str(out / "video"), 3)
    assert Path(result["contact_sheet"]).exists()
    table = reader.dataset(str(out)).to_table()
    assert table.drop_columns(["mp4"]).equals(
        reader.dataset(str(finished / "out")).to_table().drop_columns(["video", "audio"])
    )
    assert {f"video/{path.name}" for path in (out / "video").iterdir()} == set(table["mp4"].to_pylist())
    assert not list(out.glob("runs/*/parts/*"))


@pytest.mark.e2e
def test_ctrl_c_ends_in_seconds_and_resumes(long_media: Path, checkpoint: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, long_media, checkpoint)
    process = start("run", job)
    wait_for(lambda: len(list((tmp_path / "out/data").glob("*"))) >= 1, process)
    began = time.monotonic()
    interrupt(process)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert said.splitlines()[-1] == f"Interrupted. To resume: perceive run {job}"
    done = json.loads(perceive("run", job, "--json").stdout)
    assert done["attempt"] == 2
    assert 0 < done["windows_now"] < 19
    assert done["rows"] == 19


def test_on_error_fail_stops_before_it_starts(media: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = perceive("run", write_job(tmp_path, media, checkpoint, on_error="fail"))
    assert done.returncode == 4
    assert "on_error is fail, and " in done.stderr
    assert "set on_error to quarantine" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_on_error_fail_stays_failed_until_it_is_told_otherwise(checkpoint: Path, tmp_path: Path) -> None:
    """A file that is whole by its headers and broken inside, which only decoding finds out."""
    (tmp_path / "media").mkdir()
    write_clip(tmp_path / "media/damaged.mp4", frames=60, audio_codec=None)
    damaged = bytearray((tmp_path / "media/damaged.mp4").read_bytes())
    box = damaged.index(b"mdat")
    size = int.from_bytes(damaged[box - 4 : box])
    damaged[box + size // 2 : box + size // 2 + size // 8] = bytes(size // 8)
    (tmp_path / "media/damaged.mp4").write_bytes(damaged)
    job = write_job(tmp_path, tmp_path / "media", checkpoint, on_error="fail")
    for _ in range(2):  # the second time from its commit
        done = perceive("run", job)
        assert done.returncode == 4, done.stderr
        assert "damaged.mp4 could not be processed (decode)" in done.stderr
    done = perceive("run", job, "-o", "on_error=quarantine")
    assert done.returncode == 3
    assert perceive("run", job).returncode == 4


def test_a_job_that_cannot_run_says_why(media: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = json.loads((other / "config.json").read_text()) | {"architectures": ["PerceiverForMaskedLM"]}
    (other / "config.json").write_text(json.dumps(config))
    job = write_job(tmp_path, media, checkpoint)
    for override, message in {
        f"input.uri={tmp_path}/nowhere": "No such file or folder",
        f"input.uri={tmp_path}/empty": "expected files that end in .parquet",
        "optoins.top_k=1": "optoins: no such option. Did you mean options?",
        f"model.checkpoint={other}": "holds a PerceiverForMaskedLM, but the task multimodal-autoencoding runs on",
        f"model.checkpoint={tmp_path}/gone": "model.checkpoint: A checkpoint must be a folder",
        "options.top_k=9": "top_k is 9, but the checkpoint has 4 labels",
        "compute.device=cuda": "PyTorch sees no GPU here",
    }.items():
        if override == "compute.device=cuda" and torch.cuda.is_available():
            continue
        done = perceive("run", job, "-o", override)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.e2e
def test_files_whose_names_are_no_utf8_are_items_like_others(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("a", "caf\udce9", "z"):
        write_clip(tmp_path / "clip.mp4", frames=20)
        (tmp_path / "clip.mp4").rename(folder / f"{name}.mp4")
    (folder / "no\udcff.mp4").write_text("no")
    job = write_job(tmp_path, folder, checkpoint, options={"top_k": 2, "video": "both"})
    out = tmp_path / "out"
    process = start("run", job)
    wait_for(lambda: list(out.glob("video/*.mp4")), process)
    kill_tree(process)
    done = perceive("run", job)
    assert done.returncode == 3, done.stderr
    assert f"quarantined: file://{folder}/no%FF.mp4 (probe): " in done.stdout
    table = reader.dataset(str(out)).to_table()
    uris = [f"{folder}/a.mp4", f"{folder}/z.mp4", f"file://{folder}/caf%E9.mp4"]
    assert sorted(zip(table["uri"].to_pylist(), table["window"].to_pylist(), strict=True)) == [
        (uri, window) for uri in uris for window in range(2)
    ]
    names = {Path(name).name.rpartition("-")[0] for name in table["mp4"].to_pylist()}
    assert names == {"a", "caf_E9", "z"}
    assert reader.quarantine(str(out))["uri"].to_pylist() == [f"file://{folder}/no%FF.mp4"]
    again = json.loads(perceive("run", job, "--json").stdout)
    assert (again["windows_now"], again["rows"]) == (0, 6)
    made = json.loads(perceive("report", out, "--json").stdout)
    page = Path(made["report"]).read_text()
    assert "caf%E9.mp4" in page
    assert "Left out" not in page
