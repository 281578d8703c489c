"""Following a run: what it writes, what happens to it, and how to stop it, wherever it is."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from jobs.errors import of_cluster
from jobs.events import Reader
from jobs.finding import refreshed, target_named, watched
from jobs.lease import last
from jobs.spec import SpecError
from jobs.states import AT_REST
from jobs.store import Run, RunStore
from pipelines.storage import open_storage

_EVERY_S = 1.0


def written(run: Run, store: RunStore, follow: bool) -> Iterator[str]:
    """What the process of the run's last submission wrote. Raises TargetError."""
    with of_cluster():
        yield from target_named(run.target, store).logs(run.submission, follow)


def happened(run: Run, store: RunStore, follow: bool) -> Iterator[dict[str, Any]]:
    """The run's events; with `follow` as they happen, until it is at rest."""
    events, watch = Reader(open_storage(run.output), run.run_id), watched(run)
    while True:
        # Before the read: all is there then.
        at_rest = not follow or refreshed(run, store, watch=watch)[0].state in AT_REST
        yield from events.new()
        if at_rest:
            return
        time.sleep(_EVERY_S)


def stop(run: Run, store: RunStore, tell: Callable[[str], None] = lambda _: None) -> Run:
    """Ask a run to stop, as Ctrl-C does; one that is at rest stays so. Raises SpecError, TargetError."""
    run, _ = refreshed(run, store, tell)
    if run.state in AT_REST:
        return run
    if run.submission:
        with of_cluster():
            target_named(run.target, store).stop(run.submission)
    else:
        lease = last(open_storage(run.output))
        if lease is None or not lease.holder.lives_here():
            where = f"process {lease.holder.pid} on {lease.holder.host}" if lease else "another machine"
            raise SpecError(
                f"Run {run.run_id} is made by {where}, which is not this machine: stop it there, with Ctrl-C or kill."
            )
        os.kill(lease.holder.pid, signal.SIGTERM)
    known = store.get(run.run_id)
    if known and known.state not in AT_REST:
        return store.move(known, "stopping") or refreshed(known, store, tell)[0]
    return run
