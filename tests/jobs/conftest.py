"""Runs without Ray, of a model for texts."""

from pathlib import Path

import pytest

from tests.jobs.inprocess import Kill, without_ray
from tests.pipelines.staging import save_head


@pytest.fixture(scope="session")
def texts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("texts") / "model", "PerceiverForSequenceClassification")


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    return without_ray(monkeypatch)
