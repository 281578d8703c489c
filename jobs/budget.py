"""How many items may fail: counted while they do, over all attempts of a run."""

import numpy as np
import pyarrow as pa

from jobs.spec import Job
from perceiver_core.errors import PerceiverError
from pipelines.index import read_quarantine
from pipelines.sink import Commit
from pipelines.storage import Storage


class ErrorBudgetError(PerceiverError, RuntimeError):
    """More items failed than the job allows."""


class Budget:
    """What a run may lose, and what it has lost."""

    def __init__(self, job: Job, plan: pa.Table, storage: Storage) -> None:
        self._job, self._plan, self._storage = job, plan, storage
        self._spans = np.bincount(plan["shard"].to_numpy()) if plan.num_rows else np.zeros(0, int)
        self._cut: set[str] = set()  # items that are cut into several shards, which lose them several times
        self._whole = 0
        self.items = len(plan["item_id"].unique())
        self.most = allowed(job, self.items)

    @property
    def quarantined(self) -> int:
        """Items that miss at least one span."""
        return self._whole + len(self._cut)

    def add(self, commit: Commit) -> None:
        """Count a shard; ErrorBudgetError if that was one item too many."""
        if not commit.quarantined:
            return
        if self._spans[commit.shard] == 1:
            row = int(np.searchsorted(self._plan["shard"].to_numpy(), commit.shard))
            self._cut.add(self._plan["item_id"][row].as_py())
        else:
            self._whole += commit.quarantined
        if self.most is not None and self.quarantined > self.most:
            assert commit.quarantine
            row = read_quarantine(self._storage, [commit.quarantine]).to_pylist()[0]
            raise over(self._job, self.items, self.quarantined, row["uri"], row["stage"], row["message"])


def allowed(job: Job, items: int) -> int | None:
    """How many of so many items may fail; None is all of them."""
    if job.on_error == "fail":
        return 0
    return None if job.max_error_rate is None else int(job.max_error_rate * items + 1e-9)


def over(job: Job, items: int, quarantined: int, uri: str, stage: str, message: str) -> ErrorBudgetError:
    """The error of one item too many, by one that failed."""
    what = f"{uri} could not be processed ({stage}): {message.rstrip('.')}."
    if job.on_error == "fail":
        return ErrorBudgetError(
            f"on_error is fail, and {what} Remove or mend it, or set on_error to quarantine."
        )
    return ErrorBudgetError(
        f"max_error_rate is {job.max_error_rate:g}: of {items} items at most {allowed(job, items)} may fail, and "
        f"{quarantined} have. One of them: {what} Mend the input, or raise max_error_rate, and run the job again: what "
        "is committed stays."
    )
