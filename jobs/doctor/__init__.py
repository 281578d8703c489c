"""What a run needs of this machine, of a job and of a store, looked at one by one; nothing of it stays behind.

Every look is a process of its own, with a time limit: one that hangs, crashes or fails stops no other.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from jobs.doctor.apart import run_apart
from jobs.doctor.check import Check, Probe, State

if TYPE_CHECKING:
    from jobs.spec import Job

__all__ = ["Check", "State", "diagnose"]


def diagnose(
    job: "Job | None" = None,
    store: str | None = None,
    address: str | None = None,
    kuberay: str | None = None,
    tell: Callable[[str], None] = lambda name: None,
) -> Iterator[Check]:
    """Look at this machine, and at a job if there is one; or at a store, the Ray cluster at an address, or KubeRay in
    NAMESPACE@CONTEXT, alone.

    Yields each check as it is made.
    `tell` hears the name of what is looked at, before.
    """
    from pipelines.secrets import redacted

    alone = [*(_of_store(store) if store is not None else ()), *(_of_cluster(address) if address else ())]
    alone += _of_kubernetes(kuberay) if kuberay is not None else []
    probes = alone or [*_of_machine(), *(_of_job(job) if job else ())]
    folder = _own_folder()
    try:
        for probe in probes:
            tell(probe.name)
            for check in run_apart(probe, folder):
                yield replace(check, found=redacted(check.found), advice=redacted(check.advice))
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _own_folder() -> str | None:
    """A temporary folder for all looks, so that nothing stays behind of one that is killed; None if there can't be."""
    try:
        # Short, for Ray's sockets: their paths must stay under 107 characters, and 60 of them are Ray's own.
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 18 else "/tmp"
        return tempfile.mkdtemp(prefix="pd-", dir=base)
    except OSError:
        return None  # the look at the temporary folder says so


def _temporary_folder() -> str | None:
    """Where temporary files are to go: the doctor's own go elsewhere."""
    try:
        return os.environ.get("TMPDIR") or tempfile.gettempdir()
    except FileNotFoundError:
        return None


def _of_machine() -> list[Probe]:
    from jobs.doctor import devices, local_cluster, machine, media, versions

    reinstall = "Install perceiver-batch anew, into an environment of its own."
    return [
        Probe("versions", versions.packages, reinstall),
        Probe("machine", machine.resources, "Look at dmesg for what the machine's kernel says."),
        Probe(
            "folders",
            machine.folders,
            "A disk does not answer: check its mounts.",
            given=(_temporary_folder(),),
        ),
        Probe(
            "codecs", media.codecs, "Install PyAV and Pillow anew: pip install --force-reinstall av pillow."
        ),
        Probe("decoder process", media.decoder_process, reinstall, limit_s=150),
        Probe(
            "device",
            devices.device,
            "PyTorch can't use the device: look at nvidia-smi and dmesg, or set compute.device to cpu.",
            limit_s=120,
        ),
        Probe(
            "ray",
            local_cluster.ray_here,
            "Ray can't start here: look for other Rays (ray status), for memory (dmesg), and for rules that block "
            "127.0.0.1.",
            limit_s=120,
        ),
    ]


def _of_job(job: "Job") -> list[Probe]:
    from jobs.doctor import subject

    fetch = f"Fetch it first: perceive models {job.model.checkpoint}."
    return [
        Probe("checkpoint", subject.checkpoint, fetch, limit_s=300, given=(job,)),
        Probe(
            "input", subject.inputs, "Check the network, the store and its mounts.", limit_s=300, given=(job,)
        ),
        *_of_store(job.output.uri),
    ]


def _of_store(uri: str) -> list[Probe]:
    from jobs.doctor import store

    advice = "Check the network, the address, and the mounts of the disk."
    return [Probe("store", store.store, advice, limit_s=180, given=(uri,))]


def _of_cluster(address: str) -> list[Probe]:
    from jobs.doctor import ray_cluster

    advice = "Check that the head's dashboard runs at that address, and that nothing between here and there drops it."
    return [Probe("job API", ray_cluster.job_api, advice, given=(address,))]


def _of_kubernetes(address: str) -> list[Probe]:
    from jobs.doctor import kubernetes

    advice = (
        "Check the kubeconfig and its context with kubectl, and that nothing between here and there drops it."
    )
    return [Probe("Kubernetes", kubernetes.kuberay, advice, given=(address,))]
