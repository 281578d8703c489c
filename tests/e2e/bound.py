"""Jobs that one stage limits, by real means; run as a program, one of them, and what its pace said as it ran.

python -m tests.e2e.bound decode FOLDER
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from jobs.spec import Job, load_job
from perceiver_core import PerceiverForMultimodalAutoencoding
from perceiver_core.checkpoint import save
from pipelines.storage.local import LocalStorage
from tests.clips import write_clip
from tests.conftest import save_tiny, tiny_config

WRITE_S = 1.0


class SlowStorage(LocalStorage):
    """A disk that takes a second for every part."""

    def create(self, name: str, draft: Path) -> bool:
        if name.startswith("data/"):
            time.sleep(WRITE_S)
        return super().create(name, draft)


def decode_bound(folder: Path, clips: int = 24) -> Path:
    """Large noisy pictures through a tiny model; returns the job's file."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 360, 640, 3), np.uint8)
    one = _media(folder) / "00.mp4"
    write_clip(one, frames=80, size=(640, 360), draw=lambda index: noise[index % 4], audio_codec="aac")
    _copies(one, clips)
    return _job(folder, save_tiny(folder / "model"))


def device_bound(folder: Path, clips: int = 20) -> Path:
    """Small pictures through a model that has much to do."""
    one = _media(folder) / "00.mp4"
    write_clip(one, frames=80, size=(64, 48), audio_codec="aac")
    _copies(one, clips)
    torch.manual_seed(0)
    sizes = {"num_latents": 512, "d_latents": 512}
    layers = {"num_self_attends_per_block": 8, "num_self_attention_heads": 8}
    config = replace(tiny_config(), **sizes, **layers)
    save(PerceiverForMultimodalAutoencoding(config), folder / "model")
    return _job(folder, folder / "model")


def write_bound(folder: Path, clips: int = 40) -> Path:
    """Small pictures through a tiny model; to be run into a SlowStorage."""
    one = _media(folder) / "00.mp4"
    write_clip(one, frames=80, size=(64, 48), audio_codec="aac")
    _copies(one, clips)
    return _job(folder, save_tiny(folder / "model"))


MADE: dict[str, Callable[[Path], Path]] = {
    "decode": decode_bound,
    "predict": device_bound,
    "write": write_bound,
}


def _media(folder: Path) -> Path:
    (folder / "media").mkdir(parents=True)
    return folder / "media"


def _copies(clip: Path, count: int) -> None:
    for number in range(1, count):
        shutil.copy(clip, clip.with_name(f"{number:02d}.mp4"))


def _job(folder: Path, checkpoint: Path) -> Path:
    document: dict[str, Any] = {
        "name": "bound",
        "task": "multimodal-autoencoding",
        "model": {"checkpoint": str(checkpoint)},
        "input": {"uri": str(folder / "media")},
        "output": {"uri": str(folder / "out")},
        "options": {"top_k": 2},
        "compute": {"batch": 5, "shard_windows": 5},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    return folder / "job.yaml"


def said_of(job: Job, slow: bool) -> list[str]:
    """Run it; what limits it, by every mark that was noted while there was work for all stages."""
    from jobs import attempt, pace
    from jobs.events import read
    from tests.pipelines.committing import NoProgress

    pace._EVERY_S = 2.0  # a short run has several
    if slow:
        attempt.open_storage = SlowStorage  # type: ignore[assignment]
    result = attempt.run_job(job, NoProgress())
    told = list(read(LocalStorage(result.output), result.run_id))
    said = []
    for at, event in enumerate(told):
        if event["event"] == "progress" and event["windows"] < event["total"]:
            found = pace.pace(told[: at + 1])
            assert found
            said.append(found.limit)
    return said


if __name__ == "__main__":
    stage, where = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(said_of(load_job(str(MADE[stage](where))), stage == "write")))
