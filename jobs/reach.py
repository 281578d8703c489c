"""What a run reads and writes must be where the pods of a cluster find it by the same name."""

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

from jobs.spec import Job, SpecError
from perceiver_core.sources import is_hub_id


def check_within_reach(job: Job) -> None:
    """Raise SpecError of a job for Kubernetes without its section, or with paths that no volume of it has."""
    if job.kubernetes is None:
        raise SpecError(
            "The job has no kubernetes: section, which says what a run there is made of. It needs an image at least: "
            "kubernetes: {image: registry/name@sha256:...}; perceive schema lists the rest."
        )
    volumes = [PurePosixPath(path) for path in job.kubernetes.volumes]
    missing = [
        f"{field}: {path}"
        for field, path in _local_paths(job)
        if not any(PurePosixPath(path).is_relative_to(volume) for volume in volumes)
    ]
    if missing:
        lines = "\n".join(f"  {one}" for one in missing)
        raise SpecError(
            f"Pods of a cluster can't see what is on this machine:\n{lines}\nPut it into a bucket; or mount a volume "
            "that has it at the same path, here and by kubernetes.volumes "
            f"(which has {', '.join(map(str, volumes)) or 'none'})."
        )


def _local_paths(job: Job) -> Iterator[tuple[str, str]]:
    uris = [job.input.uri] if isinstance(job.input.uri, str) else job.input.uri
    checkpoint = job.model.checkpoint
    fetched = checkpoint == "demo" or (is_hub_id(checkpoint) and not os.path.isdir(checkpoint))
    named = [
        *(("input.uri", uri) for uri in uris),
        *(("input.roots", root) for root in job.input.roots),
        ("output.uri", job.output.uri),
        *(() if fetched else (("model.checkpoint", checkpoint),)),
    ]
    for field, uri in named:
        protocol, separator, path = uri.partition("://")
        if not separator or protocol in ("file", "local"):
            yield field, os.path.abspath(path if separator else uri)
