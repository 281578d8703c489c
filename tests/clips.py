"""Small clips with known content, made as tests need them."""

import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
AUDIO_FRAME = {"aac": 1024, "libopus": 960, "libmp3lame": 1152}

Picture = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]


def moving(index: int, width: int, height: int) -> Picture:
    """A gradient with a bright bar that moves: every frame differs from every other near it."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 200 // width, y * 200 // height, (x + y + 5 * index) % 256], axis=-1)
    at = 3 * index % width
    picture[:, at : at + max(2, width // 8)] = 240
    return picture.astype(np.uint8)


def tone(samples: int, rate: int, channels: int = 1) -> Sound:
    """(samples, channels): a chirp with some noise, another in each channel."""
    time = np.arange(samples) / rate
    noise = np.random.default_rng(0).standard_normal((samples, channels)) * 0.02
    swept = [0.3 * np.sin(2 * np.pi * (300 + 150 * c + 40 * np.sin(time)) * time) for c in range(channels)]
    return (np.stack(swept, axis=1) + noise).astype(np.float32)


def write_clip(
    path: Path | io.BytesIO,
    *,
    frames: int = 50,
    fps: Fraction | int = 25,
    size: tuple[int, int] = (64, 48),
    container: str | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 12,
    bframes: int | None = None,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    rotation: int = 0,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    draw: Callable[[int], Picture] | None = None,
    audio_codec: str | None = None,
    sample_rate: int = 48_000,
    channels: int = 1,
    sound: Sound | None = None,
    audio_start: Fraction | float = 0,
    audio_options: Mapping[str, str] | None = None,
) -> None:
    """Write a clip. `pts` (in `time_base`, default 1/fps) makes it VFR; `sound` is (samples, channels)."""
    width, height = size
    if container is None:
        assert isinstance(path, Path)
        container = FORMATS[path.suffix]
    where = str(path) if isinstance(path, Path) else path
    with av.open(where, "w", format=container, options=dict(container_options or {})) as out:
        video = out.add_stream(codec, rate=fps, options=quiet(codec, bframes) | dict(options or {}))
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.codec_context.gop_size = gop
        video.codec_context.thread_count = 1
        video.codec_context.time_base = time_base or 1 / Fraction(fps)
        if rotation:
            video.set_display_rotation(rotation)
        audio = add_audio(out, audio_codec, sample_rate, channels, audio_options) if audio_codec else None
        packets: list[av.Packet] = []
        for index in range(frames):
            picture = draw(index) if draw else moving(index, width, height)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index if pts is None else pts[index]
            frame.time_base = video.codec_context.time_base
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio is not None:
            if sound is None:
                sound = tone(int(frames / Fraction(fps) * sample_rate), sample_rate, channels)
            packets += encode_sound(audio, sound, round(Fraction(audio_start) * sample_rate))
        for packet in sorted(packets, key=lambda p: (p.dts if p.dts is not None else 0) * (p.time_base or 0)):
            out.mux(packet)


def add_audio(
    out: OutputContainer,
    codec: str,
    rate: int,
    channels: int,
    options: Mapping[str, str] | None = None,
) -> AudioStream:
    stream = out.add_stream(codec, rate=rate, options=dict(options or {}))
    assert isinstance(stream, AudioStream)
    stream.codec_context.layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    stream.codec_context.thread_count = 1
    return stream


def encode_sound(stream: AudioStream, sound: Sound, start: int = 0) -> list[av.Packet]:
    context = stream.codec_context
    step = AUDIO_FRAME.get(context.codec.name, 1024)
    packets: list[av.Packet] = []
    for at in range(0, len(sound), step):
        part = np.ascontiguousarray(sound[at : at + step].T)
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=context.layout)
        frame.sample_rate, frame.time_base = context.sample_rate, Fraction(1, context.sample_rate)
        frame.pts = start + at
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def quiet(codec: str, bframes: int | None) -> dict[str, str]:
    """Fast, single-threaded, silent encoders."""
    known: dict[str, dict[str, Any]] = {
        "libx264": {"preset": "veryfast", "threads": "1"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
        "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    }
    options: dict[str, str] = dict(known.get(codec, {}))
    if bframes is not None:
        if codec == "libx265":
            options["x265-params"] += f":bframes={bframes}"
        else:
            options["bf"] = str(bframes)
    return options
