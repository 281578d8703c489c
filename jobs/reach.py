"""What a run in Kubernetes reads must be where its pods find it by the same name."""

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

from cluster.kuberay.settings import Kubernetes
from jobs.spec import Job, SpecError
from perceiver_core.sources import is_hub_id


def check_reach(job: Job) -> None:
    """Raise SpecError of a job for Kubernetes without its section, or that reads what no volume of that has."""
    volumes = settings_of(job).volumes
    missing = [
        f"{field}: {path}"
        for field, path in _local_paths(job)
        if not any(PurePosixPath(path).is_relative_to(volume) for volume in volumes)
    ]
    if missing:
        lines = "\n".join(f"  {one}" for one in missing)
        raise SpecError(
            f"The job reads what pods of a cluster can't see:\n{lines}\nPut it into a bucket, or below a path of "
            f"kubernetes.volumes, where it must be here as well; got {', '.join(volumes) or 'none'}."
        )


def settings_of(job: Job) -> Kubernetes:
    """The job's section kubernetes. Raises SpecError where it has none."""
    if job.kubernetes is None:
        raise SpecError(
            "The job has no section kubernetes, which says what a run there is made of. Add one with an image at "
            "least: perceive init TASK - shows all of it; or -o kubernetes.image=registry/name@sha256:<64 hex digits>."
        )
    return job.kubernetes


def _local_paths(job: Job) -> Iterator[tuple[str, str]]:
    """What the job reads from disk, by field; an output is written, which is asked elsewhere."""
    uris = [job.input.uri] if isinstance(job.input.uri, str) else job.input.uri
    checkpoint = job.model.checkpoint
    fetched = checkpoint == "demo" or (is_hub_id(checkpoint) and not os.path.isdir(checkpoint))
    named = [
        *(("input.uri", uri) for uri in uris),
        *(("input.roots", root) for root in job.input.roots),
        *(() if fetched else (("model.checkpoint", checkpoint),)),
    ]
    for field, uri in named:
        protocol, separator, path = uri.partition("://")
        if not separator or protocol in ("file", "local"):
            yield field, os.path.abspath(path if separator else uri)
