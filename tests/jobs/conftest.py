"""Runs without Ray, of a model for texts."""

from pathlib import Path

import pytest

from tests.jobs.bucket import Bucket, fill
from tests.jobs.inprocess import Kill, without_ray
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
