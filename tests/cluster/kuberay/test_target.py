"""The target against an API that throttles, fails, conflicts, loses answers and forgets; test_targets runs commands."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterError, ConnectionLostError
from cluster.kuberay.settings import Kubernetes
from cluster.kuberay.target import KubeRayTarget
from cluster.kuberay.target import target as target_at
from cluster.target import Sent, Submission
from tests.cluster.head import free_port
from tests.cluster.kuberay.conftest import IMAGE
from tests.cluster.kuberay.objects import Log, Refusal
from tests.cluster.kuberay.server import Fault, Server

NAME = "perceive-a"


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "job.yaml").write_text("name: a\n")
    return Submission("a", ("python", "-m", "jobs", "run", "job.yaml"), folder, labels={"run_id": "a"})


def rayjob(server: Server) -> dict[str, Any]:
    return server.get("rayjobs", NAME)


def say(server: Server, **status: Any) -> None:
    server.change("rayjobs", NAME, part="status", status=status)


def test_what_is_submitted_is_there_and_owned(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    assert target.look("a") is None
    assert target.submit(submission)
    made = rayjob(server)
    files = server.get("configmaps", NAME)
    assert files["data"] == {"job.yaml": "name: a\n"}
    assert [one["uid"] for one in files["metadata"]["ownerReferences"]] == [made["metadata"]["uid"]]
    assert target.look("a") == Sent("a", "pending", "KubeRay's operator has not taken it up.")
    assert not target.submit(submission)
    assert not replace(target, settings=target.settings).submit(submission)
    assert rayjob(server) == made
    target.stop("a")
    assert (target.look("a"), server.objects) == (None, {})


def test_all_is_checked_before_anything_is_made(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    server.faults.append(Fault("refuse", "POST", "/rayjobs", code=422))
    with pytest.raises(ClusterError, match=r"The cluster of context here refuses it \(422\): on purpose\."):
        target.submit(submission)
    posts = [one for one in server.requests if one.startswith("POST")]
    assert len(posts) == 2
    assert all("dryRun=All" in one for one in posts)
    assert server.objects == {}


def test_what_kuberay_would_refuse_is_not_sent(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    with pytest.raises(ClusterError, match=r"it has 69 characters, and 47 are allowed\. Choose another id\."):
        target.submit(replace(submission, id="a" * 60))
    with pytest.raises(ClusterError, match="the image has its perceiver-batch"):
        target.submit(replace(submission, packages=(Path("jobs"),)))
    with pytest.raises(ClusterError, match="its job's kubernetes: section, and there is none"):
        replace(target, settings=None).submit(submission)
    assert server.requests == []


@pytest.mark.parametrize("kind", ["rayjobs", "configmaps"])
def test_an_answer_that_was_lost_is_found_again(
    kind: str, target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    """The first POST of each is the dry run."""
    server.faults += [Fault("wait", "POST", f"/{kind}"), Fault("lose", "POST", f"/{kind}")]
    assert target.submit(submission)  # it was this one's
    assert (
        server.get("configmaps", NAME)["metadata"]["ownerReferences"][0]["uid"]
        == rayjob(server)["metadata"]["uid"]
    )
    assert len(server.objects) == 2


def test_a_client_that_was_killed_in_between_is_followed_by_another(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    server.faults += [Fault("wait", "POST", "/configmaps"), Fault("refuse", "POST", "/configmaps", code=403)]
    with pytest.raises(ClusterError, match="403"):
        target.submit(submission)
    assert [kind for kind, _, _ in server.objects] == ["rayjobs"]  # its head waits for its files
    assert not target.submit(submission)
    assert (
        server.get("configmaps", NAME)["metadata"]["ownerReferences"][0]["uid"]
        == rayjob(server)["metadata"]["uid"]
    )


def test_what_is_left_of_a_namesake_gives_way(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    """The collector of what a deleted RayJob owned may be slow."""
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": NAME, "uid": "of-one-before"}
    left = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"job.yaml": "old"}}
    server.create("configmaps", "batch", left | {"metadata": {"name": NAME, "ownerReferences": [owner]}})
    assert target.submit(submission)
    assert server.get("configmaps", NAME)["data"] == {"job.yaml": "name: a\n"}


def test_throttling_and_outages_pass(target: KubeRayTarget, submission: Submission, server: Server) -> None:
    server.faults += [
        Fault("refuse", "POST", "/rayjobs", code=429, after_s=0.3),
        Fault("refuse", "POST", "/configmaps", code=503),
        Fault("refuse", "GET", "/rayjobs", code=500),
        Fault("lose", "GET", "/rayjobs"),
    ]
    began = time.monotonic()
    assert target.submit(submission)
    assert time.monotonic() - began >= 0.3
    assert target.look("a") == Sent("a", "pending", "KubeRay's operator has not taken it up.")


def test_patience_ends(target: KubeRayTarget, server: Server) -> None:
    server.faults.append(Fault("refuse", "GET", "/rayjobs", times=1000, code=503))
    message = r"The cluster of context here answered 503 for 0\.5 s \(on purpose\)\. Try again later\."
    with pytest.raises(ClusterError, match=message):
        replace(target, patience_s=0.5).look("a")
    server.faults[:] = [Fault("refuse", "GET", "/rayjobs", times=1000, code=429, after_s=3600)]
    began = time.monotonic()
    with pytest.raises(ClusterError, match="answered 429"):
        replace(target, patience_s=0.5).look("a")
    assert time.monotonic() - began < 2


def test_who_may_not_is_told_what_to_do(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    server.forbidden.add(("create", "rayjobs"))
    message = r'refuses it \(403\): rayjobs is forbidden: User "me" cannot create .* Ask for the Role that the README'
    with pytest.raises(ClusterError, match=message):
        target.submit(submission)
    server.token = "another"
    with pytest.raises(
        ClusterError, match=r"does not know who asks \(401\)\. Log in again, as for kubectl; kubectl --c"
    ):
        target.look("a")
    assert len([one for one in server.requests if one.startswith("GET")]) == 1  # neither is asked again


def test_a_cluster_without_kuberay(target: KubeRayTarget, submission: Submission, server: Server) -> None:
    server.serves_rayjobs = False
    for ask in (lambda: target.look("a"), lambda: target.submit(submission)):
        with pytest.raises(
            ClusterError, match=r"serves no RayJobs \(ray\.io/v1\)\. Install KubeRay's operator, or"
        ):
            ask()
    server.serves_rayjobs = True
    with pytest.raises(ClusterError, match=r"has no namespace elsewhere. Choose another with --namespace"):
        replace(target, namespace="elsewhere").submit(submission)


def test_what_is_no_kubernetes_is_said(
    target: KubeRayTarget, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "get", lambda *_: (200, b"<html>Log in here</html>", "text/html"))
    with pytest.raises(ClusterError, match=r"answered what is no JSON \(.*\)\. Is that a Kubernetes API"):
        target.look("a")


def test_nobody_answers(
    target: KubeRayTarget, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = server.kubeconfig(tmp_path / "nobody")
    config.write_text(config.read_text().replace(server.url, f"http://127.0.0.1:{free_port()}"))
    monkeypatch.setenv("KUBECONFIG", str(config))
    message = r"The cluster of context here does not answer \(NewConnectionError\)\..*kubectl --context here version"
    with pytest.raises(ConnectionLostError, match=message):
        replace(target, patience_s=0.3).look("a")


def test_a_target_is_where_kubectl_would_go(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Kubernetes(image=IMAGE, namespace="default")
    assert target_at().name == "kuberay batch@here"
    assert target_at("", settings).name == "kuberay default@here"
    assert target_at("mine", settings).name == "kuberay mine@here"
    assert target_at("@here").name == "kuberay batch@here"
    assert (
        target_at("mine@elsewhere").name == "kuberay mine@elsewhere"
    )  # a name from the run store, which is whole
    with pytest.raises(ClusterError, match=r"has no context elsewhere. It has: here"):
        target_at("@elsewhere")
    with pytest.raises(ClusterError, match="The context elsewhere can't be used"):
        target_at("mine@elsewhere").look("a")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"There is no cluster to go to: .*Set KUBECONFIG"):
        target_at()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert target_at().name == "kuberay default@in-cluster"


def test_nodes_are_those_of_the_settings(target: KubeRayTarget) -> None:
    assert target.nodes() == ((4.0, 0.0, ""),)
    with pytest.raises(ClusterError, match="kubernetes: section"):
        replace(target, settings=None).nodes()


def begun(target: KubeRayTarget, submission: Submission, server: Server, **status: Any) -> None:
    target.submit(submission)
    say(server, **{"jobDeploymentStatus": "Initializing", "rayClusterName": "c"} | status)


def make_pod(server: Server, name: str = "c-head", **status: Any) -> None:
    labels = {"ray.io/cluster": "c", "ray.io/node-type": "head"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "status": status}
    server.create("pods", "batch", pod | {"spec": {"containers": [{"name": "ray-head", "image": "i"}]}})


def warn(server: Server, of: str, reason: str, message: str) -> None:
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e-"}, "type": "Warning", "reason": reason,
        "message": message, "involvedObject": {"name": of}, "lastTimestamp": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    server.create("events", "batch", event)


def test_while_it_waits_it_says_why(target: KubeRayTarget, submission: Submission, server: Server) -> None:
    begun(target, submission, server)
    start = "Its Ray cluster is being started."
    assert target.look("a") == Sent("a", "pending", start)
    warn(server, "c", "FailedToCreateHeadPod", "exceeded quota: pods=10")
    assert target.look("a") == Sent(
        "a", "pending", f"{start} FailedToCreateHeadPod: exceeded quota: pods=10."
    )
    make_pod(
        server,
        phase="Pending",
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPUs"}
        ],
    )
    assert target.look("a") == Sent("a", "pending", f"{start} 1 of its 1 pods: Unschedulable, no GPUs.")
    server.forbidden.add(("list", "pods"))
    said = f"{start} Why can't be seen: this account may not list pods and events."
    assert target.look("a") == Sent("a", "pending", said)


def told(target: KubeRayTarget, follow: bool = True) -> str:
    return "".join(target.logs("a", follow))


def running(target: KubeRayTarget, submission: Submission, server: Server) -> Log:
    begun(target, submission, server, jobDeploymentStatus="Running", jobStatus="RUNNING")
    make_pod(server)
    log = server.logs["c-head", "ray-job-submitter"] = Log()
    return log


def later(*steps: Callable[[], object], every_s: float = 0.1) -> threading.Thread:
    def go() -> None:
        for step in steps:
            time.sleep(every_s)
            step()

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return thread


def test_a_log_that_breaks_off_goes_on_where_it_was(
    target: KubeRayTarget, submission: Submission, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of one time, too, and what the connection was cut in the middle of."""
    monkeypatch.setattr("cluster.kuberay.logs._AGAIN_S", 0.05)
    log = running(target, submission, server)
    now = time.time()
    for n in range(6):
        log.write(f"line {n}", at=now + n // 3)  # three of each time
    server.faults += [Fault("cut", "GET", "/log", pieces=pieces) for pieces in (2, 4, 0)]
    server.faults.append(Fault("refuse", "GET", "/log", code=500))
    done = lambda: say(server, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")  # noqa: E731
    thread = later(lambda: log.write("line 6", at=now + 9), log.end, done, every_s=0.4)
    assert told(target) == "".join(f"line {n}\n" for n in range(7))
    thread.join()
    assert told(target, follow=False) == "".join(f"line {n}\n" for n in range(7))


def test_a_log_goes_on_with_the_next_cluster(
    target: KubeRayTarget, submission: Submission, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.kuberay.logs._AGAIN_S", 0.05)
    log = running(target, submission, server)
    log.write("of the first", at=2e9)  # its clock was ahead
    log.end()
    second = Log()
    second.write("of the second")
    second.end()

    def again() -> None:
        server.logs["d-head", "ray-job-submitter"] = second
        labels = {"ray.io/cluster": "d", "ray.io/node-type": "head"}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "d-head", "labels": labels},
            "spec": {},
        }
        server.create("pods", "batch", pod)
        say(server, rayClusterName="d")

    done = lambda: say(server, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")  # noqa: E731
    thread = later(lambda: say(server, jobDeploymentStatus="Retrying"), again, done, every_s=0.2)
    assert told(target) == "of the first\nof the second\n"
    thread.join()


def test_before_and_after_there_is_a_log(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    begun(target, submission, server)
    assert told(target, follow=False) == ""  # it has not begun
    make_pod(server)
    assert told(target, follow=False) == ""  # its container has not
    message = "Job entrypoint command failed with exit code 5, last available logs (truncated):\nthe end"
    server.delete("pods", "c-head")
    say(server, jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message=message)
    assert told(target) == "the end\n"  # its cluster is gone: what KubeRay keeps
    say(server, message="Job entrypoint command failed with exit code 5. No logs available.")
    with pytest.raises(
        ClusterError, match="The cluster of a is gone, and its log with it; perceive logs --events"
    ):
        told(target)
    server.delete("rayjobs", NAME)
    with pytest.raises(ClusterError, match="There is no submission a in namespace batch of here"):
        told(target)


def test_a_follower_ends_with_the_rayjob(
    target: KubeRayTarget, submission: Submission, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.kuberay.logs._AGAIN_S", 0.05)
    begun(target, submission, server)
    thread = later(lambda: server.delete("rayjobs", NAME))
    assert told(target) == ""
    thread.join()


def test_a_stop_meant_for_another_stops_nothing(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    target.submit(submission)
    server.faults.append(Fault("refuse", "DELETE", "/rayjobs", code=409))  # deleted and made anew meanwhile
    target.stop("a")
    assert target.look("a") is not None
    server.faults.append(Fault("lose", "DELETE", "/rayjobs"))
    target.stop("a")
    assert target.look("a") is None
    target.stop("a")
    target.submit(submission)
    say(server, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    target.stop("a")
    assert target.look("a") == Sent("a", "succeeded")


def test_what_a_ttl_took_away_is_forgotten(
    target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    target.submit(submission)
    say(server, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    server.delete("rayjobs", NAME)
    assert target.look("a") is None
    with pytest.raises(Refusal):
        server.get("configmaps", NAME)


@pytest.mark.parametrize("given", [None, "of-mine"])
def test_a_log_by_rays_own_api(
    given: str | None, target: KubeRayTarget, submission: Submission, server: Server
) -> None:
    """In HTTPMode no container has it."""
    import base64
    import json

    settings = Kubernetes(image=IMAGE, submission_mode="HTTPMode", token_secret=given)
    target = replace(target, settings=settings)
    begun(
        target, submission, server, jobDeploymentStatus="Running", jobStatus="RUNNING", jobId="the-job",
        rayClusterStatus={"head": {"serviceName": "c-svc"}},
    )  # fmt: skip
    token = base64.b64encode(b"the-token").decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": given or "c"},
        "data": {"auth_token": token},
    }
    assert told(target, follow=False) == ""  # there is no such Secret yet
    server.create("secrets", "batch", secret)
    asked = []

    def answers(service: str, path: str, headers: Any) -> tuple[int, bytes]:
        asked.append((service, path, headers["X-Ray-Authorization"], headers["Authorization"]))
        return 200, json.dumps({"logs": "first\nsecond\n"}).encode()

    server.proxied = answers
    assert told(target, follow=False) == "first\nsecond\n"
    assert asked == [("c-svc:8265", "/api/jobs/the-job/logs", "Bearer the-token", f"Bearer {server.token}")]


def test_no_secret_of_its_own_is_shown(target: KubeRayTarget, submission: Submission, server: Server) -> None:
    server.faults.append(Fault("refuse", "GET", "/rayjobs", code=403))
    with pytest.raises(ClusterError) as raised:
        target.look("a")
    assert server.token not in f"{raised.value!r} {target!r} {target.api!r}"
    assert os.environ["KUBECONFIG"] not in target.name
