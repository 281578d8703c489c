"""What KubeRay (1.7) says of a RayJob, as what became of a submission; of what is not known, that it isn't."""

import re
from collections.abc import Callable
from typing import Any

from cluster.kuberay.settings import KUEUE
from cluster.target import DONE, Sent, State

#: status.reason of a RayJob that failed. AppFailed is the command's own end, the others are the cluster's.
REASONS: dict[str, str] = {
    "AppFailed": "Its command failed",
    "SubmissionFailed": "Its command could not be handed to its Ray cluster",
    "DeadlineExceeded": "It took longer than activeDeadlineSeconds allows",
    "PreRunningDeadlineExceeded": "Its Ray cluster was not there within preRunningDeadlineSeconds",
    "JobDeploymentStatusTransitionGracePeriodExceeded": "It ended in its Ray cluster, and KubeRay saw no end of it",
    "JobStatusCheckTimeoutExceeded": "Its Ray cluster's head stopped answering KubeRay",
    "ValidationFailed": "KubeRay's operator refuses its RayJob",
}
#: status.jobDeploymentStatus of one that has not ended, but for those that depend on more than that.
_GOING: dict[str, tuple[State, str]] = {
    "": ("pending", "KubeRay's operator has not taken it up."),
    "Initializing": ("pending", "Its Ray cluster is being started."),
    "Waiting": ("pending", "It waits for somebody to submit its command by hand (InteractiveMode)."),
    "Suspending": ("running", "It is being suspended: its Ray cluster is taken down."),
}
_ENDED = ("Complete", "Failed", "ValidationFailed")
#: As Ray puts it into the message of a command that failed (2.60), which KubeRay hands on.
_EXIT_CODE = re.compile(r"Job entrypoint command failed with exit code (-?\d+)")


def sent_of(id: str, rayjob: dict[str, Any], why: Callable[[dict[str, Any]], str] = lambda _: "") -> Sent:
    """What became of a submission that is this RayJob; `why` is asked what keeps one from beginning."""
    status = rayjob.get("status") or {}
    deployment, ray_job = status.get("jobDeploymentStatus") or "", status.get("jobStatus") or ""
    reason, message = status.get("reason") or "", _text(status.get("message"))
    if deployment in _ENDED:
        sent = _ended(id, deployment, ray_job, reason, message)
    elif rayjob["metadata"].get("deletionTimestamp"):
        sent = Sent(
            id, "running", "It is being stopped: KubeRay ends its command, and then takes its cluster down."
        )
    elif deployment == "Suspended" or (not deployment and rayjob["spec"].get("suspend")):
        sent = _suspended(id, rayjob)
    elif deployment == "Running":
        sent = _running(id, ray_job)
    elif deployment == "Retrying":
        failed = _failed(reason, message)
        sent = Sent(
            id, "pending", f"{failed} KubeRay starts another cluster for it, which goes on with the run."
        )
    elif deployment in _GOING:
        state, text = _GOING[deployment]
        sent = Sent(id, state, " ".join(filter(None, (text, why(rayjob) if state == "pending" else ""))))
    else:
        sent = Sent(
            id,
            "running",
            f"KubeRay says that it is {deployment!r}, which this perceiver-batch does not know.",
        )
    return sent


def _running(id: str, ray_job: str) -> Sent:
    match ray_job:
        case "RUNNING":
            return Sent(id, "running")
        case "" | "PENDING":
            return Sent(id, "pending", "Its Ray cluster is there, its command is about to start.")
        case "SUCCEEDED" | "FAILED" | "STOPPED":  # its submitter has not ended, or KubeRay not looked again
            return Sent(id, "running", "Its command has ended, which KubeRay is about to say.")
    return Sent(id, "running", f"Ray says that it is {ray_job!r}, which this perceiver-batch does not know.")


def _ended(id: str, deployment: str, ray_job: str, reason: str, message: str) -> Sent:
    # What Ray says of the command counts for more than how KubeRay came to close the RayJob.
    if ray_job == "SUCCEEDED":
        return Sent(id, "succeeded")
    if ray_job == "STOPPED":
        return Sent(id, "stopped", "It was stopped in its Ray cluster.")
    told = _EXIT_CODE.match(message)
    code = int(told[1]) if told else None
    if code in DONE:  # to Ray whatever isn't 0 is a failure
        return Sent(id, "succeeded", exit_code=code)
    if deployment == "Complete" and ray_job != "FAILED":
        return Sent(
            id, "failed", f"KubeRay says that it is complete, and of its command {ray_job or 'nothing'!r}."
        )
    if deployment == "ValidationFailed":
        reason = reason or deployment
    return Sent(
        id,
        "failed",
        _failed(reason or "AppFailed", message),
        code if code is None or code >= 0 else 128 - code,
    )


def _failed(reason: str, message: str) -> str:
    told = _EXIT_CODE.match(message)
    if told:
        last = message.rstrip().rpartition("\n")[2] if "\n" in message else ""
        return f"Its command ended with exit code {told[1]}{f'; its log ends with: {last}' if last else '.'}"
    what = (
        REASONS.get(reason) or f"It failed for a reason that this perceiver-batch does not know, {reason!r}"
    )
    return f"{what}: {message.rstrip('.')}." if message else f"{what}."


def _suspended(id: str, rayjob: dict[str, Any]) -> Sent:
    queue = (rayjob["metadata"].get("labels") or {}).get(KUEUE)
    if queue:
        return Sent(id, "pending", f"It waits for room in the queue {queue}.")
    return Sent(
        id, "stopped", f"Somebody suspended it: kubectl patch rayjob {rayjob['metadata']['name']} --type merge "
        "-p '{\"spec\":{\"suspend\":false}}' has it go on.",
    )  # fmt: skip


def _text(message: Any) -> str:
    return str(message or "").strip()


def log_of(rayjob: dict[str, Any]) -> str:
    """The end of the log of a command that failed, which outlives its pods; empty if there is none."""
    message = _text((rayjob.get("status") or {}).get("message"))
    return message.partition(":\n")[2] if _EXIT_CODE.match(message) else ""


def waits_for(pods: list[dict[str, Any]], warnings: Callable[[str], list[str]]) -> str:
    """Why these pods don't run, in one sentence; empty if nothing is known to keep them."""
    reasons: dict[str, int] = {}
    for pod in pods:
        reason = _unscheduled(pod) or _stuck(pod) or _creating(pod, warnings)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    return " ".join(
        f"{count} of its {len(pods)} pods: {reason.rstrip('.')}." for reason, count in reasons.items()
    )


def _unscheduled(pod: dict[str, Any]) -> str:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason') or 'not scheduled'}, {condition.get('message') or 'no reason is given'}"
    return ""


def _stuck(pod: dict[str, Any]) -> str:
    status = pod.get("status", {})
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            what = f"{waiting['reason']} of {container.get('image') or container['name']}"
            return f"{what}, {waiting['message']}" if waiting.get("message") else what
    return ""


def _creating(pod: dict[str, Any], warnings: Callable[[str], list[str]]) -> str:
    """What a pod that is placed and pulls nothing waits for: its volumes, as its events say."""
    if pod.get("status", {}).get("phase") != "Pending":
        return ""
    told = warnings(pod["metadata"]["name"])
    return told[-1] if told else ""
