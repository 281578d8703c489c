"""A whole run over strange media: its account, row by row."""

import dataclasses
import re
from pathlib import Path

import pytest

from pipelines import reader
from tests.e2e.command import perceive, write_job
from tests.pipelines.tasks.tiny import FOURIER, save_class
from tests.strange import LIMITS, PICTURES, STRANGE

pytestmark = pytest.mark.e2e


def test_every_item_is_accounted_for(strange_media: Path, checkpoint: Path, tmp_path: Path) -> None:
    limits = dataclasses.asdict(LIMITS)
    job = write_job(tmp_path, strange_media / "video", checkpoint, limits=limits, compute={"batch": 2})
    done = perceive("run", job)
    assert done.returncode == 3, done.stderr
    out = str(tmp_path / "out")
    rows = reader.dataset(out).to_table(columns=["uri", "window", "frames", "samples"]).to_pylist()
    bad = reader.quarantine(out).to_pylist()
    assert f"{len(STRANGE)} items, {len(rows)} rows in {out}/data, {len(bad)} quarantined" in done.stdout
    for strange in STRANGE:
        uri = str(strange_media / "video" / strange.name)
        mine = [row for row in rows if row["uri"] == uri]
        assert [row["window"] for row in mine] == list(range(strange.windows)), strange.name
        assert sum(row["frames"] for row in mine) == strange.frames, strange.name
        assert (sum(row["samples"] for row in mine) > 0) == strange.sound, strange.name
        errors = [row for row in bad if row["uri"] == uri]
        assert [(row["stage"], row["error"]) for row in errors] == (
            [(strange.stage, strange.error)] if strange.error else []
        )
        assert all(re.search(strange.message, row["message"]) for row in errors), errors
        assert all(len(row["traceback_digest"]) == 16 for row in errors)
    assert len(rows) == sum(strange.windows for strange in STRANGE)
    assert len(bad) == sum(bool(strange.error) for strange in STRANGE)


def test_every_picture_is_accounted_for(strange_media: Path, tmp_path: Path) -> None:
    limits, checkpoint = dataclasses.asdict(LIMITS), save_class(FOURIER, tmp_path / "tiny")
    media, out = strange_media / "image", str(tmp_path / "out")
    done = perceive("run", write_job(tmp_path, media, checkpoint, task="image-classification", limits=limits))
    assert done.returncode == 3, done.stderr
    rows = reader.dataset(out).to_table(columns=["uri", "height", "width", "labels"]).to_pylist()
    bad = reader.quarantine(out).to_pylist()
    assert {row["uri"]: (row["height"], row["width"]) for row in rows} == {
        str(media / strange.name): strange.size for strange in PICTURES if not strange.error
    }
    assert {row["uri"]: (row["stage"], row["error"]) for row in bad} == {
        str(media / strange.name): ("decode", strange.error) for strange in PICTURES if strange.error
    }
    assert len(rows) + len(bad) == len(PICTURES)
    labels = {Path(row["uri"]).name: row["labels"] for row in rows}
    assert labels["plain.png"] == labels["animated.gif"] == labels["turned.jpg"]  # all red


def test_rays_unpickling_is_refused(
    strange_media: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path, strange_media / "video", checkpoint)
    for name in (
        "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
        "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
    ):
        with monkeypatch.context() as context:
            context.setenv(name, "1")
            done = perceive("run", job)
        assert done.returncode == 2
        assert done.stderr.startswith(
            f"The environment has {name}=1: with it, Ray runs whatever code a Parquet file"
        )
    assert not (tmp_path / "out").exists()
