"""Windows of an item: so many pictures and the sound that goes with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from av.video.stream import VideoStream

from pipelines.limits import STANDARD, Limits
from pipelines.media.audio import Channel, Samples, read_segment
from pipelines.media.container import open_container, stream_at
from pipelines.media.info import MediaInfo
from pipelines.media.resize import Fit, Image, picture_box
from pipelines.media.video import read_ticks

SEGMENT = 16  #: windows of sound decoded at a time: the grid that makes sound the same from every start


@dataclass(frozen=True)
class WindowShape:
    frames: int = 16
    height: int = 224
    width: int = 224
    samples: int = 30_720
    fps: int = 25
    overlap: int = 0  #: frames that a window shares with the next; no frame is in more than two

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap <= self.frames:
            raise ValueError(
                f"expected an overlap of 0 to {self.frames // 2} frames, half of a window; got {self.overlap}"
            )
        if self.samples % self.frames:
            raise ValueError(f"expected samples to be a multiple of {self.frames} frames; got {self.samples}")

    @property
    def samples_per_frame(self) -> int:
        return self.samples // self.frames

    @property
    def step(self) -> int:
        """Frames from a window's first to the next one's."""
        return self.frames - self.overlap

    @property
    def sample_rate(self) -> int:
        return self.samples_per_frame * self.fps


@dataclass(frozen=True)
class Window:
    index: int
    start_time: float  #: seconds since the item's first frame
    video: Image  #: (frames, height, width, 3); the last window repeats the last frame
    audio: Samples  #: (samples,) in [-1, 1]; zeros where there is no sound
    frames: int  #: how many are real
    samples: int  #: how many are real


def count_windows(info: MediaInfo, shape: WindowShape) -> int:
    return 1 + max(0, -(-(info.frames - shape.frames) // shape.step))


def read_windows(
    file: BinaryIO,
    info: MediaInfo,
    shape: WindowShape,
    first: int,
    stop: int,
    *,
    audio: Channel = "first",
    fit: Fit = "crop",
    limits: Limits = STANDARD,
) -> Iterator[Window]:
    """Windows first..stop - 1, bitwise the same whichever of them are asked for."""
    if info.fps != shape.fps:
        raise ValueError(f"expected windows at the probe's {info.fps} fps; got {shape.fps}; probe at that")
    if not 0 <= first <= stop <= count_windows(info, shape):
        raise ValueError(f"expected windows within 0..{count_windows(info, shape)}; got {first}..{stop}")
    if first == stop:
        return
    ticks = range(first * shape.step, min((stop - 1) * shape.step + shape.frames, info.frames))
    box = shown_in(info, shape) if fit == "letterbox" else None
    sound_end = _sound_end(info, shape)
    sound = _read_sound(file, info, shape, first, stop, audio, limits)
    with open_container(file, limits) as container:
        stream = stream_at(container, info.video_stream, VideoStream)
        pictures = read_ticks(container, stream, info.clock(), ticks, shape.height, shape.width, box, limits)
        shared: list[Image] = []  # with the window before
        for index, samples in zip(range(first, stop), sound, strict=True):
            begin = index * shape.step
            frames = min(shape.frames, info.frames - begin)
            video = np.empty((shape.frames, shape.height, shape.width, 3), np.uint8)
            for n in range(frames):
                video[n] = shared[n] if n < len(shared) else next(pictures)
            video[frames:] = video[frames - 1]
            shared = list(video[shape.step : frames])
            heard = max(sound_end - begin * shape.samples_per_frame, 0)
            real = min(heard, frames * shape.samples_per_frame)
            yield Window(index, begin / shape.fps, video, samples, frames, real)


def shown_in(info: MediaInfo, shape: WindowShape) -> tuple[int, int, int, int]:
    """Where a letterboxed window has its picture: top, left, height, width."""
    return picture_box((info.height, info.width), (shape.height, shape.width))


def _read_sound(
    file: BinaryIO,
    info: MediaInfo,
    shape: WindowShape,
    first: int,
    stop: int,
    channel: Channel,
    limits: Limits,
) -> Iterator[Samples]:
    track = info.track()
    segment_samples = SEGMENT * shape.samples
    end = info.frames * shape.samples_per_frame
    held: dict[int, Samples] = {}
    for index in range(first, stop):
        out = np.zeros(shape.samples, np.float32)
        begin = at = index * shape.step * shape.samples_per_frame
        until = min(begin + shape.samples, end)
        held = {segment: sound for segment, sound in held.items() if segment >= begin // segment_samples}
        while track is not None and at < until:
            segment, place = divmod(at, segment_samples)
            if segment not in held:
                start = segment * segment_samples
                stop_at = min(start + segment_samples, end)
                held[segment] = read_segment(
                    file, track, info.start, shape.sample_rate, start, stop_at, channel, limits
                )
            part = held[segment][place : place + until - at]
            out[at - begin : at - begin + len(part)] = part
            at += len(part)
        yield out


def _sound_end(info: MediaInfo, shape: WindowShape) -> int:
    """Where the item's sound ends, in samples from its start."""
    if not info.has_audio:
        return 0
    return int((Fraction(info.audio_end, info.audio_rate) - info.start) * shape.sample_rate)
