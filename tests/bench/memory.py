"""The peak memory of a run over an input, and over one of twenty times its size: `python -m tests.bench.memory`.

Real videos are decoded and real parts are written; the model gives zeros. Memory is the sum of the PSS of the run's
processes, Ray's among them, so that what they share counts once; sampled five times a second.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import psutil

from jobs.attempt import run_job
from jobs.spec import InputSpec, Job, ModelSpec, OutputSpec
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import write_clip
from tests.conftest import save_tiny
from tests.pipelines.committing import NoProgress

SIZE = 112  #: pixels a side; a window is 602 kB
WINDOWS = 32  #: a clip, and a shard
EVERY_S = 0.2


class Zeros(MultimodalAutoencoding):
    """The model left out."""

    def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
        rows = len(batch["video"])
        return {
            "video": np.zeros_like(batch["video"]), "audio": np.zeros_like(batch["audio"]),
            "labels": np.zeros((rows, 2), int), "scores": np.zeros((rows, 2), np.float32),
            "video_psnr": np.zeros(rows, np.float32), "audio_psnr": np.zeros(rows, np.float32),
        }  # fmt: skip


def main() -> None:
    """Reads the command line; measures in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--clips", type=int, default=20, help=f"of the smaller input, {WINDOWS} windows each")
    parser.add_argument("--times", type=int, default=20, help="how much larger the other is")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        _run(asked.run)
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-memory-"))
    try:
        save_tiny(folder / "weights", SIZE, SIZE)
        write_clip(folder / "clip.mp4", frames=16 * WINDOWS, audio_codec="aac")
        for _ in range(asked.turns):
            small, large = (_measured(folder, asked.clips * times) for times in (1, asked.times))
            print(f"{asked.clips * asked.times} clips take {large / small:.3f} of what {asked.clips} take\n")
    finally:
        shutil.rmtree(folder)


def _measured(folder: Path, clips: int) -> int:
    """The peak of a run over so many clips."""
    media = folder / str(clips) / "media"
    media.mkdir(parents=True)
    for i in range(clips):
        os.link(folder / "clip.mp4", media / f"{i:05d}.mp4")
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.memory", "--run", str(media)])
    peak, most = 0, 0
    while process.poll() is None:
        now, count = _pss(process.pid)
        peak, most = max(peak, now), max(most, count)
        time.sleep(EVERY_S)
    if process.returncode:
        raise SystemExit(f"the run over {clips} clips failed with exit code {process.returncode}")
    seconds = time.monotonic() - began
    shutil.rmtree(media.parent)
    print(
        f"{clips} clips, {clips * WINDOWS} windows: {peak / 2**20:,.0f} MiB in {most} processes, {seconds:.0f} s"
    )
    return peak


def _run(media: Path) -> None:
    job = Job(
        name="memory",
        task=Zeros.name,
        model=ModelSpec(checkpoint=str(media.parent.parent / "weights")),
        input=InputSpec(uri=str(media)),
        output=OutputSpec(uri=str(media.parent / "out")),
        options=Zeros(top_k=2),
        compute={"shard_windows": WINDOWS, "batch": 8},
    )
    result = run_job(job, NoProgress())
    assert not result.quarantined
    assert result.rows == len(list(media.iterdir())) * WINDOWS


def _pss(pid: int) -> tuple[int, int]:
    """The bytes that a process and its descendants use, shared pages once, and how many processes they are."""
    total = count = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for one in [root, *root.children(recursive=True)]:
            with suppress(OSError, StopIteration):
                lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
                total += int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
                count += 1
    return total, count


if __name__ == "__main__":
    main()
