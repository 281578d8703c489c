"""Submitting: a run is handed to a target, which makes its attempts; once, however often it is tried."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

import cluster
import jobs
import perceiver_core
import pipelines
from cluster.target import ENDED, Submission, Target
from jobs.attempt import which
from jobs.errors import of_cluster
from jobs.finding import refreshed, target_named
from jobs.nodes import nodes_of
from jobs.records import read_spec
from jobs.spec import Job, SpecError, parse_job
from jobs.states import AT_REST
from jobs.store import Run, RunStore
from pipelines.meter import Progress
from pipelines.secrets import names_secret
from pipelines.storage import open_storage

_ROOMS = tuple(Path(room.__path__[0]) for room in (perceiver_core, pipelines, jobs, cluster))


def submit(
    job: Job,
    target: str,
    store: RunStore,
    progress: Progress,
    supersede: bool = False,
    variables: Iterable[str] = (),
    send_code: bool = True,
) -> tuple[Run, bool]:
    """Hand a run to a target; the run, and whether it was sent: not one that is there and works on it, or is done.

    `variables` are names of this environment's variables that go along, as endpoints and regions: no secrets, for who
    may look at the target sees them. Without `send_code` the target's own perceiver-batch is used. Raises SpecError,
    TargetError.
    """
    to = target_named(target, store)
    environment = _taken(variables)
    with of_cluster():
        nodes = nodes_of(to.nodes())
    found = which(job, progress, supersede, nodes)
    record, is_done = found.record, found.table is not None
    run = store.get(record.run_id)
    # What is computed with is fixed here: the process that makes the attempt may see no GPU itself.
    job = job.model_copy(update={"model": job.model.model_copy(update={"dtype": found.resolved.model.dtype})})
    if run is None:
        run = store.add(
            Run(
                run_id=record.run_id,
                name=job.name,
                task=job.task,
                output=job.output.uri,
                state="done" if is_done else "submitted",
                target=to.name,
            )
        )
    if is_done:
        return refreshed(run, store)[0], False
    return _sent(run, job, to, store, supersede, environment, send_code)


def resubmit(run: Run, target: str, store: RunStore, progress: Progress) -> tuple[Run, bool]:
    """Hand a run that is not done to a target again, by its own job; as `submit`."""
    return submit(job_of(run, store), target, store, progress)


def job_of(run: Run, store: RunStore) -> Job:
    """A run's job, as its output holds it, or as it was submitted. Raises SpecError."""
    try:
        document = read_spec(open_storage(run.output), run.run_id)
    except FileNotFoundError:  # it has not begun
        try:
            document = yaml.safe_load((_folder(store, run.run_id) / "job.yaml").read_text())
        except FileNotFoundError:
            raise SpecError(
                f"Run {run.run_id} has not begun, and its job is not on this machine: submit its file again."
            ) from None
    return parse_job(document, f"Run {run.run_id}")


def _folder(store: RunStore, run_id: str) -> Path:
    return store.folder / "jobs" / run_id


def _sent(
    run: Run,
    job: Job,
    to: Target,
    store: RunStore,
    supersede: bool,
    environment: dict[str, str],
    send_code: bool,
) -> tuple[Run, bool]:
    folder = _folder(store, run.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))
    on_cluster = to.name != "local"
    command = [
        "python" if on_cluster else sys.executable,
        *("-m", "jobs", "run", "job.yaml"),
        *(["--ray-address", "auto"] if on_cluster else []),
        *(["--supersede"] if supersede else []),
    ]
    with of_cluster():
        number = 1
        while last := to.look(_id(run.run_id, number)):
            if last.state not in ENDED:
                return _known(run, to, last.id, store), False
            number += 1
        id = _id(run.run_id, number)
        sent = to.submit(
            Submission(
                id=id,
                command=tuple(command),
                folder=folder,
                packages=_ROOMS if send_code else (),
                environment=environment | {"PERCEIVER_TARGET": to.name, "PERCEIVER_SUBMISSION": id},
                labels={"run_id": run.run_id, "job": job.name, "output": job.output.uri},
            )
        )
    return _known(run, to, id, store), sent


def _known(run: Run, to: Target, id: str, store: RunStore) -> Run:
    """The run as it is once a submission of it is there."""
    while True:
        known = store.get(run.run_id) or run
        if known.submission == id:
            return known
        # One that is at it says so itself.
        state = "submitted" if known.state in AT_REST else known.state
        moved = store.move(known, state, target=to.name, submission=id, exit_code=None, message="")
        if moved:
            return moved


def _id(run_id: str, number: int) -> str:
    """A submission's: the run's, and from the second on its number, for Ray never takes an id twice."""
    return run_id if number == 1 else f"{run_id}-{number}"


def _taken(variables: Iterable[str]) -> dict[str, str]:
    taken = {}
    for name in variables:
        if names_secret(name):
            raise SpecError(
                f"--env {name}: what is called so is a secret, and a target shows its submissions' variables to all "
                "who may look. Give it to the target's own processes."
            )
        if name not in os.environ:
            raise SpecError(f"--env {name}: this environment has no such variable.")
        taken[name] = os.environ[name]
    return taken
