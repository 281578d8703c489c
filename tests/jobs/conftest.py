"""Runs without Ray, of a model for texts; and a job to make mistakes in."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.jobs.bucket import Bucket, fill
from tests.jobs.inprocess import Kill, without_ray
from tests.jobs.mistaken import JOB
from tests.pipelines.staging import save_head


@pytest.fixture(scope="session")
def texts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("texts") / "model", "PerceiverForSequenceClassification")


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    return without_ray(monkeypatch)


@pytest.fixture
def killed(tmp_path: Path, texts_model: Path, kill: Kill) -> Bucket:
    """Seven texts, of which a and d are bad, and a run over them that was killed half-way: the next one resumes it."""
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket, bad="ad")
    with kill.after(60):
        bucket.run()
    return bucket


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a good job, a clip by its name, and what else mistakes need."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    shutil.copy(Path(__file__).parents[2] / "examples/media/bouncing-ball.mp4", tmp_path / "clips/ball.mp4")
    for name in ("empty", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures/cat.jpg").write_bytes(b"a cat")
    (tmp_path / "a-file").write_text("text")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)  # perceive run takes it over
