"""What these tests share: reading a whole clip, and comparing a slice of it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.media.audio import Channel
from pipelines.media.info import MediaInfo, probe
from pipelines.media.windows import Window, WindowShape, count_windows, read_windows

#: Four frames to a window: an audio segment (16 windows) is 2.56 s.
SHAPE = WindowShape(frames=4, height=16, width=16, samples=7_680)


def load(path: Path) -> BinaryIO:
    return io.BytesIO(path.read_bytes())


def read_all(
    path: Path, shape: WindowShape = SHAPE, *, stream: int | None = None, audio: Channel = "first"
) -> tuple[MediaInfo, list[Window]]:
    file = load(path)
    info = probe(file, stream=stream)
    return info, list(read_windows(file, info, shape, 0, count_windows(info, shape), audio=audio))


def assert_slice(
    path: Path,
    info: MediaInfo,
    whole: Sequence[Window],
    first: int,
    stop: int,
    shape: WindowShape = SHAPE,
) -> None:
    got = list(read_windows(load(path), info, shape, first, stop))
    assert len(got) == stop - first
    for one, other in zip(got, whole[first:stop], strict=True):
        assert (one.index, one.start_time, one.frames, one.samples) == (
            other.index,
            other.start_time,
            other.frames,
            other.samples,
        )
        assert np.array_equal(one.video, other.video), f"video of window {one.index} in [{first}, {stop})"
        assert np.array_equal(one.audio, other.audio), f"audio of window {one.index} in [{first}, {stop})"


def pictures(windows: Sequence[Window]) -> np.ndarray:
    return np.concatenate([w.video[: w.frames] for w in windows])


def sound(windows: Sequence[Window]) -> np.ndarray:
    return np.concatenate([w.audio for w in windows])
