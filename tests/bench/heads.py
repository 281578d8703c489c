"""Each head at its published size, one sample, float32: transformers against ours, as their users call them."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.models.perceiver import modeling_perceiver as hf

import perceiver_core
from perceiver_core.config import PUBLISHED

MEASURED = 5


def inputs_of(name: str) -> Tensor:
    """One sample of random numbers, in the shape that a published model was trained on."""
    if name.endswith("language-perceiver"):
        return torch.randint(6, 262, (1, 2048))
    shape = (1, 2, 27, 368, 496) if "flow" in name else (1, 3, 224, 224)
    return torch.randn(shape)


def in_turn(calls: list[Callable[[], Any]]) -> list[list[float]]:
    """Seconds of each call, measured alternately, so that a noisy neighbour meets all of them."""
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(MEASURED + 1):
        for call, seconds in zip(calls, taken, strict=True):
            began = time.perf_counter()
            call()
            if turn:  # the first one warms up
                seconds.append(time.perf_counter() - began)
    return taken


def heads() -> None:
    """Print the median, minimum and maximum of both for the five heads that are one call each."""
    print(
        f"one sample, float32, {torch.get_num_threads()} threads, {MEASURED} runs each: median s (min to max)"
    )
    for name, published in PUBLISHED.items():
        if "multimodal" in name:
            continue
        torch.manual_seed(0)
        config = published.config
        ours = getattr(perceiver_core, published.architecture)(config).eval()
        theirs = getattr(hf, published.architecture)(transformers.PerceiverConfig(**config.to_dict())).eval()
        theirs.load_state_dict(ours.state_dict())
        x = inputs_of(name)
        with torch.inference_mode():
            same = torch.allclose(theirs(x).logits, ours(x).logits, atol=1e-4)
            both = in_turn([lambda m=m, x=x: m(x) for m in (theirs, ours)])  # type: ignore[misc]
        told = [f"{statistics.median(s):6.2f} ({min(s):.2f} to {max(s):.2f})" for s in both]
        ratio = statistics.median(both[0]) / statistics.median(both[1])
        print(f"{name:34} transformers {told[0]}  ours {told[1]}  {ratio:.2f}x, the same answers: {same}")
