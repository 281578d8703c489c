"""Figures of the demo checkpoint on 256 unseen clips: python examples/evaluate_demo.py [CHECKPOINT]

Every clip is encoded as H.264 and AAC, decoded through the pipeline's own reader and reconstructed whole, its label
masked. Prints a table and exits with 1 if a figure that the README promises is missed.
"""

import io
import sys
from dataclasses import dataclass

import numpy as np
import torch
from demo_clips import LABELS, UNSEEN, make_clip, write_mp4

from perceiver_core import OutputPoints, PerceiverForMultimodalAutoencoding
from pipelines.media.info import probe
from pipelines.media.windows import WindowShape, read_windows

CLIPS = 256
FRAMES = 32  #: of a clip: two whole windows


@dataclass(frozen=True)
class Score:
    """One window's squared errors against a peak of 1, and whether it was named right."""

    video: float
    mean_frame: float
    sound: float
    silence: float
    right: bool


def main() -> int:
    model = PerceiverForMultimodalAutoencoding.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "demo")
    scores: dict[str, list[Score]] = {label: [] for label in LABELS}
    for i in range(CLIPS):
        label = i % len(LABELS)
        scores[LABELS[label]].append(evaluate(model, label, UNSEEN + i // len(LABELS)))
    print(f"{'class':20}{'video dB':>9}{'mean frame dB':>15}{'sound over silence dB':>23}{'right':>7}")
    for name, some in scores.items():
        print_row(name, some)
    every = [score for some in scores.values() for score in some]
    video, mean_frame, sound, right = print_row("all", every)
    good = video >= 22 and video >= mean_frame + 3 and mean_frame < 20 and sound >= 3 and right >= 0.9
    print(
        "as promised" if good else "NOT as promised: video >= 22 and mean frame + 3, sound >= 3, right >= 90%"
    )
    return 0 if good else 1


def evaluate(model: PerceiverForMultimodalAutoencoding, label: int, seed: int) -> Score:
    """One window of an unseen clip: the first for even seeds, the second for odd ones."""
    file = io.BytesIO()
    write_mp4(make_clip(label, seed, FRAMES), file)
    _, frames, height, width = model.config.output_shape
    shape = WindowShape(frames, height, width, model.config.num_audio_samples)
    [window] = read_windows(file, probe(file), shape, seed % 2, seed % 2 + 1)
    video = window.video.astype(np.float32) / 255  # T, H, W, 3
    with torch.inference_mode():
        image = torch.from_numpy(video).permute(0, 3, 1, 2)[None]  # 1, T, 3, H, W
        latents = model.encode({"image": image, "audio": torch.from_numpy(window.audio)[None, :, None]})
        decoded = model.decode(latents, OutputPoints.all(model.config))
    pixels = decoded["image"].clamp(0, 1).numpy().reshape(video.shape)
    return Score(
        video=float(np.square(pixels - video).mean()),
        mean_frame=float(np.square(video - video.mean(0)).mean()),
        sound=float(np.square(decoded["audio"][0].numpy() - window.audio).mean()),
        silence=float(np.square(window.audio).mean()),
        right=decoded["label"].argmax().item() == label,
    )


def print_row(name: str, scores: list[Score]) -> tuple[float, float, float, float]:
    """Means over the windows of their PSNR, of the mean frame's, of the sound's gain, and of what was right."""
    video = float(np.mean([-10 * np.log10(score.video) for score in scores]))
    mean_frame = float(np.mean([-10 * np.log10(score.mean_frame) for score in scores]))
    sound = float(np.mean([10 * np.log10(score.silence / score.sound) for score in scores]))
    right = float(np.mean([score.right for score in scores]))
    print(f"{name:20}{video:9.2f}{mean_frame:15.2f}{sound:23.2f}{right:7.1%}")
    return video, mean_frame, sound, right


if __name__ == "__main__":
    sys.exit(main())
