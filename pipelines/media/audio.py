"""The sound of an item by sample position.

An item's sound is defined in segments of a fixed grid. Each is decoded by a fresh demuxer and decoder from one
second ahead, so it is the same whoever asks, whatever a codec remembers. Positions come from timestamps ("native"
positions: samples at the stream's own rate since the container's time 0), and the resampler's phases depend on
positions only, so neighbouring segments join without a seam.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from math import gcd
from typing import Any, BinaryIO, Literal

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from pipelines.limits import STANDARD, Limits
from pipelines.media.container import (
    MediaError,
    in_matroska,
    open_container,
    open_decoder,
    read_only,
    seek,
    stream_at,
)

Samples = npt.NDArray[np.float32]
Channel = Literal["first", "mix"]
PREROLL = 1  #: seconds decoded and dropped: longer than any codec's overlap or bit reservoir
GAP = Fraction(40, 1000)  #: a larger step of the timestamps is a gap or a splice; smaller ones are jitter
MARGIN = 256  #: native samples around a segment: swr's filter reaches 16, times the ratio when it goes down


@dataclass(frozen=True)
class Track:
    """One audio stream. Its frames start on a grid, which tells samples where Matroska's pts tell only ms."""

    stream: int
    video_stream: int  #: Matroska's index is by video
    time_base: Fraction
    rate: int
    start: int  #: native position of the first frame
    grid_start: int
    grid_step: int
    end: int  #: native position after the last sample

    def place(self, frame: AudioFrame) -> int | None:
        """The native position of a frame, by its end: the first after a seek may lack its beginning (Opus)."""
        if frame.pts is None:
            return None
        exact = frame.pts * self.time_base * self.rate + frame.samples
        near = self.grid_start + round((exact - self.grid_start) / self.grid_step) * self.grid_step
        close = abs(near - exact) <= self.time_base * self.rate + 1
        return (near if close else round(exact)) - frame.samples


def read_segment(
    file: BinaryIO,
    track: Track,
    origin: Fraction,
    rate: int,
    first: int,
    stop: int,
    channel: Channel,
    limits: Limits = STANDARD,
) -> Samples:
    """Samples first..stop - 1 at `rate`, counted from `origin` (seconds); zeros where there is no sound."""
    divisor = gcd(track.rate, rate)
    native, out = track.rate // divisor, rate // divisor  # so many native samples make so many of ours
    zero = round(origin * track.rate)
    # Begin on a multiple of the ratio, so that the filter's phases fall the same way in every segment.
    blocks = first // out - -(-MARGIN // native)
    begin = zero + blocks * native
    end = zero + -(-stop * native // out) + MARGIN
    if end <= track.start or begin >= track.end:
        return np.zeros(stop - first, np.float32)
    sound = np.zeros(end - begin, np.float32)
    reached = begin
    with open_container(file, limits) as container:
        for at, frame in read_frames(container, track, Fraction(begin, track.rate)):
            if at >= end:
                break
            samples = _one_channel(frame, channel)
            left, right = max(at, begin), min(at + len(samples), end)
            if left < right:
                sound[left - begin : right - begin] = samples[left - at : right - at]
            reached = at + len(samples)
        else:
            if reached + GAP * track.rate < min(end, track.end):
                raise _corrupt(track, reached, "the end of the stream")
    skip = first - blocks * out
    return _resample(sound, track.rate, rate)[skip : skip + stop - first]


def read_frames(container: InputContainer, track: Track, time: Fraction) -> Iterator[tuple[int, AudioFrame]]:
    """Decoded frames with their native positions, exact from `time` (seconds) on."""
    stream = stream_at(container, track.stream, AudioStream)
    open_decoder(stream)
    at: int | None = None
    for packet in _packets_from(container, stream, track, time - PREROLL):
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if at is None or at < time * track.rate:
                continue  # in the preroll: MP3 frames refer to bits of frames that were not read
            raise _corrupt(track, at, f"a decode error ({error.strerror})") from error
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            if frame.sample_rate != track.rate:
                raise _corrupt(track, at or track.start, f"a change to {frame.sample_rate} Hz")
            stamped = track.place(frame)
            if stamped is not None and (at is None or abs(stamped - at) > GAP * track.rate):
                at = stamped
            if at is not None:
                yield at, frame
                at += frame.samples


def find_track(
    file: BinaryIO, stream_index: int, video_stream: int, last: Fraction, limits: Limits = STANDARD
) -> Track | None:
    """Where the stream's sound lies; its last packet is at `last` (seconds). None if nothing decodes."""
    with open_container(file, limits) as container:
        stream = stream_at(container, stream_index, AudioStream)
        assert stream.time_base is not None
        read_only(container, stream)
        open_decoder(stream)
        head: list[AudioFrame] = []
        for packet in container.demux(stream):
            head += [frame for frame in packet.decode() if isinstance(frame, AudioFrame)]
            if len(head) >= 32:
                break
        if not head or head[0].pts is None:
            return None
        rate, time_base = head[0].sample_rate, stream.time_base
        start = round(head[0].pts * time_base * rate)
        # The first frame may be short (encoder delay cut off), the last too; between them is the codec's step.
        grid_start = start + head[0].samples
        step = gcd(*(frame.samples for frame in head[1:-1])) or head[0].samples
        track = Track(stream_index, video_stream, time_base, rate, start, grid_start, step, end=start)
        stop = track.end
        for at, frame in read_frames(container, track, last - PREROLL):
            stop = at + frame.samples
    return replace(track, end=stop)


def _packets_from(
    container: InputContainer, stream: AudioStream, track: Track, time: Fraction
) -> Iterator[av.Packet]:
    """The packets from `time` on, and only those, wherever the container's index lands."""
    read_only(container, stream)
    guide = stream_at(container, track.video_stream, VideoStream) if in_matroska(container) else stream
    target, step = time, 1
    packets: Iterator[av.Packet] | None = None
    while packets is None and target * track.rate > track.start:
        seek(container, guide, target)
        found = container.demux(stream)
        head = next(found)
        if head.pts is not None and head.pts * track.time_base <= time:
            packets = chain([head], found)
        target, step = target - step, 2 * step
    if packets is None:
        seek(container, stream, time)  # Matroska has no index by sound: FFmpeg reads from the beginning
        packets = container.demux(stream)
    for packet in packets:
        if packet.pts is None or packet.pts * track.time_base >= time:
            yield packet


def _one_channel(frame: AudioFrame, channel: Channel) -> Samples:
    """Float samples in [-1, 1]: the first channel, or the mean of all."""
    data: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(frame.samples, -1).T
    data = data[:1] if channel == "first" else data
    if data.dtype == np.uint8:
        data = data.astype(np.float32) / 128 - 1
    elif data.dtype.kind == "i":
        data = data.astype(np.float32) / np.float32(-float(np.iinfo(data.dtype).min))
    return data.astype(np.float32).mean(axis=0, dtype=np.float32)


def _resample(sound: Samples, source: int, target: int) -> Samples:
    if source == target:
        return sound
    frame = AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
    frame.sample_rate = source
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=target)
    parts = resampler.resample(frame) + resampler.resample(None)
    return np.concatenate([part.to_ndarray()[0] for part in parts])


def _corrupt(track: Track, at: int, got: str) -> MediaError:
    return MediaError(
        f"corrupt audio at {at / track.rate:.3f} s: expected sound up to {track.end / track.rate:.3f} s; "
        f"got {got}; fetch the file again or repair it"
    )
