"""Every task from every source: the same items, so the same rows, wherever they lie.

The rows of the files are checked against perceiver_core in the tests of the tasks. One Ray serves all of these runs.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import jobs.attempt
from cluster.local import Resources
from jobs.cli import main
from perceiver_core.checkpoint import inspect
from pipelines import reader
from tests.clips import write_clip
from tests.e2e.command import write_job
from tests.pipelines.tasks.tiny import CONV, FLOW, MASKED, TEXTS, save_class

VIDEOS, IMAGES, WORDS, TENSORS = "video", "image", "text", "latents"
TASKS = {
    "multimodal-autoencoding": VIDEOS,
    "video-classification": VIDEOS,
    "latents": VIDEOS,
    "optical-flow": VIDEOS,
    "image-classification": IMAGES,
    "masked-lm": WORDS,
    "text-classification": WORDS,
    "decode": TENSORS,
}
pytestmark = pytest.mark.sources
_WHERE = ["item_id", "version", "uri", "member"]


@pytest.fixture(scope="module")
def items(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of two items of each content."""
    found = {name: tmp_path_factory.mktemp(name) for name in (VIDEOS, IMAGES, WORDS, TENSORS)}
    write_clip(found[VIDEOS] / "a.mp4", frames=17, size=(36, 28), audio_codec="aac")
    write_clip(found[VIDEOS] / "b.mp4", frames=5, size=(28, 36), audio_codec=None)
    noise = np.random.default_rng(0)
    for name in "ab":
        pixels = noise.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(found[IMAGES] / f"{name}.png")
        (found[WORDS] / f"{name}.txt").write_text(f"{name} [MASK]ord, naïve")
        config = inspect(checkpoint).config
        latents = noise.standard_normal((config.num_latents, config.d_latents)).astype(np.float32)
        np.save(found[TENSORS] / f"{name}.npy", latents)
    return found


@pytest.fixture(scope="module")
def checkpoints(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny = {
        "optical-flow": save_class(FLOW, folder / "flow", train_size=(16, 24)),
        "image-classification": save_class(CONV, folder / "conv"),
        "masked-lm": save_class(MASKED, folder / "masked"),
        "text-classification": save_class(TEXTS, folder / "texts"),
    }
    return {task: tiny.get(task, checkpoint) for task in TASKS}


def parquet(content: str, folder: Path, into: Path) -> None:
    """Bytes, strings or tensors in a column of the content's name."""
    paths = sorted(folder.iterdir())
    if content == TENSORS:
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack([np.load(path) for path in paths]))
    elif content == WORDS:
        column = pa.array([path.read_text() for path in paths])
    else:
        column = pa.array([path.read_bytes() for path in paths])
    table = pa.table({content: column})
    if content == TENSORS:
        with pa.ipc.new_file(str(into / "items.arrow"), table.schema) as writer:
            writer.write(table)
    else:
        pq.write_table(table, into / "items.parquet")


def links(content: str, folder: Path, into: Path) -> None:
    """A CSV of links, or of texts."""
    with (into / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([content])
        for path in sorted(folder.iterdir()):
            (into / path.name).write_bytes(path.read_bytes())
            rows.writerow([path.read_text() if content == WORDS else path.name])


def tar(content: str, folder: Path, into: Path) -> None:
    """Samples of one member each."""
    with tarfile.open(into / "items.tar", "w") as shard:
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            member = tarfile.TarInfo(path.name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


PACKED: dict[str, tuple[Callable[[str, Path, Path], None], str]] = {
    "table": (parquet, "items.[ap]*"),
    "csv": (links, "items.csv"),
    "webdataset": (tar, "items.tar"),
}


@pytest.fixture
def perceive(ray_here: Resources, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """`perceive run`, in a Ray that is there."""

    @contextmanager
    def here(*_: object) -> Iterator[Resources]:
        yield ray_here

    monkeypatch.setattr(jobs.attempt, "local_ray", here)

    def call(job: Path) -> str:
        done = CliRunner().invoke(main, ["run", str(job), "--json"])
        assert done.exit_code == 0, done.output
        *_, result = done.stdout.splitlines()  # the raylet of so many runs has something to say, now and then
        return str(json.loads(result)["output"])

    return call


@pytest.fixture(scope="module")
def known() -> dict[str, pa.Table]:
    """Each task's rows of the files, once they have been computed."""
    return {}


@pytest.mark.parametrize("source", PACKED)
@pytest.mark.parametrize("task", TASKS)
def test_the_rows_are_those_of_the_files(
    task: str,
    source: str,
    items: dict[str, Path],
    checkpoints: dict[str, Path],
    known: dict[str, pa.Table],
    perceive: Callable[[Path], str],
    tmp_path: Path,
) -> None:
    content = TASKS[task]

    def rows(name: str, uri: str) -> pa.Table:
        options = {"fit": "resize", "overlap": 4} if task == "optical-flow" else {}
        options |= {"overlap": 4} if content == WORDS else {}
        options |= {} if task in ("latents", "optical-flow") else {"top_k": 2}
        job = write_job(
            tmp_path / name, Path(uri), checkpoints[task], task=task, options=options, input={"uri": uri}
        )
        return reader.dataset(perceive(job)).to_table()

    if task not in known:
        known[task] = rows("files", str(items[content]))
    pack, pattern = PACKED[source]
    (tmp_path / "in").mkdir()
    pack(content, items[content], tmp_path / "in")
    found = rows(source, f"{tmp_path}/in/{pattern}")
    assert found.num_rows >= 2
    where = found.select(_WHERE).to_pylist()
    assert len({row["member"] for row in where}) == 2
    assert_same(found.drop_columns(_WHERE), known[task].drop_columns(_WHERE))


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    """Equal, but for the last bits of what a model computes."""
    assert found.schema.equals(expected.schema)
    for field in expected.schema:
        ours, theirs = found[field.name], expected[field.name]
        if field.name in ("video", "audio", "latents"):
            assert ours.is_valid().equals(theirs.is_valid())
            tolerance = 1 if field.name == "video" else 1e-5
            arrays = [reader.to_numpy(table, field.name).astype(float) for table in (found, expected)]
            np.testing.assert_allclose(*arrays, rtol=0, atol=tolerance)
        elif field.name in ("scores", "flow", "video_psnr", "audio_psnr"):
            flat = [np.array(_flat(column.to_pylist())) for column in (ours, theirs)]
            np.testing.assert_allclose(*flat, rtol=1e-4, atol=1e-5)
        else:
            assert ours.equals(theirs), field.name


def _flat(values: list[object]) -> list[float]:
    return [
        x
        for value in values
        for x in (_flat(value) if isinstance(value, list) else [np.nan if value is None else float(value)])  # type: ignore[arg-type]
    ]
