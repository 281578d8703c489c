"""Videos reconstructed in tiles: every pixel of the source, the same rows from any shard, whole frames in the MP4."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from perceiver_core.checkpoint import inspect, load
from perceiver_core.output_points import OutputPoints
from pipelines import reader
from pipelines.contact_sheet import write_contact_sheet
from pipelines.contents import VIDEO
from pipelines.describing import meaning
from pipelines.media.info import probe
from pipelines.media.windows import Window, WindowShape, read_windows
from pipelines.plan import shards
from pipelines.points import Points
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import write_clip
from tests.pipelines.committing import ended
from tests.pipelines.copying import CopyingRun
from tests.pipelines.tasks.staging import Rows, rows_of

CORNERS = [
    (0, 0),
    (0, 26),
    (0, 38),
    (18, 0),
    (18, 26),
    (18, 38),
]  # of 24 x 32 in 42 x 70, with 6 shared at least
WHERE = ["tile_top", "tile_left", "frame_height", "frame_width"]
BOX = ["picture_top", "picture_left", "picture_height", "picture_width"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip in two windows of six tiles, and one smaller than a tile, upright and without sound."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "large.mp4", frames=21, size=(70, 42), audio_codec="aac")
    write_clip(folder / "small.mkv", frames=9, size=(14, 20))
    return folder


def whole_frames(path: Path, height: int, width: int) -> list[Window]:
    """The clip's windows as they are, and not as the model takes them."""
    with path.open("rb") as file:
        info = probe(file)
        count = -(-info.frames // 16)
        shape = WindowShape(height=height, width=width)
        return list(read_windows(file, info, shape, 0, count, fit="letterbox"))


def tiled(checkpoint: Path, media: Path, shard_windows: int = 64) -> Rows:
    task = MultimodalAutoencoding(top_k=2, fit="tile", tile_overlap=6)
    return rows_of(task, checkpoint, media, VIDEO, shard_windows=shard_windows, chunk=4000)


@pytest.fixture(scope="module")
def rows(checkpoint: Path, media: Path) -> Rows:
    return tiled(checkpoint, media)


def test_a_row_is_a_time_and_a_tile(rows: Rows) -> None:
    assert not rows.failed
    assert rows["window"] == [*range(12), 0]
    assert rows["start_time"] == [0] * 6 + [0.64] * 6 + [0]
    assert rows["frames"] == [16] * 6 + [5] * 6 + [9]
    places = list(zip(*(rows[name] for name in WHERE), strict=True))
    assert places == [(*corner, 42, 70) for corner in CORNERS * 2] + [(0, 0, 20, 14)]
    boxes = list(zip(*(rows[name] for name in BOX), strict=True))
    assert boxes == [(0, 0, 24, 32)] * 12 + [(2, 9, 20, 14)]
    sounding = [row in (0, 6) for row in range(13)]  # the first tile of each time, where there is sound
    assert [value is not None for value in rows["audio"]] == sounding
    assert [value is not None for value in rows["audio_psnr"]] == sounding
    assert all(len(labels) == 2 for labels in rows["labels"])


def test_tiles_are_the_models_answers(checkpoint: Path, media: Path, rows: Rows) -> None:
    model = load(checkpoint)
    given, sound, real = [], [], []
    for window in whole_frames(media / "large.mp4", 42, 70):
        given += [window.video[:, top : top + 24, left : left + 32] for top, left in CORNERS]
        sound += [window.audio] * 6
        real += [window.frames] * 6
    [small] = whole_frames(media / "small.mkv", 20, 14)
    given.append(np.pad(small.video, ((0, 0), (2, 2), (9, 9), (0, 0)), mode="edge"))
    sound.append(small.audio)
    video = torch.from_numpy(np.stack(given))  # 13, 16, 24, 32, 3
    with torch.inference_mode():
        latents = model.encode(
            {
                "image": video.permute(0, 1, 4, 2, 3) / 255,
                "audio": torch.from_numpy(np.stack(sound))[..., None],
            }
        )
        answer = model.decode(latents, OutputPoints.all(model.config))
    own = (answer["image"].clamp(0, 1) * 255).unflatten(1, (16, 24, 32)).numpy()
    assert np.abs(rows.tensor("video") - own).max() < 0.51
    np.testing.assert_allclose(rows.tensor("audio"), answer["audio"][[0, 6]].numpy(), atol=1e-5)
    errors = ((rows.tensor("video").astype(float) - video.numpy()) / 255) ** 2
    for row in range(12):
        psnr = -10 * np.log10(errors[row, : real[row]].mean())
        assert rows["video_psnr"][row] == pytest.approx(psnr, rel=1e-4)
    psnr = -10 * np.log10(errors[12, :9, 2:22, 9:23].mean())  # what is repeated around it does not count
    assert rows["video_psnr"][12] == pytest.approx(psnr, rel=1e-4)


@pytest.mark.parametrize("shard_windows", [1, 4])
def test_rows_do_not_depend_on_shards(checkpoint: Path, media: Path, rows: Rows, shard_windows: int) -> None:
    again = tiled(checkpoint, media, shard_windows)
    said = [name for name in rows.table.column_names if name not in ("shard", "first", "stop")]
    assert rows.table.select(said).equals(again.table.select(said))


def test_an_mp4_has_the_sources_frames(media: Path, tmp_path: Path) -> None:
    run = CopyingRun.over(media, tmp_path, "mp4", shard_windows=5, fit="tile", tile_overlap=6)
    # A shard begins in the middle of a time's tiles.
    assert [table["stop"].to_pylist()[0] for table in shards(run.plan).values()] == [5, 10, 12, 1]
    run.commit()
    ended(run.plan, run.sink, run.task, "parquet")
    assert write_contact_sheet(run.plan, run.sink, run.task, run.config, run.source, run.decoder)
    for name, frames, (height, width) in (("large.mp4", 21, (42, 70)), ("small.mkv", 9, (20, 14))):
        [path] = (tmp_path / "video").glob(f"{name.split('.')[0]}*")
        with av.open(str(path)) as file:
            shown = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
            sounding = bool(file.streams.audio)
        windows = whole_frames(media / name, height, width)
        expected = np.concatenate([window.video[: window.frames] for window in windows])
        assert shown.shape == expected.shape == (frames, height, width, 3)
        error = (shown.astype(float) - expected) / 255
        assert -10 * np.log10((error**2).mean()) > 25  # colours at half size, crf 18
        assert sounding == (name == "large.mp4")
        if sounding:
            with av.open(str(path)) as file:
                heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
            sound = np.concatenate([window.audio for window in windows])[: 21 * 1920]
            assert np.corrcoef(heard[: len(sound)], sound)[0, 1] > 0.9
    table = reader.dataset(str(tmp_path)).to_table()
    assert table["tile_left"].to_pylist() == [left for _, left in CORNERS] * 2 + [0]
    assert "video" not in table.schema.names


def test_columns_say_what_tiles_are(checkpoint: Path) -> None:
    schema = MultimodalAutoencoding(fit="tile").output_schema(inspect(checkpoint).config)
    assert schema.names[4:12] == [*WHERE, *BOX]
    assert all(meaning(field) for field in schema)
    assert meaning(schema.field("window")).endswith("all tiles of a time, in rows, then the next time's")
    assert meaning(schema.field("audio")).endswith(
        "null in all tiles of a time but the first, the one at 0, 0"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 4}, "its tiles share pixels, as many as tile_overlap says. Leave overlap out"),
        ({"outputs": ("audio",)}, "fit: tile cuts pictures, and sound has none: it needs video or labels"),
        ({"video": "mp4", "points": Points(grid=2)}, "video: mp4 needs points: all"),
    ],
)
def test_what_does_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultimodalAutoencoding(fit="tile", **options)  # type: ignore[arg-type]


def test_tiles_share_less_than_their_side(checkpoint: Path) -> None:
    config = inspect(checkpoint).config
    MultimodalAutoencoding(top_k=2, fit="tile", tile_overlap=23).check(config)
    MultimodalAutoencoding(top_k=2, tile_overlap=24).check(config)  # nobody asks for tiles
    for overlap in (-1, 24):
        with pytest.raises(
            ValueError, match=rf"tile_overlap must be from 0 to 23, .* 24 x 32; got {overlap}\."
        ):
            MultimodalAutoencoding(top_k=2, fit="tile", tile_overlap=overlap).check(config)
