"""A job as Kubernetes' objects, without a cluster at hand: for whoever applies them by other means."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.errors import ClusterError
from cluster.kuberay.render import manifests, nodes
from cluster.kuberay.target import KubeRayTarget
from jobs.errors import of_cluster
from jobs.finding import target_named
from jobs.nodes import nodes_of
from jobs.reach import check_reach, settings_of
from jobs.resolve import pools_of
from jobs.spec import Job, SpecError
from jobs.store import RunStore
from jobs.submission import as_submission, settled, taken, write_job
from jobs.which import which
from pipelines.meter import Progress


def render(
    job: Job,
    progress: Progress,
    supersede: bool = False,
    variables: Iterable[str] = (),
    name: str | None = None,
) -> list[dict[str, Any]]:
    """The ConfigMap and the RayJob of the job's run; nothing is written anywhere.

    Which run it is depends on the checkpoint, the input and the output, which are looked at. With a `name` they are
    not: it is the submission's id, and the driver finds out which run that is. Raises SpecError.
    """
    settings = settings_of(job)
    environment = taken(variables)
    if name is None:
        found = which(job, progress, supersede, nodes_of(nodes(settings)))
        job, run_id = settled(job, found), found.record.run_id
    else:
        pools_of(job, nodes_of(nodes(settings)))
        run_id = ""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_job(job, folder)
        id = name or run_id
        submission = as_submission(job, run_id, id, "kuberay", folder, supersede, environment, False, "")
        try:
            return manifests(settings, submission)
        except ClusterError as error:
            raise SpecError(str(error)) from error


def rehearse(
    job: Job,
    target: str,
    store: RunStore,
    progress: Progress,
    supersede: bool = False,
    variables: Iterable[str] = (),
    on_server: bool = False,
) -> list[dict[str, Any]]:
    """What `submit` would send to a kuberay target, checked here, and `on_server` by its API too; nothing is kept.

    Raises SpecError, TargetError.
    """
    check_reach(job)
    if not on_server:
        return render(job, progress, supersede, variables)
    to = target_named(target, store, job.kubernetes)
    assert isinstance(to, KubeRayTarget)
    assert job.kubernetes
    there = job.kubernetes.model_copy(update={"namespace": to.namespace})
    rendered = render(job.model_copy(update={"kubernetes": there}), progress, supersede, variables)
    with of_cluster():
        to.rehearse(rendered)
    return rendered
