"""Make what the example jobs run on: a few small MP4s, and a small checkpoint of the published architecture.

The weights are random from a fixed seed: the output shows the way that data takes, not a likeness.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from perceiver_core import PerceiverConfig, PerceiverForMultimodalAutoencoding
from perceiver_core.checkpoint import save

FPS, RATE = 25, 48_000
CLASSES = ["falling ball", "rising ball", "left to right", "right to left"]
HERE = Path(__file__).parent


def main() -> None:
    (HERE / "media").mkdir(exist_ok=True)
    for i, (name, seconds) in enumerate(zip(CLASSES, (2.0, 1.5, 3.0, 0.9), strict=True)):
        path = HERE / "media" / f"{name.replace(' ', '-')}.mp4"
        if not path.exists():
            write_mp4(path, frames=moving_ball(i, round(seconds * FPS)), sound=tone(220 * (i + 1), seconds))
    if not (HERE / "checkpoint").exists():
        save(small_model(), HERE / "checkpoint")


def small_model() -> PerceiverForMultimodalAutoencoding:
    """The published architecture at 48x48 pixels, with random weights."""
    torch.manual_seed(0)
    config = PerceiverConfig(
        num_latents=64,
        d_latents=128,
        d_model=704,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=1,
        image_size=12,
        output_shape=(1, 16, 48, 48),
        output_num_channels=64,
        _label_trainable_num_channels=16,
        id2label=dict(enumerate(CLASSES)),
    )
    return PerceiverForMultimodalAutoencoding(config)


def moving_ball(direction: int, count: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Frames (count, height, width, 3) of a ball that crosses the picture in one of four directions."""
    along = np.linspace(0.1, 0.9, count)
    if direction % 2:
        along = along[::-1]
    across = np.full(count, 0.5)
    y, x = (along, across) if direction < 2 else (across, along)
    rows, columns = np.mgrid[0:height, 0:width]
    distance = np.hypot(
        rows - (y * height)[:, None, None], columns - width / 2 - ((x - 0.5) * height)[:, None, None]
    )
    ball = np.clip(14 - distance, 0, 1)[..., None]  # T, H, W, 1: one pixel of soft edge
    colour = np.eye(3)[direction % 3] * 220 + 30
    return (ball * colour + (1 - ball) * 40).astype(np.uint8)


def tone(hertz: float, seconds: float) -> np.ndarray:
    """Stereo samples (2, n) in [-1, 1]."""
    wave = 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return np.stack([wave, wave]).astype(np.float32)


def write_mp4(path: Path, frames: np.ndarray, sound: np.ndarray) -> None:
    """H.264 and AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "23"})
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        for picture in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout="stereo")
        block.sample_rate, block.pts, block.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    main()
