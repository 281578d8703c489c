"""Strange media, each with what becomes of it: a folder made once, for the decoder's process and for whole runs.

A new kind of item is a line of STRANGE: how it is made, and its windows or its error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from pipelines.limits import Limits
from tests.clips import add_audio, encode_sound, tone, write_clip

#: What the folder is read with: lower than by default, so that what passes them is quickly made.
LIMITS = Limits(
    bytes=2 << 20, pixels=1 << 24, frames=50_000, duration=3600, streams=8, seconds=60, memory=160 << 20
)


@dataclass(frozen=True)
class Strange:
    """One item: its name, how it is made, and what becomes of it."""

    name: str
    make: Callable[[Path], None]
    frames: int = 0  #: real ones, at 25 a second; windows have 16
    sound: bool = False
    error: str = ""  #: the class, where it goes to quarantine
    message: str = ""  #: a regular expression
    stage: str = "probe"

    @property
    def windows(self) -> int:
        return -(-self.frames // 16)


def clip(**options: object) -> Callable[[Path], None]:
    return lambda path: write_clip(path, **({"frames": 20} | options))  # type: ignore[arg-type]


def text(path: Path) -> None:
    path.write_text("this is not a video\n" * 20)


def cut(path: Path) -> None:
    write_clip(path, frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def matroska(path: Path) -> None:
    write_clip(path, frames=20, container="matroska")


def picture(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 48), "red").save(path, format="PNG")


def no_frames(path: Path) -> None:
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = add_audio(out, "pcm_s16le", 48_000, 1)
        out.mux(encode_sound(stream, tone(10_000, 48_000)))


def no_picture(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = add_audio(out, "aac", 48_000, 1)
        out.mux(encode_sound(stream, tone(10_000, 48_000)))


def damaged(path: Path) -> None:
    """Noise in the second of its keyframes: its headers are fine."""
    write_clip(path, frames=40, gop=20, size=(128, 96))
    with av.open(str(path)) as container:
        key = [packet for packet in container.demux(video=0) if packet.is_keyframe][1]
    data = bytearray(path.read_bytes())
    assert key.pos is not None
    noise = np.random.default_rng(0).integers(0, 256, key.size - 120, dtype=np.uint8)
    data[key.pos + 80 : key.pos + key.size - 40] = noise.tobytes()
    path.write_bytes(data)


def large(path: Path) -> None:
    """Its headers say 8192x8192, the container's and the picture's."""
    write_clip(path, frames=3, size=(70, 50), codec="mjpeg", pixel_format="yuvj420p")
    data, side = path.read_bytes(), (8192).to_bytes(2)
    assert data.count(b"\0\x46\0\x32") == 1
    assert data.count(b"\0\x32\0\x46") == 3
    path.write_bytes(data.replace(b"\0\x46\0\x32", 2 * side).replace(b"\0\x32\0\x46", 2 * side))


def hungry(path: Path) -> None:
    """Within the limit of pixels: every frame takes 24 MB, its RGB 48."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "threads": "1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 4000, 4000, "yuv420p"
        for n in range(6):
            out.mux(stream.encode(_grey(4000, 4000, 20 * n, n)))
        out.mux(stream.encode(None))


def _grey(width: int, height: int, level: int = 128, pts: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([level if plane.width == width else 128]) * plane.buffer_size)
    frame.pts = pts
    return frame


def many_frames(path: Path) -> None:
    """100,000 times the same packet, in 4 MB."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        packet = (stream.encode(_grey(16, 16)) + stream.encode(None))[0]
        data, base = bytes(packet), packet.time_base
        for n in range(100_000):
            again = av.Packet(data)
            again.stream, again.time_base, again.is_keyframe = stream, base, True
            again.pts = again.dts = round(Fraction(n, 25) / base)
            out.mux(again)


def many_streams(path: Path) -> None:
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("mpeg4", rate=25) for _ in range(9)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for stream in streams:
            out.mux(stream.encode(_grey(16, 16)))
            out.mux(stream.encode(None))


def not_square(path: Path) -> None:
    """Pixels that are shown twice as wide as high: they are taken as they are stored."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        for n in range(20):
            out.mux(stream.encode(_grey(32, 48, 10 * n, n)))
        out.mux(stream.encode(None))


def old_title(path: Path) -> None:
    """Tags from before UTF-8."""
    write_clip(path, frames=20)
    data = path.read_bytes()
    assert data.count(b"Lavf") == 1
    path.write_bytes(data.replace(b"Lavf", "über".encode("latin-1")))


def long(path: Path) -> None:
    """Two frames, an hour and more apart."""
    write_clip(path, frames=2, pts=[0, 4_000_000], time_base=Fraction(1, 1000))


def big(path: Path) -> None:
    clip(frames=60, codec="ffv1", pixel_format="bgr0", size=(320, 240), gop=1)(path)


STRANGE = [
    Strange("plain.mp4", clip(audio_codec="aac"), 20, True),
    Strange("zero.mp4", Path.touch, error="MediaError", message=r"expected a video file; got 0 bytes"),
    Strange("cut.mp4", cut, error="MediaError", message=r"truncated: its 'mdat' box promises \d+ bytes"),
    Strange(
        "text.mp4", text, error="MediaError", message=r"expected MP4/MOV or Matroska/WebM; the file begins"
    ),
    Strange(
        "picture.mp4", picture, error="MediaError", message=r"expected MP4/MOV or .* begins with b'.x89PNG"
    ),
    Strange("matroska.mp4", matroska, 20),  # a wrong name does no harm where what it holds is known
    Strange(
        "no-frames.mkv", no_frames, error="MediaError", message=r"expected frames in video stream 0; got none"
    ),
    Strange(
        "no-picture.mp4", no_picture, error="MediaError", message=r"expected a video stream; got 0: audio"
    ),
    Strange("one-frame.mp4", clip(frames=1, audio_codec="aac"), 1, True),
    Strange("variable.mkv", clip(frames=5, pts=[0, 5, 40, 300, 900], time_base=Fraction(1, 1000)), 24),
    Strange("silent.mp4", clip(), 20),
    Strange("telephone.mov", clip(audio_codec="pcm_mulaw", sample_rate=8000), 20, True),
    Strange("8khz.mp4", clip(audio_codec="aac", sample_rate=8000), 20, True),
    Strange("surround.mp4", clip(audio_codec="aac", channels=6), 20, True),
    Strange("ten-bit.mp4", clip(pixel_format="yuv420p10le"), 20),
    Strange("alpha.mov", clip(codec="qtrle", pixel_format="argb"), 20),
    Strange("alpha.webm", clip(codec="libvpx-vp9", pixel_format="yuva420p"), 20),
    Strange("rotated.mp4", clip(rotation=90), 20),
    Strange("dot.mkv", clip(size=(1, 1), codec="ffv1", pixel_format="bgr0"), 20),
    Strange("dot.mp4", clip(size=(1, 1), pixel_format="yuv444p"), 20),
    Strange("not-square.mp4", not_square, 20),
    Strange("old-title.mp4", old_title, 20),
    Strange("damaged.mp4", damaged, error="MediaError", message=r"corrupt video at 0\.\d+ s", stage="decode"),
    Strange("big.mkv", big, error="LimitError", message=r"bytes of the video: .* limits\.bytes allows"),
    Strange("large.mov", large, error="LimitError", message=r"pixels of a frame in .* the 16,777,216 that"),
    Strange(
        "many-frames.mp4", many_frames, error="LimitError", message=r"frames in video stream 0: 100,000 are"
    ),
    Strange(
        "long.mkv", long, error="LimitError", message=r"frames in video stream 0 at 25 a second: 100,001 are"
    ),
    Strange(
        "many-streams.mp4",
        many_streams,
        error="LimitError",
        message=r"streams in the file: 9 are more than the 8",
    ),
    Strange(
        "hungry.mp4",
        hungry,
        error="DecodeMemory",
        message=r"needs more than the 167,772,160 bytes",
        stage="decode",
    ),
]
if "libfdk_aac" in av.codec.codecs_available:
    HE = {"profile": "aac_he"}
    STRANGE.append(Strange("he-aac.mp4", clip(audio_codec="libfdk_aac", audio_options=HE), 20, True))


def make_strange_media(folder: Path) -> Path:
    for strange in STRANGE:
        strange.make(folder / strange.name)
    return folder
