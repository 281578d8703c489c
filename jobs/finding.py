"""Which run somebody means: by its id or the beginning of it, its job's name, or its output's folder or URI."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cluster.errors import ClusterError
from cluster.kuberay.settings import Kubernetes
from cluster.kuberay.target import target as kuberay_target
from cluster.processes import LocalTarget
from cluster.ray_jobs import RayTarget
from cluster.target import Sent, Target
from jobs.errors import TargetError, of_cluster
from jobs.exit_codes import INTERRUPTED
from jobs.lease import attempts
from jobs.observing import Status, Watch, observe
from jobs.records import current, read_record, read_spec
from jobs.spec import SpecError
from jobs.states import AT_REST, State
from jobs.store import Run, RunStore, UnknownRunError
from pipelines.storage import Storage, open_storage

_SUBMISSIONS = "submissions"


def target_named(name: str, store: RunStore, kubernetes: Kubernetes | None = None) -> Target:
    """The target of that name: local, "ray http://head:8265", or "kuberay NAMESPACE@CONTEXT".

    What a kuberay's name leaves out is as kubectl would have it; `kubernetes` says what its runs are made of. Raises
    SpecError, TargetError.
    """
    kind, _, address = name.partition(" ")
    if kind == "local" and not address:
        return LocalTarget(store.folder / _SUBMISSIONS)
    if kind == "ray":
        address = address or os.environ.get("RAY_API_SERVER_ADDRESS", "")
        if address.startswith(("http://", "https://")):
            return RayTarget(address.rstrip("/"))
        raise SpecError(
            f"The target ray needs the address of the head's dashboard, such as http://head:8265; got {address!r}. "
            "Give --address, or set RAY_API_SERVER_ADDRESS."
        )
    if kind == "kuberay":
        with of_cluster():
            return kuberay_target(address, kubernetes)
    raise SpecError(f"There is no target {name}. There are: local, ray, kuberay.")


def find(name: str, store: RunStore) -> Run:
    """The run that somebody means, as the store knows it or its output says it. Raises UnknownRunError."""
    if "/" not in name and not os.path.isdir(name):
        return store.find(name)
    out, runs, run_id = name.rstrip("/").rpartition("/runs/")
    storage = open_storage(out if runs else name)
    if not runs:
        record = current(storage)
        run_id = record.run_id if record else ""
    if not run_id or read_record(storage, run_id) is None:
        raise UnknownRunError(
            f"There is no run in {name}: expected runs/<run-id>/run.json there. Name an output's folder or URI, a "
            "run's folder in it, or an id that perceive list shows."
        )
    return store.get(run_id) or of_output(storage, run_id)


def of_output(storage: Storage, run_id: str) -> Run:
    """A run as its output alone tells it."""
    record = read_record(storage, run_id)
    assert record  # whose run.json was seen
    spec = read_spec(storage, record)
    seen = observe(Watch(storage, run_id))
    return Run(
        run_id=run_id,
        name=spec["name"],
        task=spec["task"],
        output=storage.uri,
        state=seen.state,
        attempt=attempts(storage, run_id),
        exit_code=seen.exit_code,
        message=seen.message,
    )


def adopt(out: str, store: RunStore) -> list[Run]:
    """Bring the runs of an output into the store, as when that was lost; those that were there keep what it knew."""
    storage = open_storage(out)
    names = {name.split("/")[1] for name in storage.names("runs") if name.endswith("/run.json")}
    if not names:
        raise UnknownRunError(
            f"There is no run in {out}: expected runs/<run-id>/run.json there. Name an output's folder or URI."
        )
    return [refreshed(store.add(of_output(storage, run_id)), store)[0] for run_id in sorted(names)]


def watched(run: Run) -> Watch:
    """To look at a run more than once, where `refreshed` is given it each time."""
    return Watch(open_storage(run.output), run.run_id)


def refreshed(
    run: Run, store: RunStore, tell: Callable[[str], None] = lambda _: None, watch: Watch | None = None
) -> tuple[Run, Status]:
    """A run as it is now, which the store is told if it knows the run."""
    watch = watch or watched(run)
    while True:
        seen = observe(watch, _sent(run, store, tell), tell)
        state: State = seen.state
        if run.state == "stopping" and state in ("running", "submitted"):
            state = "stopping"
        # As asked, if not in order; some targets forget what is stopped.
        if run.state == "stopping" and state == "lost":
            state, seen = "stopped", replace(seen, message="Somebody stopped it.", exit_code=INTERRUPTED)
        changes: dict[str, Any] = {
            "attempt": max(seen.attempt.number, run.attempt),
            "exit_code": seen.exit_code if state in AT_REST else None,
            "message": seen.message,
        }
        known = store.get(run.run_id)
        if known is None or known.updated != run.updated:
            if known is None:
                return replace(run, state=state, **changes), seen
            run = known
            continue
        moved = store.move(known, state, **changes)
        if moved:
            return moved, seen


def _sent(run: Run, store: RunStore, tell: Callable[[str], None]) -> Sent | None:
    """What the target knows of the run's last submission; None if it was not sent, or the target is gone."""
    if not run.submission:
        return None
    try:
        return target_named(run.target, store).look(run.submission)
    except (ClusterError, TargetError) as error:
        tell(f"{error} What follows is what the output says.")
        return None
