"""A run in Kubernetes as its user sees it: sent, looked at, stopped and resumed by its name; an API of this process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cluster.kuberay.api import RIGHTS, RIGHTS_OF_HTTP
from jobs.cli import main
from jobs.doctor import kubernetes
from jobs.reach import check_reach
from jobs.spec import SpecError, parse_job
from tests.cluster.kuberay.objects import Log
from tests.cluster.kuberay.server import Server
from tests.pipelines.staging import save_head
from tests.test_house import ROOT

IMAGE = f"registry.example.com/perceiver-batch@sha256:{'0' * 64}"
NAMED = "kuberay batch@here"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("kubernetes") / "model", "PerceiverForSequenceClassification")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.setenv("PERCEIVER_STATE", str(tmp_path / "state"))
        yield server


@pytest.fixture
def job(model: Path, tmp_path: Path) -> Path:
    texts = tmp_path / "in"
    texts.mkdir()
    (texts / "a.txt").write_text("a text")
    document = {
        "name": "there",
        "task": "text-classification",
        "model": {"checkpoint": str(model)},
        "input": {"uri": str(texts)},
        "output": {"uri": str(tmp_path / "out")},
        "options": {"top_k": 2, "overlap": 4},
        "kubernetes": {
            "image": IMAGE,
            "submission_mode": "SidecarMode",
            "volumes": {
                str(tmp_path): {"claim": "all"},
                str(model.parent): {"claim": "models", "read_only": True},
            },
        },
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def says(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def asks(*arguments: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(says(*arguments, "--json", code=code).splitlines()[-1])
    return found


def rayjobs(server: Server) -> list[str]:
    return [one["metadata"]["name"] for one in server.list("rayjobs")]


def test_by_its_name_alone_a_run_is_watched_stopped_and_resumed(job: Path, server: Server) -> None:
    sent = asks("submit", job, "--target", "kuberay")
    run_id = sent["run_id"]
    assert (sent["sent"], sent["state"], sent["target"], sent["submission"]) == (
        True,
        "submitted",
        NAMED,
        run_id,
    )
    assert rayjobs(server) == [f"perceive-{run_id}"]
    assert not asks("submit", job, "--target", "kuberay")["sent"]
    assert "KubeRay's operator has not taken it up." in says("status", run_id)

    def say(**status: Any) -> None:
        server.change("rayjobs", f"perceive-{run_id}", part="status", status=status)

    say(jobDeploymentStatus="Initializing")
    found = asks("status", run_id)
    assert (found["state"], found["message"]) == ("submitted", "Its Ray cluster is being started.")
    say(jobDeploymentStatus="Running", jobStatus="RUNNING", rayClusterName="c")
    assert asks("status", run_id)["state"] == "running"
    log = server.logs["c-head", "ray-job-submitter"] = Log()
    log.write("what it said")
    labels = {"ray.io/cluster": "c", "ray.io/node-type": "head"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c-head", "labels": labels}, "spec": {}}
    server.create("pods", "batch", pod)
    assert says("logs", run_id) == "what it said\n"
    assert asks("stop", run_id, "--wait")["state"] == "stopped"
    assert rayjobs(server) == []
    assert f"Next: perceive resume {run_id}" in says("status", run_id)
    again = asks("resume", run_id)  # where it was, by what it was made of
    assert (again["sent"], again["state"], again["target"]) == (True, "submitted", NAMED)
    assert again["submission"] == f"{run_id}-2"  # the first is forgotten there, and not taken again
    assert rayjobs(server) == [f"perceive-{run_id}-2"]


def test_a_run_that_kubernetes_ended_is_lost_and_says_why(job: Path, server: Server) -> None:
    run_id = asks("submit", job, "--context", "here", "--namespace", "default")["run_id"]
    status = {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded", "message": "900 s."}
    server.change("rayjobs", f"perceive-{run_id}", "default", part="status", status=status)
    found = asks("status", run_id)
    assert (found["state"], found["exit_code"], found["target"]) == ("lost", 5, "kuberay default@here")
    assert found["message"] == "Its Ray cluster was not there within preRunningDeadlineSeconds: 900 s."
    assert asks("submit", job, "--namespace", "default")["submission"] == f"{run_id}-2"


def test_what_its_driver_refuses_is_a_bad_job(job: Path, server: Server) -> None:
    run_id = asks("submit", job, "--target", "kuberay")["run_id"]
    message = "Job entrypoint command failed with exit code 2. No logs available."
    status = {
        "jobDeploymentStatus": "Failed",
        "jobStatus": "FAILED",
        "reason": "AppFailed",
        "message": message,
    }
    server.change("rayjobs", f"perceive-{run_id}", part="status", status=status)
    assert asks("status", run_id)["exit_code"] == 2


def test_a_dry_run_sends_nothing(job: Path, server: Server) -> None:
    here = asks("submit", job, "--target", "kuberay", "--dry-run", "client")
    assert [one["kind"] for one in here["manifests"]] == ["ConfigMap", "RayJob"]
    assert server.requests == []
    said = says("submit", job, "--target", "kuberay", "--dry-run", "server")
    assert "The cluster's API takes RayJob perceive-" in said
    assert "in namespace batch. Nothing was sent." in said
    assert server.requests
    assert all("dryRun=All" in one for one in server.requests)
    server.forbidden.add(("create", "rayjobs"))
    assert "refuses it (403)" in says("submit", job, "--target", "kuberay", "--dry-run", "server", code=5)
    assert asks("list")["runs"] == []
    assert "--dry-run is of --target kuberay" in says("submit", job, "--dry-run", "client", code=2)
    both = ["--address", "http://head:8265", "--namespace", "batch"]
    assert "of a Ray cluster, or --namespace and --context, of Kubernetes" in says(
        "submit", job, *both, code=2
    )


def changed(job: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = yaml.safe_load(job.read_text())
    change(document)
    job.write_text(yaml.safe_dump(document))
    return job


def test_a_job_without_its_section_is_refused(job: Path, server: Server) -> None:
    changed(job, lambda document: document.pop("kubernetes"))
    said = says("submit", job, "--target", "kuberay", code=2)
    assert "The job has no section kubernetes, which says what a run there is made of." in said
    assert server.requests == []


def test_what_pods_cannot_see_is_named(job: Path, server: Server, model: Path, tmp_path: Path) -> None:
    changed(
        job, lambda document: document["kubernetes"].update(volumes={str(tmp_path / "out"): {"claim": "out"}})
    )
    said = says("submit", job, "--target", "kuberay", code=2)
    assert (
        f"The job reads what pods of a cluster can't see:\n  input.uri: {tmp_path}/in\n  model.checkpoint: {model}\n"
        "Put it into a bucket, or below a path of kubernetes.volumes, where it must be here as well; got "
        f"{tmp_path}/out."
    ) in said
    assert server.requests == []


@pytest.mark.parametrize(
    ("uris", "checkpoint", "missing"),
    [
        (["s3://bucket/in", "/data/in"], "demo", []),
        (["/data"], "deepmind/language-perceiver", []),
        (
            ["/data2/in", "file:///elsewhere"],
            "https://host/model",
            ["input.uri: /data2/in", "input.uri: /elsewhere"],
        ),
        (["/data/../etc"], "/models/one", ["input.uri: /etc", "model.checkpoint: /models/one"]),
    ],
)
def test_which_paths_are_within_reach(uris: list[str], checkpoint: str, missing: list[str]) -> None:
    job = parse_job(
        {
            "name": "there",
            "task": "text-classification",
            "model": {"checkpoint": checkpoint},
            "input": {"uri": uris},
            "output": {"uri": "s3://bucket/out"},
            "kubernetes": {"image": IMAGE, "volumes": {"/data": {"claim": "data"}}},
        }
    )
    if not missing:
        check_reach(job)
        return
    with pytest.raises(SpecError) as raised:
        check_reach(job)
    assert str(raised.value).splitlines()[1:-1] == [f"  {one}" for one in missing]


def test_an_api_that_is_away_leaves_what_the_output_says(
    job: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_id = asks("submit", job, "--target", "kuberay")["run_id"]
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    said = says("status", run_id)
    assert "The context here can't be used" in said
    assert "What follows is what the output says." in said


def test_doctor_looks_at_kubernetes(server: Server) -> None:
    assert [(one.name, one.state) for one in kubernetes.kuberay("@")] == [
        ("Kubernetes", "ok"),
        ("KubeRay", "ok"),
        ("rights", "ok"),
    ]
    server.forbidden.add(("get", "services/proxy"))
    rights = [*kubernetes.kuberay("@here")][-1]
    assert (rights.state, rights.found) == ("warning", "In batch, this account may not get services/proxy.")
    server.forbidden |= {("create", "rayjobs"), ("get", "pods/log")}
    rights = [*kubernetes.kuberay("@")][-1]
    assert (rights.state, rights.found) == (
        "failed",
        "In batch, this account may not create rayjobs, get pods/log.",
    )
    server.serves_rayjobs = False
    kuberay = [*kubernetes.kuberay("@")][-1]
    assert (kuberay.state, kuberay.found) == ("failed", "here serves no RayJobs (ray.io/v1).")


def test_the_readme_lists_the_rights() -> None:
    [role] = [
        one
        for block in (ROOT / "README.md").read_text().split("```yaml\n")[1:]
        if (one := yaml.safe_load(block.split("```")[0])).get("kind") == "Role"
    ]
    told = {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert told == {*RIGHTS, *RIGHTS_OF_HTTP}
