"""A video's own frames by their number, as large as they are, from any number on."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from av.video.stream import VideoStream

from pipelines.limits import STANDARD, Limits
from pipelines.media.container import MediaError, open_container, read_only, seek, stream_at
from pipelines.media.info import choose_video, first_frame
from pipelines.media.resize import Image
from pipelines.media.video import Clock, quarter_turns, read_from, upright

_ANCHORS, _NEAREST = 1024, 64  # timestamps that an index has at most, and the frames between two at least


@dataclass(frozen=True)
class FrameIndex:
    """Which frames a video has. Flat and plain, for it is a column of the plan table."""

    video_stream: int
    width: int  #: as shown, after rotation
    height: int
    time_base_num: int
    time_base_den: int
    frames: int
    last_pts: int
    step: int
    anchors: Sequence[int]  #: the timestamps of every step-th frame

    def clock(self) -> Clock:
        base = Fraction(self.time_base_num, self.time_base_den)
        return Clock(base, self.anchors[0], self.last_pts, fps=1)


def index_frames(file: BinaryIO, limits: Limits, *, stream: int | None = None) -> FrameIndex:
    """Count a video's frames, by their timestamps in its packets: only the first one is decoded.

    It reads the whole file once, since no container tells where a frame of a given number is. `stream` is the
    container's index. Raises MediaError, or LimitError for more than the limits allow.
    """
    with open_container(file, limits) as container:
        video = choose_video(container, stream, limits)
        assert video.time_base is not None
        frame = first_frame(container, video, limits)
        assert frame.pts is not None
        turned = bool(quarter_turns(frame) % 2)
        width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
        limits.check("pixels", width * height, f"pixels of a frame of {width} x {height}")
        read_only(container, video)
        seek(container, video, (frame.pts - round(1 / video.time_base)) * video.time_base)
        shown = array("q")
        for packet in container.demux(video):
            if packet.is_corrupt:
                raise MediaError(
                    f"truncated: expected {packet.size} bytes or more in the packet at byte {packet.pos}; "
                    f"the file has {container.size} bytes; fetch it again"
                )
            if packet.pts is not None and packet.pts >= frame.pts and not packet.is_discard:
                shown.append(packet.pts)
                if len(shown) > limits.frames:
                    limits.check("frames", max(len(shown), video.frames), "frames of a video")
        timestamps = sorted(set(shown))
        if not timestamps or timestamps[0] != frame.pts:
            raise MediaError(
                "expected a packet for the first frame; got none; remux the file with ffmpeg, or leave it out"
            )
        last = timestamps[-1]
        limits.check("duration", float((last - frame.pts) * video.time_base), "seconds of a video")
        step = max(_NEAREST, -(-len(timestamps) // _ANCHORS))
        return FrameIndex(
            video_stream=video.index,
            width=width,
            height=height,
            time_base_num=video.time_base.numerator,
            time_base_den=video.time_base.denominator,
            frames=len(timestamps),
            last_pts=last,
            step=step,
            anchors=timestamps[::step],
        )


def read_frames(
    file: BinaryIO, index: FrameIndex, wanted: Sequence[int], limits: Limits = STANDARD
) -> Iterator[tuple[int, float, Image]]:
    """The frames of these increasing numbers: number, seconds since the first frame, (H, W, 3) RGB, upright.

    Bitwise the same whichever of them are asked for; those between are decoded and not converted.
    """
    if not wanted:
        return
    clock = index.clock()
    number = (wanted[0] // index.step) * index.step
    places = iter(wanted)
    place = next(places, None)
    with open_container(file, limits) as container:
        stream = stream_at(container, index.video_stream, VideoStream)
        for frame in read_from(container, stream, clock, index.anchors[number // index.step], limits):
            assert frame.pts is not None
            if number % index.step == 0 and frame.pts != index.anchors[number // index.step]:
                raise _uncounted(index, number, clock.seconds(frame.pts))
            if number == place:
                image = upright(frame)
                if image.shape[:2] != (index.height, index.width):
                    raise MediaError(
                        f"expected frames of {index.width} x {index.height}, as the first one; got one of "
                        f"{image.shape[1]} x {image.shape[0]} at {clock.seconds(frame.pts):.3f} s; encode the video "
                        "again in one size"
                    )
                yield number, clock.seconds(frame.pts), image
                place = next(places, None)
                if place is None:
                    return
            number += 1
    raise MediaError(
        f"corrupt video: expected {index.frames} frames, as its packets say; got {number}; fetch the file again or "
        "repair it"
    )


def _uncounted(index: FrameIndex, number: int, found: float) -> MediaError:
    expected = index.clock().seconds(index.anchors[number // index.step])
    return MediaError(
        f"corrupt video: expected frame {number} at {expected:.3f} s, as its packets say; got one at {found:.3f} s; "
        "fetch the file again or repair it"
    )
