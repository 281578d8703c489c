"""The frames of a video at the ticks of a fixed rate, from any tick on, the same whichever that is."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipelines.limits import STANDARD, Limits
from pipelines.media.container import MediaError, open_decoder, read_only, seek
from pipelines.media.resize import Image, centre_square, letterbox, resize


@dataclass(frozen=True)
class Clock:
    """The ticks and timestamps of one stream. Integers and fractions only, so that nothing rounds."""

    time_base: Fraction
    start_pts: int
    last_pts: int  #: of the last frame there is
    fps: int

    def seconds(self, pts: int) -> float:
        return float((pts - self.start_pts) * self.time_base)

    def newest(self, tick: int) -> int:
        """The last timestamp before tick + 1/2: frames up to it are due (ffmpeg's fps filter, round=near)."""
        half_past = self.start_pts + Fraction(2 * tick + 1, 2 * self.fps) / self.time_base
        return -(-half_past // 1) - 1


def read_ticks(
    container: InputContainer,
    stream: VideoStream,
    clock: Clock,
    ticks: range,
    height: int,
    width: int,
    box: tuple[int, int, int, int] | None = None,
    limits: Limits = STANDARD,
) -> Iterator[Image]:
    """The pictures of consecutive ticks; a frame that serves several of them is converted once.

    The centre square of each, or with a `box` (top, left, height, width) all of it, in there. Converted by a thread of
    its own, while the next frame is decoded.
    """
    read_only(container, stream)
    open_decoder(stream, limits)

    def convert(frame: VideoFrame) -> Image:
        return _fitted(upright(frame), height, width, box)

    with ThreadPoolExecutor(1) as thread:
        shown: VideoFrame | None = None
        images: list[Future[Image]] = []  # of this tick and the one before
        for frame in _due(container, stream, clock, ticks):
            images.append(images[-1] if frame is shown else thread.submit(convert, frame))
            shown = frame
            if len(images) > 1:
                yield images.pop(0).result()
        for image in images:
            yield image.result()


def _due(container: InputContainer, stream: VideoStream, clock: Clock, ticks: range) -> Iterator[VideoFrame]:
    """The frame of each of consecutive ticks."""
    frames = _frames_for(container, stream, clock, clock.newest(ticks[0]))
    current, following = next(frames, None), next(frames, None)
    for tick in ticks:
        while following is not None and _pts(following) <= clock.newest(tick):
            current, following = following, next(frames, None)
        if current is None:
            raise _corrupt(clock, clock.start_pts, "the end of the stream")
        if following is None and _ends_early(current, clock):
            raise _corrupt(clock, _pts(current), "the end of the stream")
        yield current


def read_from(
    container: InputContainer, stream: VideoStream, clock: Clock, pts: int, limits: Limits = STANDARD
) -> Iterator[VideoFrame]:
    """The source's own frames from this timestamp on, the same whichever it is."""
    read_only(container, stream)
    open_decoder(stream, limits)
    return (frame for frame in _frames_for(container, stream, clock, pts) if _pts(frame) >= pts)


def _fitted(image: Image, height: int, width: int, box: tuple[int, int, int, int] | None) -> Image:
    if box is None:
        return resize(centre_square(image), height, width)
    return letterbox(image, height, width, box)


def upright(frame: VideoFrame) -> Image:
    """RGB by the frame's own colour matrix and range, turned as a player would show it."""
    image = frame.to_ndarray(format="rgb24", threads=1)
    return np.rot90(image.astype(np.uint8, copy=False), quarter_turns(frame))


def quarter_turns(frame: VideoFrame) -> int:
    """How often the stored picture is to be turned counter-clockwise by 90 degrees."""
    return round(frame.rotation / 90) % 4


def decode(packets: Iterator[av.Packet], clock: Clock, floor: int | None = None) -> Iterator[VideoFrame]:
    """Frames in order from timestamp `floor` on. A damaged frame is an error: a concealed one is a guess."""
    last = clock.start_pts if floor is None else floor
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            raise _corrupt(clock, last, f"a decode error ({error.strerror})") from error
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            pts = _pts(frame)
            if floor is not None and pts < floor:
                continue
            if frame.is_corrupt:
                raise _corrupt(clock, pts, "a damaged frame")
            floor, last = pts + 1, pts
            yield frame


def _frames_for(
    container: InputContainer, stream: VideoStream, clock: Clock, needed: int
) -> Iterator[VideoFrame]:
    """Decode from a keyframe that is shown at or before `needed`: then every start gives the same frames.

    Frames shown before that keyframe but stored after it (open GOPs) refer to what was not decoded: dropped.
    """
    target, step = needed, round(1 / clock.time_base)
    while target > clock.start_pts:
        seek(container, stream, target * clock.time_base)
        packets = container.demux(stream)
        key = next((packet for packet in packets if packet.is_keyframe and packet.pts is not None), None)
        if key is not None and key.pts is not None and key.pts <= needed:
            frames = decode(chain([key], packets), clock, key.pts)
            head = next(frames, None)
            if head is not None and _pts(head) <= needed:
                yield head
                yield from frames
                return
        target, step = target - step, 2 * step
    seek(container, stream, (clock.start_pts - step) * clock.time_base)
    yield from decode(container.demux(stream), clock)


def _ends_early(frame: VideoFrame, clock: Clock) -> bool:
    """Whether more than two frames (or ticks) are missing after this one, the last to come."""
    slack = 2 * max(frame.duration or 0, round(1 / (clock.fps * clock.time_base)))
    return _pts(frame) + slack < clock.last_pts


def _pts(frame: VideoFrame) -> int:
    if frame.pts is None:
        raise MediaError("expected a timestamp on every frame; got one without; remux the file with ffmpeg")
    return frame.pts


def _corrupt(clock: Clock, pts: int, got: str) -> MediaError:
    return MediaError(
        f"corrupt video at {clock.seconds(pts):.3f} s: expected frames up to "
        f"{clock.seconds(clock.last_pts):.3f} s; got {got}; fetch the file again or repair it"
    )
