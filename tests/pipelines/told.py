"""What workers tell, kept where they tell it: for stages that are called without Ray."""

from dataclasses import dataclass, field
from typing import Any

from pipelines.meter import Counts, Meter


@dataclass(frozen=True)
class Told(Meter):
    """A meter that is no actor."""

    counts: Counts = field(default_factory=Counts)

    def add(self, stage: str, windows: int, busy_s: float = 0.0) -> None:
        self.counts.add(stage, windows, busy_s)

    def read(self) -> dict[str, int]:
        return self.counts.read()

    def busy(self) -> dict[str, float]:
        return self.counts.busy()

    def tell(self, kind: str, **fields: Any) -> None:
        self.counts.tell(kind, fields)

    def heard(self) -> list[dict[str, Any]]:
        return self.counts.heard()

    def begin(self, stage: str, shard: int) -> int:
        return self.counts.begin(stage, shard)

    def end(self, stage: str, shard: int) -> None:
        self.counts.end(stage, shard)

    def may_replace(self, stage: str, shard: int, sign: str, why: str, most: int) -> bool:
        return self.counts.may_replace(stage, shard, sign, why, most)
