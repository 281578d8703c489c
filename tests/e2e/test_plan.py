"""`perceive plan`, with all that a run has, and nothing left of it."""

import json
from pathlib import Path

import pytest

from tests.clips import write_clip
from tests.e2e.command import interrupt, perceive, start, wait_for, write_job

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def job(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "media").mkdir()
    for name in "abc":
        write_clip(folder / f"media/{name}.mp4", frames=80, audio_codec="aac")
    (folder / "media/bad.mp4").write_text("no video")
    options = {"top_k": 2, "video": "mp4"}
    return write_job(
        folder / "job",
        folder / "media",
        checkpoint,
        options=options,
        compute={"batch": 2, "shard_windows": 5},
    )


def test_a_plan_is_measured_and_leaves_nothing(job: Path) -> None:
    done = perceive("plan", job, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["does"], found["items"], found["unreadable"], found["windows"]) == ("new", 4, 1, 15)
    assert (found["measured"]["whole"], found["measured"]["windows"]) == (True, 15)
    seconds = found["seconds"]
    assert 0 < found["measured"]["start_s"] < seconds["low"] < seconds["likely"] < seconds["high"]
    assert found["output_bytes"]["likely"] > 3 * 1000  # three MP4s at least
    assert found["staged_bytes"] > found["output_bytes"]["likely"]  # the tensors that they are made of
    assert "windows measured" in done.stderr
    assert sorted(path.name for path in job.parent.iterdir()) == ["job.yaml"]


def test_an_interrupted_plan_leaves_nothing_either(job: Path) -> None:
    process = start("plan", job)
    wait_for(lambda: list(job.parent.glob(".perceive-plan-*")), process)
    interrupt(process)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 130, stderr
    assert sorted(path.name for path in job.parent.iterdir()) == ["job.yaml"]
