"""Train the demo checkpoint: python examples/train_demo.py --out perceiver_core/demo

Reproducible from its seed on one machine. It saves its state as it goes and takes it up again when it is run again.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from demo_clips import LABELS, SIZE, make_clip
from torch import nn

from perceiver_core import OutputPoints, PerceiverConfig, PerceiverForMultimodalAutoencoding
from perceiver_core.checkpoint import save
from perceiver_core.losses import autoencoding_loss

PIXELS = 32  #: a side of what the model sees
FRAMES, SAMPLES = 16, 30_720
SEED = 0
#: Squared error, for the figures are PSNR; the paper's L1 and weights are the loss's defaults.
WEIGHTS = {"image": 1.0, "audio": 0.5, "label": 0.02}
NOTHING = dict.fromkeys(WEIGHTS, 0.0)


def demo_config() -> PerceiverConfig:
    """The published architecture in small."""
    return PerceiverConfig(
        num_latents=128,
        d_latents=128,
        d_model=453,
        num_self_attends_per_block=4,
        num_self_attention_heads=4,
        num_cross_attention_heads=1,
        qk_channels=128,
        v_channels=128,
        image_size=PIXELS // 4,
        samples_per_patch=64,
        output_shape=(1, FRAMES, PIXELS, PIXELS),
        output_num_channels=128,
        attention_probs_dropout_prob=0.0,
        _label_trainable_num_channels=32,
        id2label=dict(enumerate(LABELS)),
    )


class Figures(NamedTuple):
    """Of a step's batch."""

    image: float  #: mean squared error of the points
    sound: float  #: the same, over that of silence
    right: float  #: share of labels


class Windows:
    """Training windows, made once: each label's seeds 0, 1, 2, ..."""

    def __init__(self, count: int) -> None:
        self.labels = torch.arange(count) % len(LABELS)
        self.images = torch.empty(count, FRAMES, PIXELS, PIXELS, 3, dtype=torch.uint8)
        self.sounds = torch.empty(count, SAMPLES, dtype=torch.float16)
        block = SIZE // PIXELS
        for i in range(count):
            clip = make_clip(i % len(LABELS), i // len(LABELS), FRAMES)
            # What the pipeline's bilinear resize does at a whole ratio of two: the mean of each block.
            small = clip.frames.reshape(FRAMES, PIXELS, block, PIXELS, block, 3).mean((2, 4)).round()
            self.images[i] = torch.from_numpy(small)
            self.sounds[i] = torch.from_numpy(clip.sound)

    def batch(self, chosen: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        images = self.images[chosen].permute(0, 1, 4, 2, 3).float() / 255  # B, T, 3, H, W
        return {"image": images, "audio": self.sounds[chosen].float()[..., None]}, self.labels[chosen]


@dataclass
class Training:
    """All that a resume needs."""

    model: PerceiverForMultimodalAutoencoding
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        torch.save({**state, "step": self.step}, path)


def start(steps: int, rate: float) -> Training:
    """A fresh model, warmed up over a twentieth of the steps and cooled down over the rest."""
    torch.manual_seed(SEED)
    model = PerceiverForMultimodalAutoencoding(demo_config()).train()
    for module in model.modules():
        if isinstance(module, nn.Linear):  # 1/sqrt(fan in), as DeepMind's: from Hugging Face's 0.02 it stalls
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm = max(1, steps // 20)

    def factor(step: int) -> float:
        return min(step / warm, 0.5 + 0.5 * math.cos(math.pi * min(1, (step - warm) / (steps - warm))))

    return Training(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor))


def take_step(
    training: Training, windows: Windows, batch: int, image_points: int, audio_points: int
) -> Figures:
    """One step on random windows and points, which depend on the step alone, not on a resume."""
    config = training.model.config
    dice = torch.Generator().manual_seed(SEED + 1 + training.step)
    inputs, labels = windows.batch(torch.randint(len(windows.labels), (batch,), generator=dice))
    points = OutputPoints(
        image=torch.randperm(FRAMES * PIXELS * PIXELS, generator=dice)[:image_points],
        audio=torch.randperm(config.num_audio_patches, generator=dice)[:audio_points],
        label=True,
    )
    logits = training.model.decode(training.model.encode(inputs), points)
    loss = autoencoding_loss(logits, inputs, points, labels, WEIGHTS, nn.functional.mse_loss)
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.schedule.step()
    training.step += 1
    right = (logits["label"].argmax(1) == labels).float().mean().item()
    alone = [
        autoencoding_loss(logits, inputs, points, labels, only, nn.functional.mse_loss).item()
        for only in ({**NOTHING, "image": 1.0}, {**NOTHING, "audio": 1.0})
    ]
    return Figures(alone[0], alone[1] / inputs["audio"].square().mean().item(), right)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    options.add_argument(
        "--state", type=Path, default=Path("demo-training.pt"), help="where training resumes"
    )
    options.add_argument("--steps", type=int, default=5000)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--clips", type=int, default=12_000)
    options.add_argument("--image-points", type=int, default=512)
    options.add_argument("--audio-points", type=int, default=48)
    options.add_argument("--rate", type=float, default=1e-3, help="the learning rate's peak")
    args = options.parse_args()
    training = start(args.steps, args.rate)
    if args.state.exists():
        training.load(args.state)
    print(
        f"{sum(p.numel() for p in training.model.parameters()):,} parameters; making {args.clips} clips",
        flush=True,
    )
    windows = Windows(args.clips)
    figures: list[Figures] = []
    since = time.monotonic()
    while training.step < args.steps:
        figures.append(take_step(training, windows, args.batch, args.image_points, args.audio_points))
        if training.step % 50 == 0:
            image, sound, right = np.mean(figures, axis=0)
            print(
                f"step {training.step}: video {-10 * math.log10(image):.2f} dB, sound {-10 * math.log10(sound):.2f} "
                f"dB above silence, labels {right:.1%}, {(time.monotonic() - since) / len(figures):.2f} s a step",
                flush=True,
            )
            figures, since = [], time.monotonic()
        if training.step % 250 == 0 or training.step == args.steps:
            training.save(args.state)
    save(training.model.eval(), args.out)


if __name__ == "__main__":
    main()
