"""What the faults are tried on: two jobs, and what becomes of them undisturbed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from tests.clips import write_clip
from tests.faults.processes import Bench
from tests.faults.store import Store, s3
from tests.faults.work import Work
from tests.pipelines.staging import save_head


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Attempts, and nothing left of them."""
    made = Bench()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Store]:
    """A store that this process and what it starts know the way to."""
    with s3() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield store
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Labels of 24 texts, some of them none, in 12 shards; parts are staged, and published in the end."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "in").mkdir()
    for n in range(24):
        text = b"\xff\xfe not UTF-8" if n % 7 == 2 else bytes([65 + n]) * (n + 3)
        (folder / "in" / f"{n:02}.txt").write_bytes(text)
    model = save_head(folder / "model", "PerceiverForSequenceClassification")
    return Work(folder, model, "text-classification", {"top_k": 2, "overlap": 4}, shard_windows=2).calm()


@pytest.fixture(scope="session")
def clips(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """40 windows of video in as many shards, each a part of the table, and two files that are no video."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "in").mkdir()
    for n, frames in enumerate((16 * 14, 16 * 3, 16 * 12 - 5, 16 * 11 + 3)):
        sound = "aac" if n % 2 else None
        write_clip(folder / f"in/{n}.mp4", frames=frames, size=(48, 36), audio_codec=sound)
    for name in ("bad", "worse"):
        (folder / f"in/{name}.mp4").write_text(f"{name}: this is no video")
    return Work(folder, checkpoint, "multimodal-autoencoding", {"top_k": 2}, shard_windows=1).calm()
