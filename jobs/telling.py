"""What the run store is told of an attempt by the process that makes it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobs.errors import exit_code
from jobs.spec import Job
from jobs.states import State, StateError
from jobs.store import Run, RunStore, StoreError
from pipelines.secrets import redacted


@contextmanager
def told_to(
    store: RunStore | None, run_id: str, job: Job, attempt: int, say: Callable[[str], None]
) -> Iterator[Callable[[int], None]]:
    """Tell the store of an attempt, as it begins and as it ends; yields what tells it the exit code of a good end.

    The store is an index: where it can't be told, that is said, and the attempt goes on.
    """

    def tell(state: State, **changes: Any) -> None:
        if store is None:
            return
        try:
            store.add(Run(run_id, job.name, job.task, job.output.uri, state))
            store.change(run_id, state, attempt=attempt, **changes)
        except (StoreError, StateError) as error:
            say(str(error))

    sent = {name: os.environ.get(f"PERCEIVER_{name.upper()}", "") for name in ("target", "submission")}
    tell("running", exit_code=None, message="", **sent)
    try:
        yield lambda code: tell("done", exit_code=code, message="")
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        why = "Somebody stopped it." if stopped else redacted(str(error))
        tell("stopped" if stopped else "failed", exit_code=exit_code(error), message=why)
        raise
