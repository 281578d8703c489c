"""A few seconds or a frame of what went in and of what came out, as small files in memory, for a page."""

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.mp4 import Shot, write_mp4
from pipelines.multimodal import FPS
from pipelines.quality import ssim

Picture = npt.NDArray[np.uint8]  # (height, width, 3)
Sound = npt.NDArray[np.float32]  # (samples,)

_LEAST, _MOST = 192, 288  # of a picture's longer side on a page: what is smaller is enlarged by whole pixels
_CRFS = (20, 26, 32, 38)  # from what can't be told from the frames to what can
_EVERY = 4  # frames from one whose SSIM is computed to the next


@dataclass(frozen=True)
class Clip:
    """Frames and their sound, from the same moment on."""

    pictures: Sequence[Picture]  #: as large as they are shown
    sound: Sound
    rate: int  #: samples a second

    @property
    def seconds(self) -> float:
        return len(self.pictures) / FPS


def clip_of(shots: Iterable[Shot], rate: int) -> Clip:
    """What the shots come to."""
    sound: list[Sound] = []
    pictures = [sized(picture) for picture in _pictures(shots, sound)]
    return Clip(pictures, _joined(sound), rate)


def compared(
    original: Iterable[Shot], made: Iterable[Shot], rates: tuple[int, int]
) -> tuple[Clip, Clip, list[float]]:
    """Both as clips of one length, and the SSIM of every fourth frame, at the frames' own size."""
    sounds: tuple[list[Sound], list[Sound]] = ([], [])
    pictures: tuple[list[Picture], list[Picture]] = ([], [])
    alike: list[float] = []
    streams = (_pictures(shots, sound) for shots, sound in zip((original, made), sounds, strict=True))
    for number, (one, other) in enumerate(zip_longest(*streams)):
        if one is None or other is None:  # the sound of a last shot still counts
            continue
        same = other[: one.shape[0], : one.shape[1]]  # an MP4's sides are even
        if number % _EVERY == 0:
            value = ssim(one, same)
            alike += [] if value is None else [value]
        for kept, picture in zip(pictures, (one, same), strict=True):
            kept.append(sized(picture))
    clips = [
        Clip(kept, _joined(sound), rate) for kept, sound, rate in zip(pictures, sounds, rates, strict=True)
    ]
    return clips[0], clips[1], alike


def shots_of_mp4(opened: Callable[[], Any], start: float, seconds: float) -> tuple[Iterator[Shot], int]:
    """So much of one of a run's own MP4s, a frame a shot and the sound with the first one; and the sound's rate.

    `opened` opens the file, which is read twice.
    """
    half = 0.5 / FPS
    with opened() as file:
        sound, rate = _sound_of(file, start, seconds)

    def shots() -> Iterator[Shot]:
        left = sound
        with opened() as file, av.open(file, "r") as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(int(start / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                at = float((frame.pts or 0) * stream.time_base) - start
                if at >= seconds - half:
                    return
                if at >= -half:
                    yield Shot(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)[None], left)
                    left = left[:0]

    return shots(), rate


def encoded(clip: Clip, most: int) -> bytes | None:
    """The clip as an MP4 of at most so many bytes, as good as that allows; None if it can't be had."""
    with tempfile.TemporaryDirectory(prefix="perceive-") as folder:
        path = Path(folder) / "clip.mp4"
        for crf in _CRFS:
            write_mp4(path, [Shot(np.stack(clip.pictures), clip.sound)], FPS, clip.rate, crf)
            if path.stat().st_size <= most:
                return path.read_bytes()
    return None


def jpeg(picture: Picture) -> bytes:
    """A picture as it is shown, as JPEG."""
    file = io.BytesIO()
    Image.fromarray(sized(picture)).save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue()


def sized(picture: Picture) -> Picture:
    """A picture as large as a page shows it: a large one averaged, of a small one every pixel as it is."""
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer > _MOST:
        size = max(1, round(width * _MOST / longer)), max(1, round(height * _MOST / longer))
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    times = -(-_LEAST // longer) if longer < _LEAST else 1
    return picture.repeat(times, 0).repeat(times, 1) if times > 1 else picture


def _pictures(shots: Iterable[Shot], sound: list[Sound]) -> Iterator[Picture]:
    """The frames, one by one; the sound goes to a list."""
    for shot in shots:
        sound.append(shot.audio)
        yield from shot.video


def _joined(sound: Sequence[Sound]) -> Sound:
    return np.concatenate([np.empty(0, np.float32), *sound])


def _sound_of(file: Any, start: float, seconds: float) -> tuple[Sound, int]:
    with av.open(file, "r") as container:
        if not container.streams.audio:
            return np.empty(0, np.float32), 1
        stream = container.streams.audio[0]
        rate = stream.rate
        found = np.zeros(round(seconds * rate), np.float32)
        last = 0
        assert stream.time_base is not None
        container.seek(int(Fraction(start) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            at = round((float((frame.pts or 0) * stream.time_base) - start) * rate)
            samples = frame.to_ndarray()[0].astype(np.float32)
            if at >= len(found):
                break
            kept = samples[max(0, -at) : len(found) - at]
            found[max(0, at) : max(0, at) + len(kept)] = kept
            last = max(0, at) + len(kept)
        return found[:last], rate
