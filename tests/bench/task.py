"""A task, the ways of doing it, and the models that they share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core.config import PerceiverConfig
from perceiver_core.folding import FoldError, fold
from tests.bench.measure import DEVICE, memory_of
from tests.parity.conftest import Oracle

DOCUMENTED, CAREFUL, PLAIN, FOLDED = "documented recipe", "careful user", "perceiver_core", "folded"

Answer = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Models:
    """The same weights four times: theirs as documented, theirs as a careful user has them, ours, ours folded."""

    documented: Any
    careful: Any
    ours: Any
    folded: Any
    dtype: torch.dtype
    constants: int | None = None  # bytes that folding has added
    missing: str = ""  # why there is no folded


@dataclass(frozen=True)
class Way:
    """One implementation on one batch.

    `pieces` yields the whole task's answers in `count` pieces. They are alike but for the first, which may do more, so
    that a task of many pieces is measured by its first few. `answer` is what all ways are compared by.
    """

    pieces: Callable[[], Iterable[Any]]
    answer: Callable[[], Answer]
    count: int = 1
    setting: str = ""


def whole(call: Callable[[], Answer], setting: str = "") -> Way:
    """A way that is one call."""
    return Way(lambda: (call() for _ in range(1)), call, setting=setting)


@dataclass(frozen=True)
class Task:
    """What is computed, and what it costs. `ways` has for each name the settings to choose from."""

    name: str
    title: str
    config: PerceiverConfig
    gflop: float  # of one sample: each multiplication and addition once, as the plain modules do them
    counted: str
    ways: Callable[[Models, int], dict[str, list[Way]]]
    batches: tuple[int, ...]  # those to choose from on a CPU
    gpu_batches: tuple[int, ...]
    documented_casts: bool = True  # False: of bfloat16, the documented model can do no more than autocast
    note: str = ""


def pair(config: PerceiverConfig) -> tuple[nn.Module, nn.Module]:
    """Theirs and ours, float32, with every weight random and the same."""
    import transformers
    from transformers.models.perceiver import modeling_perceiver

    import perceiver_core

    architecture = config.architectures[0]
    ours = getattr(perceiver_core, architecture)(config).eval()
    Oracle.randomise(ours)
    theirs = getattr(modeling_perceiver, architecture)(
        transformers.PerceiverConfig(**config.to_dict())
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    return theirs.to(DEVICE), ours.to(DEVICE)


def models(task: Task, theirs: nn.Module, ours: nn.Module, dtype: torch.dtype) -> Models:
    """What the ways need in this dtype. The pair is converted in place, from float32 on."""
    documented, to_fold = theirs, ours
    if dtype != torch.float32:
        if not task.documented_casts:
            documented = copy.deepcopy(theirs)
        to_fold = copy.deepcopy(
            ours
        )  # as the pipeline does it: float32 weights, rounded once, after the algebra
    careful, ours = theirs.to(dtype), ours.to(dtype)
    made: list[tuple[Any, str]] = []
    constants, _ = memory_of(lambda: made.append(_fold(to_fold, dtype)))
    folded, missing = made.pop()
    return Models(documented, careful, ours, folded, dtype, constants, missing)


def compiled(models: Models) -> Models:
    """With the careful user's layers compiled, one by one: they are alike, so few kernels serve them all."""
    model = copy.deepcopy(models.careful)
    for layer in model.modules():
        if type(layer).__name__ == "PerceiverLayer":
            layer.compile()
    return replace(models, careful=model)


def _fold(model: nn.Module, dtype: torch.dtype) -> tuple[Any, str]:
    try:
        return fold(model, dtype), ""
    except FoldError as refused:
        return None, f"folded: {refused}"


def random(*shape: int, seed: int = 0) -> Tensor:
    """Numbers in [0, 1), the same in every run, on the device."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
