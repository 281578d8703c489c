"""Every status and reason that KubeRay 1.7 documents, and those that it doesn't."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.kuberay.states import REASONS, log_of, sent_of, waits_for
from cluster.target import Sent, State

DEPLOYMENTS = [
    "", "Initializing", "Running", "Complete", "Failed", "ValidationFailed", "Suspending", "Suspended", "Retrying",
    "Waiting",
]  # fmt: skip
RAY_JOBS = ["", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"]
FAILED = "Job entrypoint command failed with exit code {}, last available logs (truncated):\nfirst\nlast"


def rayjob(spec: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **status: Any) -> Any:
    return {
        "metadata": {"name": "perceive-a", "uid": "1", **(metadata or {})},
        "spec": spec or {},
        "status": status,
    }


def sent(deployment: str = "", ray_job: str = "", reason: str = "", message: str = "", **more: Any) -> Sent:
    told = rayjob(jobDeploymentStatus=deployment, jobStatus=ray_job, reason=reason, message=message, **more)
    return sent_of("a", told)


@pytest.mark.parametrize(
    ("deployment", "ray_job", "state", "message"),
    [
        ("", "", "pending", "KubeRay's operator has not taken it up."),
        ("Initializing", "", "pending", "Its Ray cluster is being started."),
        ("Waiting", "", "pending", "It waits for somebody to submit its command by hand (InteractiveMode)."),
        ("Running", "", "pending", "Its Ray cluster is there, its command is about to start."),
        ("Running", "PENDING", "pending", "Its Ray cluster is there, its command is about to start."),
        ("Running", "RUNNING", "running", ""),
        ("Running", "SUCCEEDED", "running", "Its command has ended, which KubeRay is about to say."),
        ("Running", "FAILED", "running", "Its command has ended, which KubeRay is about to say."),
        ("Running", "STOPPED", "running", "Its command has ended, which KubeRay is about to say."),
        ("Suspending", "RUNNING", "running", "It is being suspended: its Ray cluster is taken down."),
        ("Complete", "SUCCEEDED", "succeeded", ""),
        ("Complete", "STOPPED", "stopped", "It was stopped in its Ray cluster."),
        ("Complete", "", "failed", "KubeRay says that it is complete, and of its command 'nothing'."),
    ],
)
def test_statuses(deployment: str, ray_job: str, state: State, message: str) -> None:
    assert sent(deployment, ray_job) == Sent("a", state, message)


@pytest.mark.parametrize("reason", REASONS)
def test_reasons(reason: str) -> None:
    assert sent("Failed", "", reason, "What KubeRay says.") == Sent(
        "a", "failed", f"{REASONS[reason]}: What KubeRay says."
    )
    again = sent("Retrying", "", reason)
    assert again.state == "pending"
    assert (
        again.message
        == f"{REASONS[reason]}. KubeRay starts another cluster for it, which goes on with the run."
    )


def test_what_the_operator_refuses_has_failed() -> None:
    assert (
        sent("ValidationFailed", message="no head").message
        == "KubeRay's operator refuses its RayJob: no head."
    )


@pytest.mark.parametrize(
    ("code", "state", "told"),
    [
        (
            "2",
            "failed",
            Sent("a", "failed", "Its command ended with exit code 2; its log ends with: last", 2),
        ),
        (
            "-9",
            "failed",
            Sent("a", "failed", "Its command ended with exit code -9; its log ends with: last", 137),
        ),
        ("3", "succeeded", Sent("a", "succeeded", exit_code=3)),
    ],
)
def test_exit_codes(code: str, state: State, told: Sent) -> None:
    """KubeRay hands on Ray's message, which is where the command's code is."""
    assert sent("Failed", "FAILED", "AppFailed", FAILED.format(code)) == told


def test_success_counts_for_more_than_how_it_was_closed() -> None:
    for reason in ("JobDeploymentStatusTransitionGracePeriodExceeded", "DeadlineExceeded"):
        assert sent("Failed", "SUCCEEDED", reason).state == "succeeded"


@pytest.mark.parametrize("deployment", ["", "Suspended"])
def test_suspended_by_a_queue_it_waits(deployment: str) -> None:
    queued = rayjob(
        {"suspend": True}, {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}, jobDeploymentStatus=deployment
    )
    assert sent_of("a", queued) == Sent("a", "pending", "It waits for room in the queue gpus.")
    by_hand = sent_of("a", rayjob({"suspend": True}, jobDeploymentStatus=deployment))
    assert by_hand.state == "stopped"
    assert by_hand.message.startswith("Somebody suspended it: kubectl patch rayjob perceive-a ")


def test_one_that_is_being_deleted_is_stopping() -> None:
    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    stopping = sent_of("a", rayjob(metadata=gone, jobDeploymentStatus="Running", jobStatus="RUNNING"))
    assert (stopping.state, stopping.message[:24]) == ("running", "It is being stopped: Kub")
    assert (
        sent_of("a", rayjob(metadata=gone, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")).state
        == "succeeded"
    )


def test_what_is_not_known_is_said() -> None:
    assert (
        sent("Dreaming").message
        == "KubeRay says that it is 'Dreaming', which this perceiver-batch does not know."
    )
    assert sent("Running", "DREAMING").message == (
        "Ray says that it is 'DREAMING', which this perceiver-batch does not know."
    )
    assert sent("Failed", "", "Dreamt").message == (
        "It failed for a reason that this perceiver-batch does not know, 'Dreamt'."
    )


@given(
    st.sampled_from([*DEPLOYMENTS, "Dreaming"]),
    st.sampled_from([*RAY_JOBS, "DREAMING"]),
    st.sampled_from(["", *REASONS, "Dreamt"]),
    st.one_of(st.sampled_from(["", "no exit code"]), st.integers(-64, 255).map(FAILED.format)),
    st.booleans(),
)
def test_whatever_it_is_it_is_something(
    deployment: str, ray_job: str, reason: str, message: str, suspend: bool
) -> None:
    told = rayjob(
        {"suspend": suspend},
        jobDeploymentStatus=deployment,
        jobStatus=ray_job,
        reason=reason,
        message=message,
    )
    found = sent_of("a", told)
    assert found.state in get_args(State)
    assert bool(found.message) == (
        found.state != "succeeded" and (deployment, ray_job) != ("Running", "RUNNING")
    )
    assert found.exit_code is None or 0 <= found.exit_code <= 255
    assert (found.state in ("succeeded", "failed")) <= (
        deployment in ("Complete", "Failed", "ValidationFailed")
    )


def test_a_failed_command_leaves_the_end_of_its_log() -> None:
    assert log_of(rayjob(message=FAILED.format(5))) == "first\nlast"
    assert log_of(rayjob(message="Job finished successfully.")) == ""
    assert log_of(rayjob(message="Job entrypoint command failed with exit code 5. No logs available.")) == ""


def pod(name: str = "p", phase: str = "Pending", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": phase, **status}}


def unschedulable(message: str) -> dict[str, Any]:
    return pod(
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        ]
    )


def test_why_pods_wait() -> None:
    full = unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    pulling = pod(
        containerStatuses=[
            {
                "name": "ray-worker",
                "image": "registry/x@sha256:0",
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
            }
        ]
    )
    assert waits_for([full, full, pulling], lambda name: []) == (
        "2 of its 3 pods: Unschedulable, 0/3 nodes are available: 3 Insufficient nvidia.com/gpu. "
        "1 of its 3 pods: ImagePullBackOff of registry/x@sha256:0, no such image."
    )
    running = pod(phase="Running", containerStatuses=[{"name": "c", "state": {"running": {}}}])
    creating = pod(
        "later", containerStatuses=[{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]
    )
    assert waits_for([running, creating], lambda name: []) == ""
    assert waits_for([running, creating], lambda name: ["old", f"FailedMount: no volume for {name}"]) == (
        "1 of its 2 pods: FailedMount: no volume for later."
    )
