"""Decoding 1080p H.264 to windows, through the decoder's process, against bare PyAV decoding the same frames.

    python -m tests.bench.decode [--seconds 20] [--turns 5]

The four take turns; medians. Bare PyAV decodes with one thread and does nothing with the frames, or makes RGB arrays
of them. The process is started, and the clip probed, before: a long video is opened once for 64 windows. CPU is that
of all processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
import numpy as np
import psutil

from perceiver_core.config import multimodal_perceiver
from pipelines.decoding import Decoder
from pipelines.limits import Limits
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding
from tests.clips import moving, write_clip

TARGET = 0.85


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.decode", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of the clip")
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        _write(path, 25 * asked.seconds)
        rate = path.stat().st_size * 8 / asked.seconds / 1e6
        print(
            f"1080p H.264 of {25 * asked.seconds} frames, {rate:.1f} Mbit/s, {os.cpu_count()} cores\n",
            flush=True,
        )
        _compare(path, asked.turns)


def _compare(path: Path, turns: int) -> None:
    task, config, limits = MultimodalAutoencoding(), multimodal_perceiver(), Limits()
    decoder = Decoder(task, config, limits)
    with path.open("rb") as file:
        files = {"video": file}
        windows, info = decoder.probe(files)

        def through_the_process() -> int:
            batches = decoder.windows(files, info, 0, windows)
            return sum(batch["frames"][0].as_py() for batch in batches)

        def in_this_process() -> int:
            made = task.preprocess(files, info, 0, windows, config, limits)
            return sum(window["frames"] for window in made)

        ways: dict[str, Callable[[], int]] = {
            "bare PyAV": lambda: _bare(path, arrays=False),
            "bare PyAV, to RGB arrays": lambda: _bare(path, arrays=True),
            "windows, in this process": in_this_process,
            "windows, through the decoder's process": through_the_process,
        }
        wall: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(turns):
            for name, way in ways.items():
                began, used = time.perf_counter(), _cpu()
                frames = way()
                wall[name].append((time.perf_counter() - began) / frames)
                cpu[name].append((_cpu() - used) / frames)
        decoder.close()
    bare_wall, bare_cpu = (statistics.median(table["bare PyAV"]) for table in (wall, cpu))
    print("| | frames/s | of bare PyAV | CPU, ms a frame | bare PyAV of its CPU |\n|---|---|---|---|---|")
    for name in ways:
        seconds, used = statistics.median(wall[name]), statistics.median(cpu[name])
        spread = f"{1 / max(wall[name]):.0f} to {1 / min(wall[name]):.0f}"
        print(
            f"| {name} | {1 / seconds:.0f} ({spread}) | {bare_wall / seconds:.2f} | {used * 1e3:.1f} | "
            f"{bare_cpu / used:.2f} |"
        )
    reached = bare_wall / statistics.median(wall["windows, through the decoder's process"])
    print(f"\nTarget: {TARGET} of bare PyAV's frames/s; reached {reached:.2f}.")


def _bare(path: Path, arrays: bool) -> int:
    frames = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
        for frame in container.decode(stream):
            if arrays:
                frame.to_ndarray(format="rgb24", threads=1)
            frames += 1
    return frames


def _cpu() -> float:
    """Seconds of this process and its children."""
    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children())]
    return sum(one.user + one.system for one in times)


def _write(path: Path, frames: int) -> None:
    """Something that moves, with the grain of a camera."""

    @cache
    def draw(number: int) -> np.ndarray:
        grain = np.random.default_rng(number).integers(-12, 13, (1080, 1920, 1), np.int16)
        return np.clip(np.roll(scene, 9 * number, axis=1) + grain, 0, 255).astype(np.uint8)

    scene = moving(0, 1920, 1080).astype(np.int16)
    write_clip(
        path,
        frames=frames,
        size=(1920, 1080),
        gop=50,
        bframes=2,
        options={"b": "8000000"},
        draw=lambda n: draw(min(n % 30, 30 - n % 30)),
    )


if __name__ == "__main__":
    main()
