"""The library: what the command line does, for Python, with typed results. Quiet unless it is given a progress."""

from collections.abc import Iterable

from jobs.attempt import RunResult, run_job
from jobs.comparing.compare import compare as compared
from jobs.comparing.comparison import Comparison
from jobs.estimate import Plan
from jobs.estimate import plan as planned
from jobs.finding import find, refreshed
from jobs.following import stop as stopped
from jobs.observing import Status
from jobs.spec import Job
from jobs.store import Run, user_store
from jobs.submission import resubmit
from jobs.submission import submit as submitted
from pipelines.meter import Progress, Quiet


def run(
    job: Job,
    *,
    supersede: bool = False,
    ray_address: str | None = None,
    fire: str = "",
    progress: Progress = Quiet(),  # noqa: B008  # has no state
) -> RunResult:
    """Execute one attempt of a job in this process, to its end; the same job on the same output resumes its run.

    With `ray_address` (auto, or host:port) on the Ray cluster that this machine is a node of; with `fire`, an instant
    as ISO 8601, as that fire of a schedule. Raises PerceiverErrors: jobs.errors lists them.
    """
    return run_job(job, progress, supersede, user_store(), ray_address, fire)


def plan(
    job: Job,
    *,
    supersede: bool = False,
    probe: bool = True,
    usd_per_gpu_hour: float | None = None,
    progress: Progress = Quiet(),  # noqa: B008  # has no state
) -> Plan:
    """What `run` would do and take, having done nothing; without `probe` no time and no size."""
    return planned(job, progress, supersede=supersede, probe=probe, usd_per_gpu_hour=usd_per_gpu_hour)


def submit(
    job: Job,
    target: str = "local",
    *,
    supersede: bool = False,
    variables: Iterable[str] = (),
    send_code: bool = True,
    fire: str = "",
    progress: Progress = Quiet(),  # noqa: B008  # has no state
) -> Run:
    """Hand a job to a target: "local", "ray http://head:8265", or "kuberay NAMESPACE@CONTEXT".

    Once, however often it is called.
    """
    store = user_store()
    return submitted(job, target, store, progress, supersede, variables, send_code, fire)[0]


def status(name: str) -> tuple[Run, Status]:
    """A run as it is now, by its id or its beginning, its job's name, or its output's folder or URI."""
    store = user_store()
    return refreshed(find(name, store), store)


def stop(name: str) -> Run:
    """Ask a run to stop, as Ctrl-C does."""
    store = user_store()
    return stopped(find(name, store), store)


def resume(name: str, target: str) -> Run:
    """Hand a run that is not done to a target again."""
    store = user_store()
    return resubmit(find(name, store), target, store, Quiet())[0]


def compare(
    a: str,
    b: str,
    *,
    examples: int = 5,
    limit: int | None = None,
    progress: Progress = Quiet(),  # noqa: B008  # has no state
) -> Comparison:
    """How two outputs of one task differ, over the items that both have: A against B.

    Each is an output's folder or URI, whose newest table it is, or a run: OUTPUT/runs/<run-id>, or its id. Of all that
    is named, there are so many `examples`; `limit` compares only so many items, A's first. Raises ComparisonError.
    """
    return compared(a, b, user_store().find, progress, examples, limit)
