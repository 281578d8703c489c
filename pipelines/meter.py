"""Progress: what a person waiting sees, and a count kept beside the data so that it moves within a shard."""

from dataclasses import dataclass
from typing import Any, Protocol


class Progress(Protocol):
    """What a person waiting sees: one stage at a time, counted to its total where that is known."""

    def stage(self, name: str, total: int | None, done: int = 0) -> None: ...

    def total(self, total: int) -> None:
        """The stage's total, where it was not known when it began."""

    def at(self, done: int) -> None: ...


class _Counts:
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, stage: str, windows: int) -> None:
        self.counts[stage] = self.counts.get(stage, 0) + windows

    def read(self) -> dict[str, int]:
        return self.counts


@dataclass(frozen=True)
class Meter:
    """Windows done, by stage. Nothing depends on it: a lost count never fails a run."""

    actor: Any

    @staticmethod
    def start() -> "Meter":
        import ray

        return Meter(ray.remote(num_cpus=0)(_Counts).remote())

    def add(self, stage: str, windows: int) -> None:
        self.actor.add.remote(stage, windows)

    def read(self) -> dict[str, int]:
        import ray

        counts: dict[str, int] = ray.get(self.actor.read.remote(), timeout=10)
        return counts
