"""One item's MP4: its windows' real frames and real sound, one after the other, as one continuous encode.

H.264 and AAC, the index in front (faststart). Sound and picture both begin at 0: what the AAC encoder puts before
its first sample is hidden by the container's edit list.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

_RATE = 48_000  # of the sound in the file, whatever the model's is
_STEM_BYTES = 160  # file systems allow 255 for the whole name
_CRF = 18  # nearly all that the frames have
_H264 = {"threads": "1"}  # one thread an item: items run beside each other
_BT601 = (
    ColorPrimaries.SMPTE170M,
    ColorTrc.SMPTE170M,
    Colorspace.ITU601,
)  # what players take small pictures for


@dataclass(frozen=True)
class Shot:
    """What one window adds to an MP4."""

    video: npt.NDArray[np.uint8]  #: (frames, height, width, 3), real ones only
    audio: npt.NDArray[np.float32]  #: (samples,), real ones only; none where there is no sound


def mp4_name(uri: str, item_id: str) -> str:
    """Where an item's MP4 is, relative to the output."""
    return f"video/{safe_stem(uri, item_id)}.mp4"


def safe_stem(uri: str, item_id: str) -> str:
    """What an item's files are called: its source's name made safe, its id to keep it unique."""
    name = unicodedata.normalize("NFC", uri.rstrip("/").rpartition("/")[2])
    stem = re.sub(r"[^\w.-]", "_", name.rpartition(".")[0] or name)
    stem = stem.encode()[:_STEM_BYTES].decode(errors="ignore").lstrip(".-")  # neither hidden nor an option
    return f"{stem or '_'}-{item_id}"


def write_mp4(path: Path, shots: Iterable[Shot], fps: int, rate: int, crf: int = _CRF) -> None:
    """Encode the shots into one MP4 of `fps` frames a second, their sound sampled at `rate`; holds one at a time.

    `crf` is H.264's: larger numbers make smaller files.
    There is sound if the first shot has some. An odd width or height gains a copy of its last column or row, for
    H.264's colours come in pairs of pixels.
    """
    shots = iter(shots)
    first = next(shots)
    height, width = (side + side % 2 for side in first.video.shape[1:3])
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        video = out.add_stream("libx264", rate=fps, options=_H264 | {"crf": str(crf)})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        _tag(video.codec_context)
        audio = _add_sound(out) if len(first.audio) else None
        frames, samples = 0, 0
        for shot in chain([first], shots):
            for picture in shot.video:
                out.mux(video.encode(_frame(picture, frames, fps)))
                frames += 1
            if audio is not None and len(shot.audio):
                out.mux(audio.encode(_sound(shot.audio, samples, rate)))
                samples += len(shot.audio)
        for stream in (video, audio):
            if stream is not None:
                out.mux(stream.encode(None))


def _tag(context: VideoCodecContext) -> None:
    context.color_primaries, context.color_trc, context.colorspace = _BT601
    context.color_range = ColorRange.MPEG


def _add_sound(out: "av.container.OutputContainer") -> AudioStream:
    stream = out.add_stream("aac", rate=_RATE, layout="mono")
    assert isinstance(stream, AudioStream)
    return stream


def _frame(picture: npt.NDArray[np.uint8], pts: int, fps: int) -> av.VideoFrame:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, threads=1)
    frame.pts, frame.time_base = pts, Fraction(1, fps)
    return frame


def _sound(samples: npt.NDArray[np.float32], pts: int, rate: int) -> av.AudioFrame:
    # AAC refuses what is not a number; a model that overflowed must not cost the pictures too.
    samples = np.clip(np.nan_to_num(samples), -1, 1)
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), pts
    return frame
