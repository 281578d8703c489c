"""The demo's clips: eight classes of moving shapes and textures, each with its own pitch, made from a seed.

A clip is a function of (label, seed) alone. Seeds from 1,000,000 on are the unseen set: training never draws them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

FPS, RATE = 25, 48_000
SIZE = 64  #: pixels a side, before the pipeline's resize
WINDOW_S = 0.64  #: 16 frames
UNSEEN = 1_000_000  #: the first seed of the unseen set


@dataclass(frozen=True)
class Clip:
    frames: np.ndarray  #: uint8 (T, SIZE, SIZE, 3)
    sound: np.ndarray  #: float32 (T * RATE / FPS,) in [-1, 1]


@dataclass(frozen=True)
class _Scene:
    """What a class draws with: time and place grids, and the dice of this clip."""

    t: np.ndarray  # (T, 1, 1) seconds
    y: np.ndarray  # (1, SIZE, 1) in [-1, 1], down
    x: np.ndarray  # (1, 1, SIZE)
    speed: float  # periods per second
    phase: float  # of a period, in radians
    size: float  # about 1

    @property
    def swing(self) -> np.ndarray:
        return np.sin(2 * np.pi * self.speed * self.t + self.phase)

    @property
    def turn(self) -> np.ndarray:
        return 2 * np.pi * self.speed * self.t + self.phase


def _edge(distance: np.ndarray) -> np.ndarray:
    """Coverage of a shape from its signed distance (inside is negative), one pixel of soft edge."""
    return np.clip(0.5 - distance * SIZE / 2, 0, 1)


def bouncing_ball(s: _Scene) -> np.ndarray:
    return _edge(np.hypot(s.y + 0.55 - 1.1 * (1 - np.abs(s.swing)), s.x) - 0.38 * s.size)


def sliding_square(s: _Scene) -> np.ndarray:
    return _edge(np.maximum(np.abs(s.x - 0.55 * s.swing), np.abs(s.y)) - 0.36 * s.size)


def spinning_bar(s: _Scene) -> np.ndarray:
    along = s.x * np.cos(s.turn) + s.y * np.sin(s.turn)
    across = s.y * np.cos(s.turn) - s.x * np.sin(s.turn)
    return _edge(np.maximum(np.abs(along) - 0.85, np.abs(across) - 0.2 * s.size))


def pulsing_ring(s: _Scene) -> np.ndarray:
    return _edge(np.abs(np.hypot(s.y, s.x) - 0.5 - 0.28 * s.swing) - 0.16 * s.size)


def drifting_stripes(s: _Scene) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * np.pi * 1.25 * s.x * s.size - s.turn) * np.ones_like(s.y)


def sliding_checks(s: _Scene) -> np.ndarray:
    along = np.sin(2 * np.pi * 0.8 * s.x * s.size - s.turn)
    return 0.5 + 0.5 * np.tanh(4 * along * np.sin(2 * np.pi * 0.8 * s.y * s.size))


def swinging_triangle(s: _Scene) -> np.ndarray:
    x, y = s.x - 0.5 * s.swing, s.y - 0.1
    return _edge(np.maximum(y - 0.5 * s.size, (2 * np.abs(x) - y - 0.7 * s.size) / np.sqrt(5)))


def closing_door(s: _Scene) -> np.ndarray:
    return _edge(s.x - 0.75 * s.swing) * np.ones_like(s.y)


CLASSES: tuple[Callable[[_Scene], np.ndarray], ...] = (
    bouncing_ball,
    sliding_square,
    spinning_bar,
    pulsing_ring,
    drifting_stripes,
    sliding_checks,
    swinging_triangle,
    closing_door,
)
#: Periods of each class's tone in a window: whole numbers next to Fourier bands of the audio queries (250 to 2,400 Hz).
PERIODS = (162, 403, 564, 805, 966, 1207, 1368, 1529)
LABELS = tuple(draw.__name__.replace("_", " ") for draw in CLASSES)


def make_clip(label: int, seed: int, frames: int) -> Clip:
    """The clip of a class and a seed, `frames` long at 25 per second."""
    dice = np.random.default_rng((label, seed))
    grid = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    scene = _Scene(
        t=(np.arange(frames) / FPS)[:, None, None],
        y=grid[None, :, None],
        x=grid[None, None, :],
        speed=dice.uniform(1.1, 1.5),
        phase=dice.uniform(0, 2 * np.pi),
        size=dice.uniform(0.85, 1.15),
    )
    cover = CLASSES[label](scene)[..., None]  # T, SIZE, SIZE, 1
    light, dark = dice.uniform(0.75, 1, 3), dice.uniform(0, 0.2, 3)
    light[dice.integers(3)] *= 0.5  # a hue
    pixels = cover * light + (1 - cover) * dark
    # Each class has a pitch of whole periods a window, so its phase is that of the clip; it swells with the motion.
    time = np.arange(frames * RATE // FPS) / RATE
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * scene.speed * time + scene.phase)
    tone = np.sin(2 * np.pi * PERIODS[label] / WINDOW_S * time)
    sound = dice.uniform(0.4, 0.8) * swell * tone
    return Clip((pixels * 255).round().astype(np.uint8), sound.astype(np.float32))


def write_mp4(clip: Clip, target: Path | BinaryIO) -> None:
    """Encode a clip as H.264 and AAC."""
    with av.open(str(target) if isinstance(target, Path) else target, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "fast"})
        video.height, video.width, video.pix_fmt = SIZE, SIZE, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for picture in clip.frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(clip.sound[None], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
