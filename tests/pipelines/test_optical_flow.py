"""optical-flow: which frames are a pair, what their flow is, and the files that are made of it."""

import dataclasses
import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from perceiver_core import PerceiverConfig, estimate_flow
from perceiver_core.checkpoint import load
from pipelines.contents import VIDEO
from pipelines.decoding import Decoder
from pipelines.flows import in_colour
from pipelines.items import Item
from pipelines.limits import Limits
from pipelines.media.resize import resize
from pipelines.meter import Meter
from pipelines.plan import cut_shards, list_and_probe, shards
from pipelines.sink import Sink, write_part
from pipelines.sources import Opened
from pipelines.sources.choose import choose
from pipelines.sources.files import Files
from pipelines.stages import Decode, ModelPlan, Predict
from pipelines.storage import OutputError
from pipelines.tasks.optical_flow import OpticalFlow
from tests.clips import write_clip
from tests.pipelines.committing import ended, prepared
from tests.pipelines.copying import SilentMeter
from tests.pipelines.staging import save_head, stages


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("checkpoint") / "flow", "PerceiverForOpticalFlow")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of several sizes: as a tile (24 x 32), smaller, larger in one direction and in both."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "tile.mp4", frames=5, size=(32, 24))
    write_clip(folder / "small.mkv", frames=4, size=(20, 16), fps=Fraction(30_000, 1001))
    write_clip(folder / "wide.mp4", frames=6, size=(50, 24), bframes=2)
    write_clip(folder / "large.webm", frames=3, size=(40, 34), codec="libvpx-vp9")
    write_clip(folder / "short.mp4", frames=1)
    (folder / "text.mp4").write_text("not a video")
    return folder


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def flow_of(checkpoint: Path, one: np.ndarray, other: np.ndarray, **options: Any) -> np.ndarray:
    """perceiver_core's answer, from the plain model."""
    pair = torch.from_numpy(np.stack([one, other])).permute(0, 3, 1, 2)[None]  # 1, 2, 3, H, W
    return estimate_flow(load(checkpoint), pair, **options)[0].numpy()


def flows(rows: pa.Table) -> list[np.ndarray]:
    """The flow of each row of a block, whose schema has no shapes."""
    shapes = zip(rows["height"].to_pylist(), rows["width"].to_pylist(), strict=True)
    return [
        flow.values.to_numpy().reshape(*shape, 2) for flow, shape in zip(rows["flow"], shapes, strict=True)
    ]


@pytest.mark.parametrize("fold", [True, False])
def test_every_pair_is_the_models_answer(checkpoint: Path, media: Path, fold: bool) -> None:
    task = OpticalFlow(overlap=6)
    rows, errors = stages(task, checkpoint, Files((str(media),), VIDEO), fold=fold, batch=4)
    at = 0
    for path in sorted(path for path in media.iterdir() if path.stem not in ("short", "text")):
        frames = frames_of(path)
        for pair, (one, other) in enumerate(itertools.pairwise(frames)):
            row = rows.slice(at, 1)
            assert Path(row["uri"][0].as_py()) == path
            assert row["window"][0].as_py() == pair
            rate = 30_000 / 1001 if path.stem == "small" else 25
            assert row["start_time"][0].as_py() == pytest.approx(pair / rate, abs=0.0006)
            expected = flow_of(checkpoint, one, other, min_overlap=6)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(flows(row)[0], expected, atol=1e-4 * scale)
            assert scale > 0.01
            at += 1
    assert at == rows.num_rows == 4 + 3 + 5 + 2
    assert errors.keys() == {"short.mp4", "text.mp4"}
    assert errors["short.mp4"].message == (
        "expected a video of 2 frames or more, for a pair of stride 1; got 1; leave it out of the input"
    )
    assert (errors["short.mp4"].stage, errors["short.mp4"].kind) == ("probe", "MediaError")


@pytest.mark.parametrize(
    ("stride", "every", "pairs"),
    [
        (1, 1, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        (2, 3, [(0, 2), (3, 5)]),
        (3, 1, [(0, 3), (1, 4), (2, 5)]),
        (5, 2, [(0, 5)]),
        (1, 4, [(0, 1), (4, 5)]),
    ],
)
def test_stride_and_every(media: Path, stride: int, every: int, pairs: list[tuple[int, int]]) -> None:
    task, config = OpticalFlow(stride=stride, every=every), PerceiverConfig(train_size=(24, 32))
    frames = frames_of(media / "wide.mp4")
    with (media / "wide.mp4").open("rb") as file:
        count, info = task.probe({"video": file}, config, Limits())
        assert count == len(pairs)
        whole = list(task.preprocess({"video": file}, info, 0, count, config, Limits()))
        for number, window in enumerate(whole):
            assert window["window"] == number
            assert window["start_time"] == pytest.approx(pairs[number][0] / 25)
            expected = np.stack([frames[at] for at in pairs[number]])
            assert np.array_equal(window["frames"], expected.reshape(-1))
            [alone] = task.preprocess({"video": file}, info, number, number + 1, config, Limits())
            assert alone["start_time"] == window["start_time"]
            assert np.array_equal(alone["frames"], window["frames"])


def test_fit_resize_scales_the_flow_back(checkpoint: Path, media: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/wide.mp4").write_bytes((media / "wide.mp4").read_bytes())
    rows, errors = stages(
        OpticalFlow(fit="resize", every=3), checkpoint, Files((str(tmp_path / "in"),), VIDEO)
    )
    assert not errors
    frames = frames_of(media / "wide.mp4")
    for at, flow in zip((0, 3), flows(rows), strict=True):
        small = flow_of(checkpoint, *(resize(frame, 24, 32) for frame in frames[at : at + 2]))
        large = interpolate(torch.from_numpy(small).permute(2, 0, 1)[None], (24, 50), mode="bilinear")[0]
        expected = large.permute(1, 2, 0).numpy() * [50 / 32, 24 / 24]
        np.testing.assert_allclose(flow, expected, atol=1e-4 * np.abs(expected).max())


def test_shards_hold_pairs_by_their_bytes(media: Path) -> None:
    task, config = OpticalFlow(), PerceiverConfig(train_size=(24, 32))
    source = Files((str(media / "wide.mp4"),), VIDEO)
    probed = list(list_and_probe(source, [Decoder(task, config, Limits())]))
    pair = 24 * 50 * (6 + 8)
    assert json.loads(probed[0].info or "")["window_bytes"] == pair

    def spans(shard_bytes: int | None) -> list[tuple[int, int]]:
        plan = cut_shards(probed, 64, shard_bytes)
        return list(zip(plan["first"].to_pylist(), plan["stop"].to_pylist(), strict=True))

    assert spans(None) == spans(64 * pair) == spans(5 * pair) == [(0, 5)]
    assert spans(2 * pair) == [(0, 2), (2, 4), (4, 5)]
    assert spans(1) == [(n, n + 1) for n in range(5)]


@dataclass(frozen=True)
class Pairs:
    """Pairs of images in memory, as a table has them."""

    pairs: dict[str, tuple[bytes, bytes]]

    def items(self) -> Iterator[Item]:
        for name in self.pairs:
            yield Item(name, name, "1", 1)

    @property
    def kept(self) -> pa.Schema:
        return pa.schema([])

    def reader(self) -> "Pairs":
        return self

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        first, second = self.pairs[item["uri"]]
        yield Opened({"first": io.BytesIO(first), "second": io.BytesIO(second)}, {})

    def close(self) -> None:
        pass


def test_pairs_of_images(checkpoint: Path) -> None:
    def png(seed: int, height: int, width: int) -> tuple[np.ndarray, bytes]:
        picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png")
        return picture, buffer.getvalue()

    one, other, larger = png(0, 30, 32), png(1, 30, 32), png(2, 31, 32)
    source = Pairs(
        {"good": (one[1], other[1]), "sizes": (one[1], larger[1]), "bad": (one[1], b"no image at all")}
    )
    rows, errors = stages(OpticalFlow(), checkpoint, source)
    assert rows.select(["uri", "window", "start_time", "height", "width"]).to_pylist() == [
        {"uri": "good", "window": 0, "start_time": None, "height": 30, "width": 32}
    ]
    expected = flow_of(checkpoint, one[0], other[0])
    np.testing.assert_allclose(flows(rows)[0], expected, atol=1e-4 * np.abs(expected).max())
    assert errors["sizes"].message == (
        "expected two images of one size; got 32 x 30 and 32 x 31; resize one of them, or leave the pair out of the "
        "input"
    )
    assert errors["bad"].message.startswith("expected an image as JPEG, PNG")


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_pairs_of_a_table_or_a_tar(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    pictures = [np.random.default_rng(n).integers(0, 256, (24, 32, 3)).astype(np.uint8) for n in range(4)]
    cells = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png")
        cells.append(buffer.getvalue())
    if kind == "parquet":
        path, columns = tmp_path / "pairs.parquet", {}
        pq.write_table(pa.table({"first": cells[0::2], "second": cells[1::2]}), path)
    else:
        path, columns = tmp_path / "pairs.tar", {"first": "0.png", "second": "1.png"}
        with tarfile.open(path, "w") as tar:
            for number, cell in enumerate(cells):
                member = tarfile.TarInfo(f"pair{number // 2}.{number % 2}.png")
                member.size = len(cell)
                tar.addfile(member, io.BytesIO(cell))
    task = OpticalFlow()
    source = choose([str(path)], "auto", columns, [], task.contents, Limits())
    rows, errors = stages(task, checkpoint, source)
    assert not errors
    for flow, one, other in zip(flows(rows), pictures[0::2], pictures[1::2], strict=True):
        expected = flow_of(checkpoint, one, other)
        np.testing.assert_allclose(flow, expected, atol=1e-4 * np.abs(expected).max())


def committed_run(out: Path, media: Path, checkpoint: Path, task: OpticalFlow) -> tuple[pa.Table, Sink]:
    """A run up to its last commit."""
    torch.set_num_threads(1)
    config = load(checkpoint).config
    source = Files((str(media / "tile.mp4"), str(media / "wide.mp4"), str(media / "text.mp4")), VIDEO)
    plan = cut_shards(list_and_probe(source, [Decoder(task, config, Limits())]), 4)
    sink = Sink(
        prepared(out), "run0", 1, task.format, task.output_schema(config), json.dumps({"job": "flow"})
    )
    decode = Decode(task, config, source, Limits())
    model = ModelPlan(str(checkpoint), "float32", 2, 1)
    meter: Meter = SilentMeter()
    predict = Predict(task, model, "cpu", 1, source.kept, meter)
    for spans in shards(plan).values():
        write_part(predict(decode.shard(spans)), sink)
    return plan, sink


def test_a_png_and_a_flo_of_every_pair(
    checkpoint: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = OpticalFlow(png=True, flo=True, png_motion=8)
    plan, sink = committed_run(tmp_path, media, checkpoint, task)

    class KilledError(BaseException):
        pass

    real, linked = os.link, []

    def deadly(*arguments: Any) -> None:
        if len(linked) == 3:
            raise KilledError
        real(*arguments)
        linked.append(arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", deadly)
        with pytest.raises(KilledError):
            ended(plan, sink, task, task.format, 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "flow").iterdir()}
    assert len(before) == 3  # whole files only

    manifest = ended(plan, sink, task, task.format)
    assert (manifest.rows, manifest.quarantined) == (4 + 5, 1)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    rows = pa.concat_tables(
        [pa.ipc.open_file(path).read_all() for path in sorted((tmp_path / "data").iterdir())]
    )
    named = {*rows["png"].to_pylist(), *rows["flo"].to_pylist()}
    assert named == {f"flow/{path.name}" for path in (tmp_path / "flow").iterdir()}
    assert len(named) == 2 * 9
    for row, flow in zip(rows.select(["png", "flo"]).to_pylist(), flows(rows), strict=True):
        with Image.open(tmp_path / row["png"]) as picture:
            assert np.array_equal(np.asarray(picture), in_colour(flow, 8))
        data = (tmp_path / row["flo"]).read_bytes()
        assert np.array_equal(np.frombuffer(data[12:], "<f4").reshape(flow.shape), flow)
        assert np.frombuffer(data[4:12], "<i4").tolist() == [flow.shape[1], flow.shape[0]]


def test_a_full_disk_leaves_no_half_file(
    checkpoint: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = OpticalFlow(flo=True)
    plan, sink = committed_run(tmp_path, media, checkpoint, task)

    def full(path: Path, flow: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.flows.write_flo", full)
    with pytest.raises(
        OutputError, match=r"can't be written to: No space left.*Make room.*run the job again"
    ):
        ended(plan, sink, task, task.format, 1)
    assert list(sink.storage.names("flow")) == list(sink.storage.names("runs/tmp")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, r"stride and every must be at least 1 frame; got stride 0 and every 1\."),
        ({"stride": 65}, r"stride must be at most 64 times every.*; got stride 65 and every 1\."),
        ({"png_motion": 0.0}, r"png_motion must be more than 0 pixels; got 0\.0\."),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpticalFlow(**options)


def test_overlap_is_less_than_a_tile() -> None:
    OpticalFlow(overlap=23).check(PerceiverConfig(train_size=(24, 32)))
    with pytest.raises(ValueError, match=r"overlap must be from 0 to 23, .* tiles are 24 x 32; got 24\."):
        OpticalFlow(overlap=24).check(PerceiverConfig(train_size=(24, 32)))


def test_a_call_of_the_model_has_as_many_tiles_as_fit() -> None:
    published = dataclasses.replace(PerceiverConfig(), train_size=(368, 496))
    assert [OpticalFlow().chunk(published, 8, budget) // (368 * 496) for budget in (1, 512 << 20, 4 << 30)] == [
        1, 1, 8,
    ]  # fmt: skip
