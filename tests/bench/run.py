"""Runs the ways of a task against each other: same answers, best settings, then seconds in turn."""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tests.bench.measure import DEVICE, held_memory, memory_of, now
from tests.bench.task import CAREFUL, DOCUMENTED, FOLDED, Answer, Models, Task, Way, compiled, models

PIECES_SECONDS = 4.0  # of a task in many pieces, so many seconds' worth is run and the rest extrapolated


@dataclass(frozen=True)
class Effort:
    """How much is run: at least two turns, then more while the seconds last."""

    turns: int = 5
    seconds: float = 25.0
    settings: bool = True  # try all settings and batches, else the first
    compile: bool = True


@dataclass(frozen=True)
class Measured:
    """Seconds of one sample at one batch, for each turn."""

    batch: int
    seconds: list[float]
    setting: str
    ran: int  # pieces
    pieces: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    """One implementation of one task in one dtype."""

    task: str
    dtype: str
    name: str
    single: Measured
    best: Measured
    memory: (
        int | None
    )  # at B=1: the model's and constants' bytes, and what the first call took at its highest
    difference: float  # from the documented recipe in float32, of its largest answer


@dataclass(frozen=True)
class Comparison:
    """A task in one dtype."""

    task: Task
    dtype: str
    rows: list[Row]
    notes: list[str]


def compare(
    task: Task, pair: tuple[nn.Module, nn.Module], dtypes: list[torch.dtype], effort: Effort
) -> Iterator[Comparison]:
    """All ways of a task in each dtype, float32 first: it is what the others are compared with."""
    theirs, ours = pair
    reference: Answer | None = None
    for dtype in sorted(dtypes, key=lambda dtype: dtype != torch.float32):
        if reference is None and dtype != torch.float32:
            full = Models(theirs, theirs, ours, None, torch.float32)
            reference = task.ways(full, 1)[DOCUMENTED][0].answer()
        gc.collect()  # what the dtype before has left: compiled code has cycles
        shared = models(task, theirs, ours, dtype)
        comparison, reference = _compare(task, shared, reference, effort)
        yield comparison


def _compare(
    task: Task, shared: Models, reference: Answer | None, effort: Effort
) -> tuple[Comparison, Answer]:
    dtype = str(shared.dtype).removeprefix("torch.")
    notes = [shared.missing] if shared.missing else []
    ways = task.ways(shared, 1)
    memory, difference = {}, {}
    for name, settings in ways.items():
        tell(f"{task.name} {dtype}: {name}, first call")
        answers: list[Answer] = []
        _, peak = memory_of(lambda way=settings[0], to=answers: to.append(way.answer()))  # type: ignore[misc]
        answer = answers.pop()
        reference = answer if reference is None else reference
        difference[name] = relative(answer, reference)
        model = {DOCUMENTED: shared.documented, CAREFUL: shared.careful}.get(name, shared.ours)
        if name == FOLDED:
            model = shared.folded.model
        constants = shared.constants if name == FOLDED else 0
        memory[name] = None if peak is None or constants is None else peak + held_memory(model) + constants
    assert reference is not None
    tuned, told = _tune(task, shared, effort)
    single = {name: (1, found[1]) for name, found in tuned.items()}
    best = {}
    for name, found in tuned.items():
        batch = min(found, key=lambda batch: found[batch][0] / batch)
        best[name] = (batch, found[batch])
    tell(f"{task.name} {dtype}: in turn, B=1")
    at_one = in_turn({name: (1, way) for name, (_, (_, way)) in single.items()}, effort)
    at_best = at_one
    if any(batch > 1 for batch, _ in best.values()):
        tell(f"{task.name} {dtype}: in turn, B={', '.join(str(batch) for batch, _ in best.values())}")
        others = in_turn({name: (batch, way) for name, (batch, (_, way)) in best.items()}, effort)
        # One try has chosen the batches: where turns tell otherwise, B=1 was the best.
        at_best = {name: min(at_one[name], others[name], key=lambda found: found.median) for name in others}
    rows = [
        Row(task.name, dtype, name, at_one[name], at_best[name], memory[name], difference[name])
        for name in ways
    ]
    return Comparison(task, dtype, rows, notes + told), reference


COMPILED = ", compiled"

Tuned = dict[str, dict[int, tuple[float, Way]]]


def _tune(task: Task, shared: Models, effort: Effort) -> tuple[Tuned, list[str]]:
    """For each way and batch the fastest setting, each tried once; and what there is to say of it."""
    batches = (task.batches if DEVICE.type == "cpu" else task.gpu_batches) if effort.settings else (1,)
    faster = compiled(shared) if effort.compile else None
    tuned: Tuned = {}
    notes = []
    for batch in batches:
        for name, settings in task.ways(shared, batch).items():
            known = tuned.setdefault(name, {})
            for index, way in enumerate(settings):
                if index and not effort.settings:
                    continue
                if batch > 1 and way.setting != known[1][1].setting.removesuffix(COMPILED):
                    continue  # what is best at B=1 is taken to be so at others
                tell(f"{task.name}: {name}, B={batch} {way.setting}")
                known[batch] = min(known.get(batch, (math.inf, way)), (measure(way)[0], way), key=_seconds)
        if faster is not None:
            eager = tuned[CAREFUL][batch]
            alike = next(way for way in task.ways(faster, batch)[CAREFUL] if way.setting == eager[1].setting)
            tell(f"{task.name}: {CAREFUL}, compiled, B={batch}")
            try:
                alike.answer()  # compiles
                seconds = measure(alike)[0]
            except Exception as error:  # whatever a compiler may raise, it is told and done without
                reason = str(error).strip().splitlines()[0][:120]
                notes.append(f"Compiling the careful user's layers fails: {type(error).__name__}: {reason}.")
                faster = None
                continue
            notes.append(
                f"The careful user's layers compiled, B={batch}: {eager[0] / seconds:.2f}x in one try."
            )
            way = replace(alike, setting=alike.setting + COMPILED)
            tuned[CAREFUL][batch] = min(eager, (seconds, way), key=_seconds)
            if seconds > eager[0]:  # nor at other batches, then: compiling takes longer than all else here
                faster = None
    return tuned, notes


def _seconds(tried: tuple[float, Way]) -> float:
    return tried[0]


def in_turn(chosen: dict[str, tuple[int, Way]], effort: Effort) -> dict[str, Measured]:
    """Seconds a sample, measured alternately, so that a noisy neighbour meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    ran = dict.fromkeys(chosen, 0)
    began = now()
    for turn in range(effort.turns):
        for name, (batch, way) in chosen.items():
            taken, ran[name] = measure(way)
            seconds[name].append(taken / batch)
        spent = now() - began
        if turn and spent * (turn + 2) / (turn + 1) > effort.seconds:
            break
    return {
        name: Measured(batch, seconds[name], way.setting, ran[name], way.count)
        for name, (batch, way) in chosen.items()
    }


def measure(way: Way) -> tuple[float, int]:
    """Seconds of the whole task, extrapolated from the pieces that were run; and how many those were."""
    began = now()
    ends = []
    pieces = iter(way.pieces())
    for _ in pieces:
        ends.append(now())
        if len(ends) >= 3 and ends[-1] - began > PIECES_SECONDS:
            break
    del pieces
    if len(ends) == way.count:
        return ends[-1] - began, way.count
    first, others = ends[0] - began, (ends[-1] - ends[0]) / (len(ends) - 1)
    return first + (way.count - 1) * others, len(ends)


def relative(answer: Answer, reference: Answer) -> float:
    """The largest difference, as a share of the largest number; of several modalities the worst."""
    if isinstance(answer, Tensor) and isinstance(reference, Tensor):
        wide = reference.double()
        return float((answer.double() - wide).abs().max() / wide.abs().max())
    assert not isinstance(answer, Tensor)
    assert not isinstance(reference, Tensor)
    assert answer.keys() == reference.keys()
    return max(relative(answer[name], reference[name]) for name in reference)


def tell(what: str) -> None:
    """Progress, for what takes long."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
