"""latents of every modality, and decode of them: the same answers as at once."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from perceiver_core.checkpoint import inspect, load
from pipelines.contents import IMAGE, LATENTS, TEXT, VIDEO
from pipelines.points import Points
from pipelines.tasks.decode import Decode, LatentsError, read_latents
from pipelines.tasks.image_classification import ImageClassification
from pipelines.tasks.latents import Latents
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import write_clip
from tests.pipelines.tasks.staging import Rows, rows_of
from tests.pipelines.tasks.tiny import FLOW, LEARNED, MASKED, TEXTS, save_class


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def stored(rows: Rows, folder: Path) -> Path:
    """The rows' latents as .npy files."""
    folder.mkdir()
    for n, latents in enumerate(rows.tensor("latents")):
        np.save(folder / f"{n}.npy", latents)
    return folder


def test_videos_there_and_back(checkpoint: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    write_clip(media / "one.mp4", frames=20, audio_codec="aac")
    rows = rows_of(Latents(), checkpoint, media, VIDEO)
    assert rows.schema.names == ["window", "start_time", "frames", "samples", "latents"]
    assert rows.tensor("latents").shape == (2, 8, 16)
    half = rows_of(Latents(dtype="float16"), checkpoint, media, VIDEO)
    np.testing.assert_array_equal(half.tensor("latents"), rows.tensor("latents").astype(np.float16))
    folder = stored(rows, tmp_path / "latents")
    at_once = rows_of(MultimodalAutoencoding(top_k=2), checkpoint, media, VIDEO, chunk=4000)
    decoded = rows_of(Decode(top_k=2), checkpoint, folder, LATENTS, chunk=4000)
    assert decoded.schema.names == ["video", "audio", "labels", "scores"]
    for name in ("video", "audio"):
        np.testing.assert_array_equal(decoded.tensor(name), at_once.tensor(name))
    assert decoded["labels"] == at_once["labels"]
    sparse = rows_of(
        Decode(points=Points(random=9), outputs=("video",)), checkpoint, folder, LATENTS, chunk=9
    )
    places = sparse.tensor("video_indices")
    assert places.shape == (2, 9)
    expected = at_once.tensor("video").reshape(2, -1, 3)[:, places[0]].astype(int)
    assert np.abs(sparse.tensor("video") - expected).max() <= 1
    overlapped = rows_of(Latents(overlap=8), checkpoint, media, VIDEO)
    assert overlapped["start_time"] == [0, 8 / 25]
    assert overlapped["frames"] == [16, 12]


def test_images_there_and_back(tmp_path: Path) -> None:
    checkpoint = save_class(LEARNED, tmp_path / "tiny")
    media = tmp_path / "media"
    media.mkdir()
    for n in range(3):
        noise = np.random.default_rng(n).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(media / f"{n}.png")
    rows = rows_of(Latents(), checkpoint, media, IMAGE)
    assert rows.schema.names == ["height", "width", "latents"]
    at_once = rows_of(ImageClassification(top_k=4), checkpoint, media, IMAGE)
    decoded = rows_of(Decode(top_k=4), checkpoint, stored(rows, tmp_path / "latents"), LATENTS)
    assert decoded.schema.names == ["labels", "scores"]
    assert decoded["labels"] == at_once["labels"]
    assert decoded["scores"] == at_once["scores"]


@pytest.mark.parametrize("architecture", [MASKED, TEXTS])
def test_texts_there_and_back(architecture: str, tmp_path: Path) -> None:
    checkpoint = save_class(architecture, tmp_path / "tiny")
    media = tmp_path / "media"
    media.mkdir()
    (media / "long.txt").write_text("a text of more than 22 bytes")
    (media / "short.txt").write_text("short")
    rows = rows_of(Latents(), checkpoint, media, TEXT)
    assert rows["window"] == [0, 1, 0]
    assert rows["start"][0] == rows["start"][2] == 0
    assert rows["end"] == [22, 28, 5]
    model = load(checkpoint)
    ids = torch.tensor([[4, *(byte + 6 for byte in b"short"), 5]])
    with torch.inference_mode():
        latents = model.encode(ids)
        np.testing.assert_allclose(rows.tensor("latents")[2], latents[0].numpy(), atol=1e-5)
        folder = stored(rows, tmp_path / "latents")
        if architecture == TEXTS:
            decoded = rows_of(Decode(top_k=4), checkpoint, folder, LATENTS)
            np.testing.assert_allclose(
                decoded["scores"][2],
                model.decode(latents)[0].softmax(-1).sort(descending=True).values,
                rtol=1e-4,
            )
            return
        decoded = rows_of(Decode(top_k=3, positions=(1, 5)), checkpoint, folder, LATENTS)
        expected = model.decode(latents, torch.tensor([1, 5]))[0].softmax(-1).topk(3)
    assert decoded.tensor("positions").tolist() == [[1, 5]] * 3
    np.testing.assert_array_equal(decoded.tensor("tokens")[2], expected.indices)
    np.testing.assert_allclose(decoded.tensor("scores")[2], expected.values, rtol=1e-4)
    every = rows_of(Decode(top_k=1), checkpoint, folder, LATENTS)
    assert every.tensor("tokens").shape == (3, 24, 1)
    np.testing.assert_array_equal(every.tensor("tokens")[:, [1, 5]], decoded.tensor("tokens")[:, :, :1])


def test_bad_latents_are_named(checkpoint: Path, tmp_path: Path) -> None:
    bad = {
        "0": np.zeros((8, 15), np.float32),
        "1": np.zeros((8, 16), np.int32),
        "2": np.full((8, 16), np.nan, np.float32),
        "4": np.zeros((8, 16), object),
    }
    for name, array in bad.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "3.npy").write_bytes(b"no tensor")
    good = io.BytesIO()
    np.save(good, np.asfortranarray(np.arange(128).reshape(8, 16).astype(np.float64)))
    (tmp_path / "5.npy").write_bytes(good.getvalue()[:-1])
    giant = good.getvalue().replace(b"(8, 16)", b"(1<<40)")
    (tmp_path / "6.npy").write_bytes(giant)
    rows = rows_of(Decode(outputs=("labels",), top_k=2), checkpoint, tmp_path, LATENTS)
    assert rows.table.num_rows == 0
    assert [error.kind for error in rows.failed] == ["LatentsError"] * 7
    says = [error.message for error in rows.failed]
    assert says[0] == (
        "expected latents of shape (8, 16), floating point; got (8, 15) of float32; give those that this "
        "checkpoint made"
    )
    assert "got (8, 16) of int32" in says[1]
    assert "expected finite latents" in says[2]
    assert "expected latents as an .npy file; got none" in says[3]
    assert "got (8, 16) of object" in says[4]
    assert says[5] == "truncated: expected 1024 bytes of latents; got 1023; fetch the file again"
    good.seek(0)
    np.testing.assert_array_equal(read_latents(good, (8, 16)), np.arange(128).reshape(8, 16))
    with pytest.raises(LatentsError):
        read_latents(io.BytesIO(b""), (8, 16))


def test_options_of_other_checkpoints_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    flow = inspect(save_class(FLOW, tmp_path / "flow", train_size=(8, 8))).config
    with pytest.raises(ValueError, match="Optical flow can't be decoded from latents alone"):
        Decode().check(flow)
    images = inspect(save_class(LEARNED, tmp_path / "images")).config
    with pytest.raises(
        ValueError, match="points and outputs are of PerceiverForMultimodalAutoencoding; got a Perc"
    ):
        Decode(points=Points(grid=2), top_k=2).check(images)
    with pytest.raises(ValueError, match="positions are of PerceiverForMaskedLM"):
        Decode(positions=(1,), top_k=2).check(images)
    with pytest.raises(
        ValueError, match="overlap is of videos and texts; PerceiverForImageClassificationLearned"
    ):
        Latents(overlap=2).check(images)
    with pytest.raises(ValueError, match="top_k is 5, but the checkpoint has 4 labels"):
        Decode().check(images)
    texts = inspect(save_class(MASKED, tmp_path / "texts")).config
    with pytest.raises(ValueError, match=r"positions must be from 0 to 23, and at least one; got \[24\]"):
        Decode(positions=(24,)).check(texts)
    assert Latents().contents_for(texts) == ((TEXT,),)
    assert Latents().contents_for(images) == ((IMAGE,),)
    assert Latents().contents_for(inspect(checkpoint).config) == ((VIDEO,),)
