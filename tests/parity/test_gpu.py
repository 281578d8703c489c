"""On a GPU: plain and folded models give transformers' answers, as they do on the CPU; `make gpus` runs this."""

from typing import Any

import pytest
import torch
from torch import Tensor

from perceiver_core import OutputPoints
from perceiver_core.folding import fold

pytestmark = [pytest.mark.gpus, pytest.mark.usefixtures("gpu")]

EXACT = 1e-10


def on(device: str, values: Any) -> Any:
    """Tensors, and dicts of them, moved there."""
    if isinstance(values, dict):
        return {name: on(device, value) for name, value in values.items()}
    return values.to(device) if isinstance(values, Tensor) else values


@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_answers_are_the_oracles(oracle, head, sizes_of, blocks, folded):
    text = "MaskedLM" in head or "Sequence" in head
    sizes = {**sizes_of[head], "num_blocks": blocks, "num_cross_attention_heads": 4 if text else 1}
    theirs, ours = oracle.pair(sizes, head=head)
    inputs, arguments = oracle.heads_inputs(head)
    with torch.no_grad():
        expected = theirs(inputs, **arguments).logits
        ours = fold(ours.cuda()) if folded else ours.cuda()
        got = ours(on("cuda", inputs), **on("cuda", arguments)).logits
    assert all(one.is_cuda for one in (got.values() if isinstance(got, dict) else [got]))
    assert oracle.worst(on("cpu", dict(got) if isinstance(got, dict) else got), expected) <= EXACT


@pytest.mark.parametrize("folded", [False, True], ids=["plain", "folded"])
@pytest.mark.parametrize("where", ["gpu", "cpu", "pinned"])
def test_chunks_reach_the_callers_tensors(oracle, where, folded):
    """Copies to pinned memory are on their way when the last chunk is decoded: all have arrived when it returns."""
    sizes = oracle.tiny()
    _, ours = oracle.pair(sizes)
    inputs = oracle.inputs(sizes)
    points = OutputPoints.all(ours.config)
    with torch.no_grad():
        expected = ours.decode(ours.encode(inputs), points)
        ours = fold(ours.cuda()) if folded else ours.cuda()
        out = {name: torch.full_like(one, torch.nan) for name, one in expected.items()}
        out = on("cuda", out) if where == "gpu" else out
        out = {name: one.pin_memory() for name, one in out.items()} if where == "pinned" else out
        latents = ours.encode(on("cuda", inputs))
        ours.decode(latents, points, 7, out=out)
    assert oracle.worst(on("cpu", out), expected) <= EXACT
