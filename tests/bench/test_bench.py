"""Every task's four ways, tiny: they give the same answers, and what is measured becomes a table."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from tests.bench import flow, images, multimodal, text
from tests.bench.measure import matmul_peak
from tests.bench.run import Effort, compare, measure
from tests.bench.table import summary, table
from tests.bench.task import FOLDED, Task, Way, pair

ENCODER = {
    "num_latents": 6,
    "d_latents": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
}
TEXT = {**ENCODER, "d_model": 16, "max_position_embeddings": 40, "num_cross_attention_heads": 2}
VIDEO = {
    **ENCODER,
    "image_size": 4,
    "audio_samples_per_frame": 128,  # 128 patches in 16 frames: one for each of the recipe's chunks
    "output_shape": (1, 16, 16, 16),
    "output_num_channels": 8,
    "_label_trainable_num_channels": 4,
}
TINY: dict[str, dict[str, Any]] = {
    "multimodal": VIDEO,
    "video": VIDEO,
    "flow": {**ENCODER, "train_size": (8, 16)},
    "image-fourier": ENCODER,
    "image-learned": {**ENCODER, "image_size": 8},
    "image-conv": ENCODER,
    "masked-lm": {**TEXT, "qk_channels": 8, "v_channels": 16},
    "text": {**TEXT, "qk_channels": 8, "v_channels": 16},
}
TASKS = {task.name: task for task in (*multimodal.TASKS, *flow.TASKS, *images.TASKS, *text.TASKS)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors on one thread: with two on a busy 2-core machine they wait in OpenMP barriers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(name: str) -> Task:
    task = replace(TASKS[name], config=replace(TASKS[name].config, **TINY[name]), batches=(1, 2))
    return replace(task, ways=partial(images.ways, side=8)) if name.startswith("image") else task


@pytest.mark.parametrize("name", TASKS)
def test_all_ways_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.run.PIECES_SECONDS", 0)
    task = tiny(name)
    both = [torch.float32, torch.bfloat16]
    effort = Effort(turns=2, compile=False)
    found = list(compare(task, pair(task.config), both, effort))
    assert [comparison.dtype for comparison in found] == ["float32", "bfloat16"]
    for comparison, bound in zip(found, (1e-4, 0.1), strict=True):
        assert len(comparison.rows) == 4 or FOLDED in comparison.notes[0]
        for row in comparison.rows:
            assert row.difference < bound, row
            assert row.best.batch in task.batches
            assert len(row.single.seconds) == 2
    if name == "image-fourier":
        short = summary(found).splitlines()
        asked = [line.split("|")[1].strip().removeprefix(f"{task.title}, ") for line in short[2:]]
        assert (
            {"float32, B=1", "bfloat16, B=1"}
            <= set(asked)
            <= {f"{d}, {b}" for d in ("float32", "bfloat16") for b in ("B=1", "best B")}
        )
        assert len({line.count("|") for line in short}) == 1
        told = table(found[0])
        assert f"**{task.title}, float32**" in told
        assert len({line.count("|") for line in told.splitlines() if line.startswith("|")}) == 1


def test_what_is_not_run_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("tests.bench.run.now", lambda: float(next(clock)))
    way = Way(lambda: iter(range(10)), lambda: torch.zeros(1), count=10)
    assert measure(way) == (10.0, 5)  # a second a piece: after more than four the rest is left out
    assert measure(replace(way, pieces=lambda: iter([0]), count=1)) == (1.0, 1)


def test_the_peak_is_positive() -> None:
    assert matmul_peak(torch.float32) > 0
