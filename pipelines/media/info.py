"""What a video file holds, found out from its headers, its first frame and its tail."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from pipelines.limits import STANDARD, LimitError, Limits
from pipelines.media.audio import Track, find_track
from pipelines.media.container import (
    MediaError,
    in_matroska,
    open_container,
    open_decoder,
    read_only,
    seek,
)
from pipelines.media.video import Clock, decode, quarter_turns

FAR = Fraction(1 << 30)  #: seconds: after every end
TAIL = 64  #: packets: more than any codec reorders


@dataclass(frozen=True)
class MediaInfo:
    """Flat and plain, for it is a column of the plan table. Timestamps (pts) are in the video's time base."""

    container: str  #: mp4 | matroska
    video_stream: int
    video_codec: str
    width: int  #: as shown, after rotation
    height: int
    rotation: int  #: degrees counter-clockwise from the stored picture to the shown one
    time_base_num: int
    time_base_den: int
    start_pts: int  #: the item's time 0
    last_pts: int  #: the last frame's
    end_pts: int
    fps: int
    frames: int  #: ticks of fps in the span
    source_fps: float | None  #: average, as the container has it
    audio_stream: int | None = None  #: None: no sound, and what follows is empty
    audio_codec: str = ""
    audio_channels: int = 0
    audio_rate: int = 0
    audio_time_base_num: int = 0
    audio_time_base_den: int = 1
    audio_start: int = 0  #: this and the next three: samples at audio_rate since the container's time 0
    audio_grid_start: int = 0
    audio_grid_step: int = 1
    audio_end: int = 0
    audio_start_s: float = 0.0  #: from the item's time 0; negative where sound comes first
    audio_trailing_s: float = 0.0  #: sound after the video's end, which is cut

    @property
    def has_audio(self) -> bool:
        return self.audio_stream is not None

    @property
    def start(self) -> Fraction:
        """Seconds on the container's clock."""
        return self.start_pts * Fraction(self.time_base_num, self.time_base_den)

    @property
    def duration(self) -> float:
        return float((self.end_pts - self.start_pts) * Fraction(self.time_base_num, self.time_base_den))

    def clock(self) -> Clock:
        base = Fraction(self.time_base_num, self.time_base_den)
        return Clock(base, self.start_pts, self.last_pts, self.fps)

    def track(self) -> Track | None:
        if self.audio_stream is None:
            return None
        base = Fraction(self.audio_time_base_num, self.audio_time_base_den)
        return Track(
            stream=self.audio_stream,
            video_stream=self.video_stream,
            time_base=base,
            rate=self.audio_rate,
            start=self.audio_start,
            grid_start=self.audio_grid_start,
            grid_step=self.audio_grid_step,
            end=self.audio_end,
        )


def probe(
    file: BinaryIO, *, stream: int | None = None, fps: int = 25, limits: Limits = STANDARD
) -> MediaInfo:
    """All that reading windows needs to know. `stream` is the container's index, as ffprobe shows it.

    Raises MediaError, and LimitError where the video is larger than `limits` allow.
    """
    with open_container(file, limits) as container:
        video = choose_video(container, stream, limits)
        audio = _choose_audio(container)
        assert video.time_base is not None
        base = video.time_base
        limits.check("frames", video.frames, f"frames in video stream {video.index}")  # 0: it does not say
        frame = first_frame(container, video, limits)
        assert frame.pts is not None
        tail = _tail(container, video, video)
        if tail is None:
            raise MediaError("truncated: expected video up to the end; got none there; fetch it again")
        turns = quarter_turns(frame)
        info = MediaInfo(
            container="matroska" if in_matroska(container) else "mp4",
            video_stream=video.index,
            video_codec=video.codec_context.codec.canonical_name,
            width=frame.height if turns % 2 else frame.width,
            height=frame.width if turns % 2 else frame.height,
            rotation=turns * 90,
            time_base_num=base.numerator,
            time_base_den=base.denominator,
            start_pts=frame.pts,
            last_pts=tail.last,
            end_pts=tail.end,
            fps=fps,
            frames=max(1, round((tail.end - frame.pts) * base * fps)),
            source_fps=None if video.average_rate is None else float(video.average_rate),
        )
        limits.check("frames", info.frames, f"frames in video stream {video.index} at {fps} a second")
        limits.check("duration", round(info.duration, 3), f"seconds in video stream {video.index}")
        audio_tail = None if audio is None else _tail(container, audio, video)
        if audio is None or audio_tail is None or audio.time_base is None:
            return info
        codec, channels = audio.codec_context.codec.canonical_name, audio.codec_context.layout.nb_channels
        track = find_track(file, audio.index, video.index, audio_tail.last * audio.time_base, limits)
    if track is None:
        return info
    return replace(
        info,
        audio_stream=track.stream,
        audio_codec=codec,
        audio_channels=channels,
        audio_rate=track.rate,
        audio_time_base_num=track.time_base.numerator,
        audio_time_base_den=track.time_base.denominator,
        audio_start=track.start,
        audio_grid_start=track.grid_start,
        audio_grid_step=track.grid_step,
        audio_end=track.end,
        audio_start_s=float(Fraction(track.start, track.rate) - info.start),
        audio_trailing_s=max(0.0, float(Fraction(track.end, track.rate) - tail.end * base)),
    )


def choose_video(container: InputContainer, index: int | None, limits: Limits = STANDARD) -> VideoStream:
    """The stream asked for, else the first flagged default, else the first; cover art is not a video."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(f"{s.index}: {s.type}" for s in container.streams) or "no streams"
        raise MediaError(f"expected a video stream; got {kinds}; leave the file out of the input")
    if index is None:
        stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    else:
        wanted = [s for s in streams if s.index == index]
        if not wanted:
            there = ", ".join(_describe(s) for s in streams)
            raise MediaError(f"expected a video stream with index {index}; got {there}; choose one of these")
        stream = wanted[0]
    if not _decodable(stream):
        raise MediaError(
            f"expected video that this FFmpeg decodes; stream {stream.index} has no decoder here; "
            "encode it again as H.264, HEVC, VP9 or AV1"
        )
    pixels = stream.width * stream.height
    if not pixels:  # what FFmpeg says where it refused a larger one
        raise LimitError(
            f"pixels of a frame in stream {stream.index}: they are more than the {limits.pixels:,} that "
            "limits.pixels allows, or the file does not say how many. Raise limits.pixels if the item is to be trusted."
        )
    limits.check("pixels", pixels, f"pixels of a frame in stream {stream.index}")
    return stream


def _choose_audio(container: InputContainer) -> AudioStream | None:
    streams = container.streams.audio
    if not streams:
        return None
    stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    if not _decodable(stream):
        raise MediaError(
            f"expected audio that this FFmpeg decodes; stream {stream.index} has no decoder here; "
            "encode it again as AAC or Opus, or take it out"
        )
    return stream


def _decodable(stream: VideoStream | AudioStream) -> bool:
    return getattr(stream, "codec_context", None) is not None  # PyAV: None where FFmpeg has no decoder


def _describe(stream: VideoStream) -> str:
    if not _decodable(stream):
        return f"{stream.index} (no decoder)"
    context = stream.codec_context
    return f"{stream.index} ({context.codec.canonical_name} {context.width}x{context.height})"


def first_frame(container: InputContainer, stream: VideoStream, limits: Limits = STANDARD) -> av.VideoFrame:
    """The first frame of a stream; MediaError if there is none."""
    read_only(container, stream)
    open_decoder(stream, limits)
    base = stream.time_base or Fraction(1)
    clock = Clock(base, start_pts=0, last_pts=0, fps=1)
    frame = next(decode(container.demux(stream), clock), None)
    if frame is None:
        raise MediaError(
            f"expected frames in video stream {stream.index}; got none; leave it out of the input"
        )
    return frame


@dataclass(frozen=True)
class _Tail:
    last: int  # the latest pts
    end: int  # where its packet ends


def _tail(container: InputContainer, stream: VideoStream | AudioStream, video: VideoStream) -> _Tail | None:
    """A stream's end, from its last packets: nothing is decoded, and with an index only the tail is read."""
    read_only(container, stream)
    guide = video if in_matroska(container) else stream
    assert guide.time_base is not None
    length = Fraction(container.duration or 0, 1_000_000)
    # Matroska is entered at video keyframes, and sound may end long before the last one: go back further.
    back = [1 << n for n in range(20) if 1 << n < length]
    for time in [FAR, *(length - step for step in back), Fraction(0)]:
        seek(container, guide, time)
        entries = stream.index_entries
        if time == FAR and guide is stream and len(entries) > TAIL:
            # One entry per packet: MP4 can be entered between keyframes, so the last GOP is not read.
            container.seek(entries[-TAIL].timestamp, stream=stream, any_frame=True)
        found = _last_packet(container, stream)
        if found is not None:
            return found
    return None


def _last_packet(container: InputContainer, stream: VideoStream | AudioStream) -> _Tail | None:
    last: tuple[int, int] | None = None
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise MediaError(
                f"truncated: expected {packet.size} bytes or more in the last packet, at byte {packet.pos}; "
                f"the file has {container.size} bytes; fetch it again"
            )
        if packet.pts is not None and not packet.is_discard:
            last = max(last or (packet.pts, 0), (packet.pts, packet.duration or 0))
    if last is None:
        return None
    pts, duration = last
    if duration == 0 and isinstance(stream, VideoStream) and stream.time_base is not None:
        rate = stream.average_rate or stream.guessed_rate
        duration = round(1 / (rate * stream.time_base)) if rate else 0  # Matroska need not tell durations
    return _Tail(pts, pts + duration)
