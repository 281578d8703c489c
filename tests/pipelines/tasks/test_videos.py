"""The tasks of the multimodal model that are cheaper than all of it: labels, chosen points, overlap, letterbox."""

from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_core.checkpoint import inspect, load
from perceiver_core.output_points import OutputPoints
from pipelines.contents import VIDEO
from pipelines.media.info import probe
from pipelines.media.windows import WindowShape, read_windows
from pipelines.points import Points
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from pipelines.tasks.video_classification import VideoClassification
from tests.clips import write_clip
from tests.conftest import LABELS
from tests.pipelines.tasks.staging import Rows, rows_of


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "long.mp4", frames=41, size=(64, 48), audio_codec="aac")
    write_clip(folder / "mute.mkv", frames=9, size=(48, 64))
    return folder


def autoencoded(checkpoint: Path, media: Path, shard_windows: int = 64, **options: object) -> Rows:
    task = MultimodalAutoencoding(top_k=2, **options)  # type: ignore[arg-type]
    return rows_of(task, checkpoint, media, VIDEO, shard_windows=shard_windows, chunk=4000)


@pytest.fixture(scope="module")
def whole(checkpoint: Path, media: Path) -> Rows:
    return autoencoded(checkpoint, media)


def test_classification_is_one_query(checkpoint: Path, media: Path, whole: Rows) -> None:
    task = VideoClassification(top_k=2)
    assert task.chunk(inspect(checkpoint).config, 4, 1 << 29) == 1
    rows = rows_of(task, checkpoint, media, VIDEO)
    assert rows.schema.names == ["window", "start_time", "frames", "samples", "labels", "scores"]
    for name in rows.schema.names[:-1]:
        assert rows[name] == whole[name]
    np.testing.assert_allclose(rows["scores"], whole["scores"], rtol=1e-5)


@pytest.mark.parametrize(
    ("points", "of"),
    [
        (Points(grid=4), lambda config: OutputPoints.grid(config, 4)),
        (Points(frames=(0, 9)), lambda config: OutputPoints.frames(config, [0, 9])),
        (Points(random=50, seed=1), lambda config: OutputPoints.random(config, 50, 1)),
    ],
)
def test_chosen_points_are_those_of_the_whole(
    points: Points, of: object, checkpoint: Path, media: Path, whole: Rows
) -> None:
    rows = autoencoded(checkpoint, media, points=points)
    chosen = of(inspect(checkpoint).config)  # type: ignore[operator]
    pixels = whole.tensor("video").reshape(4, -1, 3)[:, chosen.image.numpy()].astype(int)
    found = rows.tensor("video").astype(int)
    assert np.abs(found.reshape(pixels.shape) - pixels).max() <= 1  # calls of another size
    sound = whole.tensor("audio").reshape(3, -1, 16)[:, chosen.audio.numpy()].reshape(3, -1)
    np.testing.assert_allclose(rows.tensor("audio"), sound, atol=1e-5)
    assert rows["audio"][3] is None  # the one without sound
    if chosen.image_shape is None:
        assert (rows.tensor("video_indices") == chosen.image.numpy()).all()
    else:
        assert found.shape == (4, *chosen.image_shape, 3)
    if len(chosen.audio) < 1920:
        assert (rows.tensor("audio_indices") == chosen.audio.numpy()).all()
    assert not {"video_psnr", "audio_psnr"} & {*rows.schema.names}
    assert rows["labels"] == whole["labels"]


def test_only_what_is_asked_for(checkpoint: Path, media: Path, whole: Rows) -> None:
    sound = autoencoded(checkpoint, media, outputs=("audio",))
    window = ["window", "start_time", "frames", "samples"]
    assert sound.schema.names == [*window, "audio", "audio_psnr"]
    np.testing.assert_allclose(sound.tensor("audio"), whole.tensor("audio"), atol=1e-5)
    np.testing.assert_allclose(sound["audio_psnr"][:3], whole["audio_psnr"][:3], rtol=1e-4)
    labels = MultimodalAutoencoding(top_k=2, outputs=("labels",))
    assert (labels.staged, labels.format, labels.reconstructs) == (True, "parquet", False)
    assert labels.preview == ("window", "start_time", "frames", "labels")
    assert labels.output_schema(inspect(checkpoint).config).names == [*window, "labels", "scores"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"video": "mp4", "points": Points(grid=2)},
            "video: mp4 needs points: all, and video and audio among",
        ),
        ({"video": "both", "outputs": ("video", "labels")}, "video: both needs points: all"),
        ({"overlap": 4, "points": Points(grid=2)}, "overlap blends whole windows: it needs points: all"),
        (
            {"outputs": ()},
            "outputs must name each of video, audio, labels at most once, and at least one; got",
        ),
        ({"outputs": ("audio", "audio")}, "outputs must name each"),
    ],
)
def test_what_does_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultimodalAutoencoding(**options)  # type: ignore[arg-type]


def test_what_does_not_fit_the_checkpoint(checkpoint: Path) -> None:
    config = inspect(checkpoint).config
    with pytest.raises(ValueError, match="expected an overlap of 0 to 8 frames, half of a window; got 9"):
        MultimodalAutoencoding(top_k=2, overlap=9).check(config)
    with pytest.raises(ValueError, match="frames must be a whole number, from 0 to 15; got 16"):
        MultimodalAutoencoding(top_k=2, points=Points(frames=(16,))).check(config)
    MultimodalAutoencoding(top_k=9, outputs=("audio",)).check(config)  # nobody asks for labels


def test_overlapped_rows_do_not_depend_on_shards(checkpoint: Path, media: Path) -> None:
    rows = autoencoded(checkpoint, media, overlap=6)
    assert rows["window"] == [0, 1, 2, 3, 0]  # 41 frames at 0, 10, 20 and 30
    assert rows["start_time"] == [0, 0.4, 0.8, 1.2, 0]
    assert rows["frames"] == [16, 16, 16, 11, 9]
    said = [name for name in rows.table.column_names if name not in ("shard", "first", "stop")]
    for shard_windows in (1, 2, 3):
        again = autoencoded(checkpoint, media, shard_windows, overlap=6)
        assert rows.table.select(said).equals(again.table.select(said))


def test_overlapped_rows_are_blends_of_the_models_answers(checkpoint: Path, media: Path) -> None:
    rows = autoencoded(checkpoint, media, overlap=6)
    model, shape = load(checkpoint), WindowShape(height=24, width=32, overlap=6)
    with (media / "long.mp4").open("rb") as file:
        windows = list(read_windows(file, probe(file), shape, 0, 4))
    given = {
        "image": torch.stack([torch.from_numpy(w.video) for w in windows]).permute(0, 1, 4, 2, 3) / 255,
        "audio": torch.stack([torch.from_numpy(w.audio) for w in windows])[..., None],
    }
    with torch.inference_mode():
        answer = model.decode(model.encode(given), OutputPoints.all(model.config))
    own = (answer["image"].clamp(0, 1) * 255).unflatten(1, (16, 24, 32)).numpy()  # 4, 16, 24, 32, 3
    video, sound = rows.tensor("video").astype(float), answer["audio"].numpy()
    assert np.abs(video[:4, 6:10] - own[:, 6:10]).max() < 0.51
    later = np.arange(1, 7).reshape(6, 1, 1, 1) / 7
    for n in range(3):
        mixed = (1 - later) * own[n, 10:] + later * own[n + 1, :6]
        assert np.abs(video[n, 10:] - mixed).max() < 1.01  # rounded before and after
        np.testing.assert_array_equal(video[n, 10:], video[n + 1, :6])
        weight = np.arange(1, 6 * 1920 + 1) / (6 * 1920 + 1)
        heard = (1 - weight) * sound[n, -6 * 1920 :] + weight * sound[n + 1, : 6 * 1920]
        np.testing.assert_allclose(rows.tensor("audio")[n, -6 * 1920 :], heard, atol=1e-4)
    for n, window in enumerate(windows):
        error = (video[n] - window.video)[: window.frames] / 255
        assert rows["video_psnr"][n] == pytest.approx(-10 * np.log10(np.mean(error**2)), rel=1e-4)
        noise = (rows.tensor("audio")[n] - window.audio)[: window.samples].astype(float)
        assert rows["audio_psnr"][n] == pytest.approx(-10 * np.log10(np.mean(noise**2)), rel=1e-4)


def test_letterboxed_windows_say_where_their_picture_is(checkpoint: Path, media: Path) -> None:
    rows = autoencoded(checkpoint, media, fit="letterbox")
    box = [rows[f"picture_{side}"] for side in ("top", "left", "height", "width")]
    # 64 x 48 fills 32 x 24 exactly; 48 x 64, upright, is 18 wide in it
    assert list(zip(*box, strict=True)) == [(0, 0, 24, 32)] * 3 + [(0, 7, 24, 18)]
    shape = WindowShape(height=24, width=32)
    with (media / "mute.mkv").open("rb") as file:
        [window] = read_windows(file, probe(file), shape, 0, 1, fit="letterbox")
    assert not window.video[:, :, :7].any()
    assert not window.video[:, :, 25:].any()
    assert window.video[:, :, 7:25].any(axis=(1, 2, 3)).all()
    error = (rows.tensor("video")[3].astype(float) - window.video)[:9, :, 7:25] / 255
    assert rows["video_psnr"][3] == pytest.approx(-10 * np.log10(np.mean(error**2)), rel=1e-4)


def test_labels_by_name(checkpoint: Path, media: Path) -> None:
    rows = rows_of(VideoClassification(top_k=4), checkpoint, media, VIDEO)
    assert all(sorted(labels) == LABELS for labels in rows["labels"])
    np.testing.assert_allclose(np.sum(rows["scores"], axis=1), 1, rtol=1e-5)
