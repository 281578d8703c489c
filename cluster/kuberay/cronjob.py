"""A job at its times, by Kubernetes itself: a CronJob whose pods submit it as perceive submit --target kuberay does.

A fire is one run, for a CronJob's Job is called after its time (`<name>-<minutes since 1970>`), whoever creates it, and
its pods are told that name: each of them, also one that replaces another, submits the fire of the same time, and waits
for the run's end.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from cluster.errors import ClusterError
from cluster.kuberay.names import wrong_dns_1035
from cluster.kuberay.render import FOLDER, Manifest, config_map, metadata, pod_template
from cluster.kuberay.settings import Kubernetes, Pods
from cluster.target import Submission

LONGEST = 52  # of a CronJob's name: its Jobs' have eleven characters more, and 63 at most
_SOONEST_S = 10  # the controller looks every ten seconds: with less, fires are missed for nothing
_JOB_NAME = "PERCEIVER_CRON_JOB"
_RETRIES = 3
#: It lists the input and sends the job; what is computed is computed by the run's own pods.
_SUBMITTER = Pods(cpus=1, memory="4Gi")


@dataclass(frozen=True)
class Times:
    """When a CronJob fires."""

    cron: str
    timezone: str
    overlap: Literal["Forbid", "Allow"]
    deadline_s: int | None = None  #: a fire that has not begun so long after its time is missed
    suspended: bool = False


def manifests(settings: Kubernetes, times: Times, submission: Submission) -> list[Manifest]:
    """The ConfigMap with what the submission's command reads, and the CronJob; the submission's id is its name.

    Raises ClusterError of what Kubernetes would refuse, or could never do.
    """
    name = f"perceive-{submission.id}"
    if why := wrong_dns_1035(name, LONGEST):
        raise ClusterError(
            f"{submission.id} can't be a CronJob named {name}: {why} Give the job a shorter name."
        )
    if settings.service_account is None:
        raise ClusterError(
            "The CronJob's pods create RayJobs, and need an account that may: set kubernetes.service_account. perceive "
            "doctor --context says what is missing."
        )
    if times.deadline_s is not None and times.deadline_s < _SOONEST_S:
        raise ClusterError(
            f"start_deadline: a CronJob with less than {_SOONEST_S} s may never fire; got {times.deadline_s} s. Give "
            "it more."
        )
    files = config_map(submission, name, settings.namespace)
    # Never changed: a fire that is tried again is that of the job that it was.
    digest = hashlib.sha256(repr(sorted(files["data"].items())).encode()).hexdigest()[:8]
    files["metadata"]["name"] = f"{name}-{digest}"
    about = metadata(name, settings.namespace, settings.labels, settings.annotations)
    cron_job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": about,
        "spec": {
            "schedule": times.cron,
            "timeZone": times.timezone,
            "concurrencyPolicy": times.overlap,
            "suspend": times.suspended,
            **({} if times.deadline_s is None else {"startingDeadlineSeconds": times.deadline_s}),
            "jobTemplate": {
                "metadata": {"labels": dict(about["labels"])},
                "spec": {
                    "backoffLimit": _RETRIES,
                    "template": _pod(settings, submission, files["metadata"]["name"]),
                },
            },
        },
    }
    return [files, cron_job]


def command(file: str) -> tuple[str, ...]:
    """What a fire's pod runs, of a job file in the submission's folder."""
    # Kubernetes puts the variable's value in; it leaves everything else as it is.
    fire = f"$({_JOB_NAME})"
    return (
        "python",
        "-m",
        "jobs",
        "submit",
        f"{FOLDER}/{file}",
        "--target",
        "kuberay",
        "--fire",
        fire,
        "--wait",
    )


def _pod(settings: Kubernetes, submission: Submission, files: str) -> Manifest:
    template = pod_template(settings, _SUBMITTER, submission, "submit", files)
    label = "metadata.labels['batch.kubernetes.io/job-name']"
    variables: list[dict[str, Any]] = [
        {"name": _JOB_NAME, "valueFrom": {"fieldRef": {"fieldPath": label}}},
        {"name": "PERCEIVER_STATE", "value": "/tmp/perceiver-state"},
    ]
    template["spec"]["containers"][0]["env"] += variables
    return template
