"""Kubernetes: its API answers and knows who asks, KubeRay is there, and this account may do what runs need."""

from collections.abc import Iterator

from cluster.kuberay.api import RIGHTS, RIGHTS_OF_HTTP
from cluster.kuberay.target import target
from jobs.doctor.check import Check


def kuberay(address: str) -> Iterator[Check]:
    """What a namespace of a cluster, NAMESPACE@CONTEXT, has for runs."""
    to = target(address)
    yield Check("Kubernetes", "ok", f"{to.context} answers, and is {to.api.version()}.")
    if not to.api.serves_rayjobs():
        yield Check(
            "KubeRay", "failed", f"{to.context} serves no RayJobs (ray.io/v1).",
            "Have KubeRay's operator installed there, 1.7 or newer, or choose another context.",
        )  # fmt: skip
        return
    yield Check("KubeRay", "ok", "RayJobs (ray.io/v1) are served.")
    missing, of_http = (
        [f"{verb} {resource}" for verb, group, resource in rights if not to.api.may(verb, resource, group)]
        for rights in (RIGHTS, RIGHTS_OF_HTTP)
    )
    if missing:
        yield Check(
            "rights", "failed", f"In {to.namespace}, this account may not {', '.join(missing)}.",
            "Ask for the Role that the README lists, On Kubernetes.",
        )  # fmt: skip
    elif of_http:
        yield Check(
            "rights", "warning", f"In {to.namespace}, this account may not {', '.join(of_http)}.",
            "Have logs by kubernetes.submission_mode: SidecarMode, or ask for these rights.",
        )  # fmt: skip
    else:
        yield Check("rights", "ok", f"In {to.namespace}, this account may do all that runs need.")
