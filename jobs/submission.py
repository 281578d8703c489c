"""Submitting: a run is handed to a target, which makes its attempts; once, however often it is tried."""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

import cluster
import jobs
import perceiver_core
import pipelines
from cluster.kuberay.target import KubeRayTarget
from cluster.target import ENDED, Submission, Target
from jobs.errors import of_cluster
from jobs.finding import refreshed, target_named
from jobs.nodes import nodes_of
from jobs.reach import check_reach
from jobs.records import read_record, read_spec
from jobs.spec import Job, SpecError, parse_job
from jobs.states import AT_REST
from jobs.store import Run, RunStore
from jobs.which import Found, which
from pipelines.meter import Progress
from pipelines.secrets import check_variable
from pipelines.storage import open_storage

_ROOMS = tuple(Path(room.__path__[0]) for room in (perceiver_core, pipelines, jobs, cluster))

_FIRE = "fire"  # beside job.yaml: the schedule's time that the run is of


def submit(
    job: Job,
    target: str,
    store: RunStore,
    progress: Progress,
    supersede: bool = False,
    variables: Iterable[str] = (),
    send_code: bool = True,
    fire: str = "",
) -> tuple[Run, bool]:
    """Hand a run to a target; the run, and whether it was sent: not one that is there and works on it, or is done.

    `variables` are names of this environment's variables that go along, as endpoints and regions: no secrets, for who
    may look at the target sees them. Without `send_code` the target's own perceiver-batch is used. With `fire`, a
    schedule's time, it is that fire's run. Raises SpecError, TargetError.
    """
    to = target_named(target, store, job.kubernetes)
    environment = taken(variables)
    if isinstance(to, KubeRayTarget):
        check_reach(job)
        send_code = False  # its image has it
    with of_cluster():
        nodes = nodes_of(to.nodes())
    found = which(job, progress, supersede, nodes, fire)
    record, is_done = found.record, found.table is not None
    run = store.get(record.run_id)
    job = settled(job, found)
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
    return _sent(run, job, to, store, supersede, environment, send_code, fire)


def resubmit(run: Run, target: str, store: RunStore, progress: Progress) -> tuple[Run, bool]:
    """Hand a run that is not done to a target again, by its own job; as `submit`."""
    told = _folder(store, run.run_id) / _FIRE
    fire = told.read_text() if told.exists() else ""
    return submit(job_of(run, store), target, store, progress, fire=fire)


def job_of(run: Run, store: RunStore) -> Job:
    """A run's job, as its output holds it, or as it was submitted. Raises SpecError."""
    storage = open_storage(run.output)
    record = read_record(storage, run.run_id)
    if record:
        document = read_spec(storage, record)
    else:  # it has not begun
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
    fire: str,
) -> tuple[Run, bool]:
    folder = _folder(store, run.run_id)
    write_job(job, folder)
    (folder / _FIRE).write_text(fire)
    with of_cluster():
        number = _number(run.submission) if run.target == to.name else 1
        while True:
            id = _id(run.run_id, number)
            last = to.look(id)
            if last is not None and last.state not in ENDED:
                return _known(run, to, id, store), False
            if last is None and id != run.submission:  # else it was there, and the target has forgotten it
                break
            number += 1
        sent = to.submit(
            as_submission(job, run.run_id, id, to.name, folder, supersede, environment, send_code, fire)
        )
    return _known(run, to, id, store), sent


def settled(job: Job, found: Found) -> Job:
    """The job with what it computes with fixed: the process that makes the attempt may see no GPU itself."""
    return job.model_copy(
        update={"model": job.model.model_copy(update={"dtype": found.resolved.model.dtype})}
    )


def write_job(job: Job, folder: Path) -> None:
    """Put the job where `as_submission` has it read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text(yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))


def as_submission(
    job: Job,
    run_id: str,
    id: str,
    target: str,
    folder: Path,
    supersede: bool,
    environment: Mapping[str, str],
    send_code: bool,
    fire: str,
) -> Submission:
    """What makes an attempt of a run at a target, of the job that is written into the folder. Raises SpecError."""
    if target.partition(" ")[0] == "kuberay":
        _check_output(job)
    on_cluster = target != "local"
    command = (
        "python" if on_cluster else sys.executable,
        *("-m", "jobs", "run", "job.yaml"),
        *(["--ray-address", "auto"] if on_cluster else []),
        *(["--supersede"] if supersede else []),
        *(["--fire", fire] if fire else []),
    )
    return Submission(
        id=id,
        command=command,
        folder=folder,
        packages=_ROOMS if send_code else (),
        environment={**environment, "PERCEIVER_TARGET": target, "PERCEIVER_SUBMISSION": id},
        labels={"run_id": run_id, "job": job.name, "output": job.output.uri},
    )


def _check_output(job: Job) -> None:
    """Raise SpecError where the output would go with the pod that wrote it."""
    volumes = job.kubernetes.volumes if job.kubernetes else {}
    kept = [path for path, volume in volumes.items() if volume.claim and not volume.read_only]
    if "://" in job.output.uri or any(f"{job.output.uri}/".startswith(f"{path}/") for path in kept):
        return
    raise SpecError(
        f"output.uri: in Kubernetes {job.output.uri} would be a folder of each pod's own, and go with it. Name one in "
        f"a bucket, or below a claim of kubernetes.volumes; got {', '.join(kept) or 'none'}."
    )


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


def _number(submission: str) -> int:
    """Which of its run's a submission is."""
    return int(submission.partition("-")[2] or 1)


def taken(variables: Iterable[str]) -> dict[str, str]:
    """This environment's variables of these names. Raises SpecError of secrets, and of what is not there."""
    found = {}
    for name in variables:
        check_variable(name)
        if name not in os.environ:
            raise SpecError(f"--env {name}: this environment has no such variable.")
        found[name] = os.environ[name]
    return found
