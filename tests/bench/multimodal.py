"""A clip at the published size: the documented recipe against encode-once."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from perceiver_core import OutputPoints, PerceiverForMultimodalAutoencoding
from perceiver_core.config import multimodal_perceiver
from perceiver_core.output_points import published_chunks

CHUNKS, MEASURED = 128, 5


def seconds(call: Callable[[], Any], times: int = MEASURED) -> list[float]:
    call()  # warm
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def encode_once() -> None:
    """Time a few of the 128 chunks of each side, in turn, and print what a whole clip comes to."""
    from transformers import PerceiverConfig as HFConfig
    from transformers import PerceiverForMultimodalAutoencoding as HFModel

    torch.manual_seed(0)
    config = multimodal_perceiver()
    ours = PerceiverForMultimodalAutoencoding(config).eval()
    theirs = HFModel(HFConfig(**config.to_dict())).eval()
    theirs.load_state_dict(ours.state_dict())
    images, audio = torch.rand(1, 16, 3, 224, 224), torch.rand(1, 30_720, 1) * 2 - 1
    inputs = {"image": images, "audio": audio, "label": torch.zeros(1, config.num_labels)}
    chunk = next(iter(published_chunks(config, CHUNKS)))
    points = {"image": chunk.image, "audio": chunk.audio, "label": None}
    with torch.inference_mode():
        recipe = seconds(lambda: theirs(inputs=inputs, subsampled_output_points=points))
        encode = seconds(lambda: ours.encode(inputs))
        latents = ours.encode(inputs)
        decode = seconds(lambda: ours.decode(latents, OutputPoints(chunk.image, chunk.audio, label=True)))
        same = torch.allclose(
            theirs(inputs=inputs, subsampled_output_points=points).logits["image"],
            ours.decode(latents, chunk)["image"],
            atol=1e-4,
        )
    clip_recipe = CHUNKS * statistics.median(recipe)
    clip_ours = statistics.median(encode) + CHUNKS * statistics.median(decode)
    print(f"one clip, 16x224x224 and 30,720 samples, float32, B=1, {torch.get_num_threads()} threads")
    print(f"{'':34}{'median s':>10}{'min':>8}{'max':>8}")
    for name, taken in (
        ("documented recipe, 1 of 128 calls", recipe),
        ("ours, encode", encode),
        ("ours, decode 1 of 128 chunks", decode),
    ):
        print(f"{name:34}{statistics.median(taken):10.3f}{min(taken):8.3f}{max(taken):8.3f}")
    print(
        f"whole clip from the medians: {clip_recipe:.0f} s against {clip_ours:.1f} s, {clip_recipe / clip_ours:.1f}x"
    )
    print(f"the same answers: {same}")
