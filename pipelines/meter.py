"""Progress: what a person waiting sees, and what workers tell: counts that move within a shard, and what went wrong."""

import os
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

_MOST = 10_000  # tellings that wait to be heard
_EVERY_S = 0.5  # between a worker's counts, however small its steps are


def peak_memory() -> int:
    """The most that this process has had in memory, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Progress(Protocol):
    """What a person waiting sees: one stage at a time, counted to its total where that is known."""

    def stage(self, name: str, total: int | None, done: int = 0) -> None: ...

    def total(self, total: int) -> None:
        """The stage's total, where it was not known when it began."""

    def at(self, done: int) -> None: ...

    def say(self, text: str) -> None:
        """A line, of what is waited for."""

    def give_up(self, why: str) -> None:
        """Say why, and end this process at once: its other threads wait for what will never come."""


class Quiet:
    """Progress that nobody sees: of whoever waits for nothing but the end."""

    def stage(self, name: str, total: int | None, done: int = 0) -> None: ...

    def total(self, total: int) -> None: ...

    def at(self, done: int) -> None: ...

    def say(self, text: str) -> None: ...

    def give_up(self, why: str) -> None:
        sys.stderr.write(f"{why}\n")
        os._exit(5)  # other threads wait for what will never come


class Counts:
    """What the meter's actor holds."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.waiting: list[dict[str, Any]] = []
        self.left_out = 0
        self.told = 0
        self.given_up: dict[tuple[str, int, str], int] = {}
        self.begun: dict[tuple[str, int], int] = {}  # and not ended

    def add(self, stage: str, windows: int, busy_s: float = 0.0) -> None:
        self.counts[stage] = self.counts.get(stage, 0) + windows
        self.seconds[stage] = self.seconds.get(stage, 0.0) + busy_s

    def read(self) -> dict[str, int]:
        return self.counts

    def busy(self) -> dict[str, float]:
        return self.seconds

    def signs(self) -> tuple[dict[str, int], int]:
        """What changes whenever a worker gives a sign of life."""
        return self.counts, self.told

    def tell(self, kind: str, fields: Mapping[str, Any]) -> None:
        self.told += 1
        if len(self.waiting) < _MOST:
            self.waiting.append({"kind": kind, "time": datetime.now(UTC).isoformat(), **fields})
        else:
            self.left_out += 1

    def heard(self) -> list[dict[str, Any]]:
        heard, self.waiting = self.waiting, []
        if self.left_out:
            now = datetime.now(UTC).isoformat()
            heard.append({"kind": "told_less", "time": now, "left_out": self.left_out})
            self.left_out = 0
        return heard

    def begin(self, stage: str, shard: int) -> int:
        self.begun[stage, shard] = self.begun.get((stage, shard), 0) + 1
        return self.begun[stage, shard]

    def end(self, stage: str, shard: int) -> None:
        self.begun.pop((stage, shard), None)

    def may_replace(self, stage: str, shard: int, sign: str, why: str, most: int) -> bool:
        before = self.given_up.get((stage, shard, sign), 0)
        if before >= most:
            return False
        self.given_up[stage, shard, sign] = before + 1
        self.tell("worker_replaced", {"stage": stage, "shard": shard, "why": why})
        return True


@dataclass(frozen=True)
class Meter:
    """Windows and seconds by stage, and what workers tell. No row depends on it: a lost count never fails a run."""

    actor: Any = None  #: without one, nobody listens: stages that run without Ray

    @staticmethod
    def start() -> "Meter":
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        # With the driver, not on a node that may go; if it goes anyway, another one begins at zero.
        options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here}
        return Meter(ray.remote(Counts).options(**options).remote())

    def add(self, stage: str, windows: int, busy_s: float = 0.0) -> None:
        if self.actor is not None:
            self.actor.add.remote(stage, windows, busy_s)

    def read(self) -> dict[str, int]:
        """Windows done, by stage."""
        import ray

        counts: dict[str, int] = ray.get(self.actor.read.remote(), timeout=10)
        return counts

    def busy(self) -> dict[str, float]:
        """Seconds that all workers of a stage have worked, by stage."""
        import ray

        seconds: dict[str, float] = ray.get(self.actor.busy.remote(), timeout=10)
        return seconds

    def tell(self, kind: str, **fields: Any) -> None:
        """Say what happened; the driver hears it when it next listens."""
        if self.actor is not None:
            self.actor.tell.remote(kind, fields)

    def heard(self) -> list[dict[str, Any]]:
        """What workers told since the last call, each with its `kind` and `time`; past 10,000, only how many more."""
        import ray

        heard: list[dict[str, Any]] = ray.get(self.actor.heard.remote(), timeout=10)
        return heard

    def begin(self, stage: str, shard: int) -> int:
        """How often a worker has begun with a shard and has not come to its end, this one included."""
        if self.actor is None:
            return 1
        import ray
        from ray.exceptions import RayError

        try:
            begun: int = ray.get(self.actor.begin.remote(stage, shard), timeout=60)
        except RayError:  # nobody counts, this time
            return 1
        return begun

    def end(self, stage: str, shard: int) -> None:
        """A worker has come to a shard's end."""
        if self.actor is not None:
            self.actor.end.remote(stage, shard)

    def may_replace(self, stage: str, shard: int, sign: str, why: str, most: int) -> bool:
        """Whether a worker may end itself over a shard: `most` times for the same sign. Told before it is answered."""
        if self.actor is None:
            return False
        import ray
        from ray.exceptions import RayError

        try:
            answer: bool = ray.get(self.actor.may_replace.remote(stage, shard, sign, why, most), timeout=60)
        except RayError:  # nobody counts: Ray's own limit of tries ends it
            return True
        return answer


class Tally:
    """A worker's windows and seconds, from now on, on their way to the meter: one call for all of a moment."""

    def __init__(self, meter: Meter, stage: str) -> None:
        self.meter, self.stage = meter, stage
        self.windows = 0
        self.since = time.monotonic()

    def add(self, windows: int = 0) -> None:
        """So many windows more, and the time since the last call."""
        self.windows += windows
        if time.monotonic() - self.since >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Tell the meter what it doesn't know yet."""
        now = time.monotonic()
        self.meter.add(self.stage, self.windows, now - self.since)
        self.windows, self.since = 0, now


class Latest:
    """The meter's signs of life without waiting for them: a call asks, and gives what an earlier one was answered."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.asked: Any = None
        self.known: object = None

    def __call__(self) -> object:
        import ray
        from ray.exceptions import RayError

        if self.asked is not None and ray.wait([self.asked], timeout=0)[0]:
            with suppress(RayError):  # the meter is being replaced
                self.known = ray.get(self.asked)
            self.asked = None
        if self.asked is None:
            self.asked = self.meter.actor.signs.remote()
        return self.known
