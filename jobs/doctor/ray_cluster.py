"""A Ray cluster: its job API answers, takes this token, is of this Ray's version, and has nodes."""

from collections.abc import Iterator

import ray

from cluster.ray_jobs import RayTarget
from jobs.doctor.check import Check


def job_api(address: str) -> Iterator[Check]:
    """What the cluster at an address says of itself."""
    target = RayTarget(address.rstrip("/"))
    version = target.ray_version()
    yield Check("job API", "ok", f"{address} answers, and takes this token.")
    if version == ray.__version__:
        yield Check("cluster's ray", "ok", f"{version}, as here.")
    else:
        yield Check(
            "cluster's ray", "warning", f"It is {version}, here it is {ray.__version__}.",
            "Submit with --installed, to a cluster whose image has a perceiver-batch for its own Ray.",
        )  # fmt: skip
    nodes = target.nodes()
    cpus, gpus = sum(cpus for cpus, _, _ in nodes), sum(gpus for _, gpus, _ in nodes)
    types = ", ".join(sorted({kind for _, gpus, kind in nodes if gpus and kind}))
    if cpus:
        of = f" ({types})" if types else ""
        yield Check("cluster's nodes", "ok", f"{len(nodes)}, with {cpus:g} CPUs and {gpus:g} GPUs{of}.")
    else:
        yield Check(
            "cluster's nodes", "warning", f"{len(nodes)}, without any CPU.",
            "Wait for its workers, or look at its autoscaler: what is submitted now waits for them.",
        )  # fmt: skip
