"""Each task of pictures and latents through `perceive run`, against perceiver_core called directly."""

import csv
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch

from perceiver_core import PerceiverImageProcessor
from perceiver_core.checkpoint import load
from perceiver_core.output_points import OutputPoints
from pipelines import reader
from pipelines.media.info import probe
from pipelines.media.windows import WindowShape, read_windows
from tests.clips import write_clip
from tests.conftest import LABELS
from tests.e2e.command import perceive, write_job
from tests.pipelines.tasks.tiny import FOURIER, save_class

pytestmark = pytest.mark.e2e

SHAPE = WindowShape(height=24, width=32)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "one.mp4", frames=37, size=(64, 36), audio_codec="aac")
    write_clip(folder / "two.webm", frames=20, size=(64, 36), codec="libvpx-vp9")
    (folder / "zero.mp4").touch()
    return folder


def ran(folder: Path, media: Path, checkpoint: Path, task: str, code: int, **options: Any) -> pa.Table:
    """The table of a run."""
    done = perceive("run", write_job(folder, media, checkpoint, task=task, options=options))
    assert done.returncode == code, done.stderr
    return reader.dataset(str(folder / "out")).to_table()


def windows_of(path: Path, shape: WindowShape = SHAPE) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        info = probe(file)
        windows = list(read_windows(file, info, shape, 0, -(-info.frames // 16)))
    video = torch.stack([torch.from_numpy(window.video) for window in windows])  # B, T, H, W, 3
    audio = torch.stack([torch.from_numpy(window.audio) for window in windows])  # B, S
    return {"image": video.permute(0, 1, 4, 2, 3) / 255, "audio": audio[..., None]}


def test_video_classification(media: Path, checkpoint: Path, tmp_path: Path) -> None:
    table = ran(tmp_path, media, checkpoint, "video-classification", 3, top_k=3, threshold=0.2, csv=True)
    assert [name for name in table.column_names if pa.types.is_binary(table[name].type)] == []
    model, expected = load(checkpoint), []
    for name in ("one.mp4", "two.webm"):
        with torch.inference_mode():
            answer = model.decode(model.encode(windows_of(media / name)), OutputPoints.labels_only())["label"]
        for window, scores in enumerate(answer.softmax(-1)):
            best = scores.topk(3)
            kept = [(LABELS[i], score) for score, i in zip(*best, strict=True) if score >= 0.2]
            expected.append((name, window, kept))
    assert table["frames"].to_pylist() == [16, 16, 5, 16, 4]
    for row, (name, window, kept) in zip(table.to_pylist(), expected, strict=True):
        assert (Path(row["uri"]).name, row["window"]) == (name, window)
        assert row["labels"] == [label for label, _ in kept]
        np.testing.assert_allclose(row["scores"], [float(score) for _, score in kept], rtol=1e-4)
    with (tmp_path / "out/labels.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == [
        "uri", "member", "window", "label_1", "score_1", "label_2", "score_2", "label_3", "score_3",
    ]  # fmt: skip
    assert len(lines) == 6
    for line, row in zip(lines[1:], table.to_pylist(), strict=True):
        assert line[:3] == [row["uri"], "", str(row["window"])]
        assert [label for label in line[3::2] if label] == row["labels"]
        np.testing.assert_allclose([float(score) for score in line[4::2] if score], row["scores"], rtol=1e-5)
    assert not list((tmp_path / "out/runs").glob("*/contact-sheet.png"))


def test_image_classification(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0)
    for n in range(3):
        pixels = noise.integers(0, 256, (40 + n, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(images / f"{n}.jpg")
    (images / "bad.png").write_bytes(b"\x89PNG")
    checkpoint = save_class(FOURIER, tmp_path / "tiny")
    table = ran(tmp_path, images, checkpoint, "image-classification", 3, top_k=2)
    model, processor = load(checkpoint), PerceiverImageProcessor()
    assert table["height"].to_pylist() == [40, 41, 42]
    for n, row in enumerate(table.to_pylist()):
        with PIL.Image.open(images / f"{n}.jpg") as image, torch.inference_mode():
            logits = model(processor(image, return_tensors="pt").pixel_values).logits[0]
        scores, labels = logits.softmax(-1).topk(2)
        assert row["labels"] == [LABELS[i] for i in labels]
        np.testing.assert_allclose(row["scores"], scores.numpy(), rtol=1e-4)
    [bad] = reader.quarantine(str(tmp_path / "out")).to_pylist()
    assert (bad["stage"], bad["error"], Path(bad["uri"]).name) == ("decode", "MediaError", "bad.png")
    assert not (tmp_path / "out/labels.csv").exists()
    PerceiverImageProcessor(image_mean=0.5).save_pretrained(checkpoint)
    done = perceive("run", tmp_path / "job.yaml")
    assert done.returncode == 2
    assert (
        "model.checkpoint: the checkpoint's preprocessor_config.json asks for image_mean 0.5" in done.stderr
    )


@pytest.fixture(scope="module")
def encoded(media: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the task latents."""
    folder = tmp_path_factory.mktemp("latents")
    ran(folder, media, checkpoint, "latents", 3)
    return folder / "out"


def encode(media: Path, model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model.encode(windows_of(media / name)) for name in ("one.mp4", "two.webm")])


def test_latents(encoded: Path, media: Path, checkpoint: Path) -> None:
    table = reader.dataset(str(encoded)).to_table()
    expected = encode(media, load(checkpoint))
    np.testing.assert_allclose(reader.to_numpy(table, "latents"), expected.numpy(), atol=1e-5)


def test_decode(encoded: Path, media: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A row of the table that latents wrote is an item."""
    points = {"region": [2, 4, 6, 8], "frames": [3, 4]}
    job = write_job(
        tmp_path,
        media,
        checkpoint,
        task="decode",
        input={"uri": str(encoded / "data"), "keep": ["window"]},
        options={"top_k": 2, "points": points},
    )
    done = perceive("run", job)
    assert done.returncode == 0, done.stderr
    table = reader.dataset(str(tmp_path / "out")).to_table()
    assert table["window"].to_pylist() == [0, 1, 2, 0, 1]
    model = load(checkpoint)
    with torch.inference_mode():
        answer = model.decode(encode(media, model), OutputPoints.region(model.config, 2, 4, 6, 8, [3, 4]))
    pixels = (answer["image"].clamp(0, 1) * 255).unflatten(1, (2, 6, 8)).numpy()
    assert np.abs(reader.to_numpy(table, "video") - pixels).max() < 0.51
    np.testing.assert_allclose(reader.to_numpy(table, "audio"), answer["audio"].numpy(), atol=1e-4)
    assert reader.to_numpy(table, "audio_indices").shape == (5, answer["audio"].shape[1] // 16)
    expected = answer["label"].argmax(-1)
    assert [labels[0] for labels in table["labels"].to_pylist()] == [LABELS[i] for i in expected]


def test_overlapped_and_letterboxed_mp4s(media: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Frames once each, in the source's aspect; and the same job again has nothing left to do."""
    options: dict[str, Any] = {"top_k": 2, "video": "both", "overlap": 8, "fit": "letterbox"}
    table = ran(tmp_path, media, checkpoint, "multimodal-autoencoding", 3, **options)
    assert table["window"].to_pylist() == [0, 1, 2, 3, 0, 1]  # 37 and 20 frames, at every eighth
    assert table["picture_height"].to_pylist() == [18] * 6
    video = reader.to_numpy(table, "video")
    np.testing.assert_array_equal(video[:3, 8:], video[1:4, :8])
    with av.open(str(tmp_path / "out" / table["mp4"][0].as_py())) as made:
        frames = [frame.to_ndarray(format="rgb24") for frame in made.decode(video=0)]
        assert len(frames) == 37
        assert frames[0].shape == (18, 32, 3)
        seconds = Fraction(made.streams.audio[0].duration or 0) * made.streams.audio[0].time_base
        assert abs(seconds - Fraction(37, 25)) < Fraction(1, 20)
    done = perceive("run", tmp_path / "job.yaml", "--json")
    assert done.returncode == 3, done.stdout
    assert json.loads(done.stdout)["windows_now"] == 0
