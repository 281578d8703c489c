"""perceive cluster: what it prints, writes and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.spec import load_job
from tests.cluster.kuberay.crds import FOLDER, problems

IMAGE = f"registry.example/p@sha256:{'0' * 64}"
MEDIA = Path(__file__).parents[2] / "examples/media"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    job = {
        "name": "a-job",
        "task": "video-classification",
        "model": {"checkpoint": "demo"},
        "input": {"uri": str(MEDIA)},
        "output": {"uri": str(tmp_path / "mounted/out")},
        "kubernetes": {
            "image": IMAGE,
            "volumes": {
                str(tmp_path / "mounted"): {"claim": "outputs"},
                str(MEDIA): {"claim": "media", "read_only": True},
                "/opt/w": {"claim": "weights", "read_only": True},
            },
            "gpu_workers": {"max_replicas": 2},
        },
    }
    Path("job.yaml").write_text(yaml.safe_dump(job))
    return "job.yaml"


def perceive(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cluster", *arguments])


def test_a_run_is_rendered_under_its_id(file: str) -> None:
    done = perceive("render", file)
    assert done.exit_code == 0, done.output
    config_map, ray_job = yaml.safe_load_all(done.stdout)
    run_id = ray_job["metadata"]["labels"]["perceiver-batch/run-id"]
    assert ray_job["metadata"]["name"] == config_map["metadata"]["name"] == f"perceive-{run_id}"
    assert len(run_id) == 12
    job = yaml.safe_load(config_map["data"]["job.yaml"])
    assert job["model"]["dtype"] == "bfloat16"  # as the GPUs that it is planned for have it
    assert (job["name"], job["kubernetes"]["image"]) == ("a-job", IMAGE)
    assert "  job.yaml: |\n    name: a-job\n" in done.stdout  # for people
    assert not Path("mounted").exists()
    again = json.loads(perceive("render", file, "--json").stdout)
    assert (again["kind"], again["items"]) == ("List", [config_map, ray_job])
    environment = ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    assert {"name": "PERCEIVER_SUBMISSION", "value": run_id} in environment
    if FOLDER.is_dir():
        assert problems("RayJob", ray_job) == problems("ConfigMap", config_map) == []


def test_another_recipe_is_another_run(file: str) -> None:
    def name(*overrides: str) -> Any:
        options = [part for one in overrides for part in ("-o", one)]
        return json.loads(perceive("render", file, "--json", *options).stdout)["items"][1]["metadata"]["name"]

    assert name() == name("kubernetes.backoff_limit=0")
    assert name() != name("options.top_k=3")


def test_under_a_name_nothing_is_looked_at(file: str) -> None:
    elsewhere = (
        "-o",
        "input.uri=s3://nobodys/in",
        "-o",
        "output.uri=s3://nobodys/out",
        "-o",
        "model.checkpoint=/opt/w",
    )
    done = perceive("render", file, "--name", "nightly", *elsewhere)
    assert done.exit_code == 0, done.output
    config_map, ray_job = yaml.safe_load_all(done.stdout)
    assert ray_job["metadata"]["name"] == "perceive-nightly"
    assert "perceiver-batch/run-id" not in ray_job["metadata"]["labels"]
    assert yaml.safe_load(config_map["data"]["job.yaml"])["input"]["uri"] == "s3://nobodys/in"


def test_it_is_written_and_checked(file: str) -> None:
    done = perceive("render", file, "--name", "nightly", "--output", "a file.yaml")
    assert done.output == (
        "Wrote a file.yaml: ConfigMap perceive-nightly, RayJob perceive-nightly.\n"
        "Next: kubectl apply -f 'a file.yaml'\n"
    )
    assert json.loads(perceive("render", file, "--name", "n", "--output", "b.json", "--json").stdout) == {
        "file": "b.json", "names": ["perceive-n", "perceive-n"],
    }  # fmt: skip
    checked = perceive("check", "a file.yaml", "b.json")
    assert (checked.exit_code, checked.output) == (
        0,
        "a file.yaml, RayJob perceive-nightly: nothing is wrong\nb.json, RayJob perceive-n: nothing is wrong\n",
    )


def test_what_the_operator_would_refuse_is_told(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    job = {"kind": "RayJob", "metadata": {"name": "a"}, "spec": {"clusterSelector": {"ray.io/cluster": "b"}}}
    bad = {**job, "spec": {**job["spec"], "submissionMode": "Mine"}}  # type: ignore[dict-item]
    wrong.write_text(yaml.safe_dump_all([{"kind": "Secret"}, bad, None, {"kind": "List", "items": [job]}]))
    done = perceive("check", str(wrong))
    modes = "K8sJobMode, HTTPMode, SidecarMode or InteractiveMode"
    reason = f"spec.submissionMode: expected {modes}; got 'Mine'. Choose one."
    assert (done.exit_code, done.output) == (
        2,
        f"{wrong}, RayJob a: refused\n  {reason}\n{wrong}, RayJob a: nothing is wrong\n",
    )
    assert json.loads(perceive("check", str(wrong), "--json").stdout) == {
        "manifests": [
            {"file": str(wrong), "manifest": "RayJob a", "reasons": [reason]},
            {"file": str(wrong), "manifest": "RayJob a", "reasons": []},
        ],
        "exit_code": 2,
    }


def refused(*arguments: str) -> str:
    done = perceive(*arguments)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    again = json.loads(perceive(*arguments, "--json").stdout)
    said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("files listed"))
    assert again == {"error": said, "exit_code": 2}
    return said


def test_what_can_not_be_rendered(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path.cwd()
    assert refused("render", file, "-o", "kubernetes=null") == (
        "The job has no section kubernetes, which says what a run there is made of. Add one with an image at least: "
        "perceive init TASK - shows all of it; or -o kubernetes.image=registry/name@sha256:<64 hex digits>."
    )
    assert refused("render", file, "-o", "output.uri=elsewhere") == (
        f"output.uri: in Kubernetes {folder}/elsewhere would be a folder of each pod's own, and go with it. Name one "
        f"in a bucket, or below a claim of kubernetes.volumes; got {folder}/mounted."
    )
    assert refused("render", file, "--name", "Nightly").startswith(
        "Submission Nightly can't be a RayJob named perceive-Nightly: it must be of lower-case letters"
    )
    assert refused("render", file, "--name", "a", "--output", "no/such/file") == (
        "no/such/file can't be written: No such file or directory. Name a file in a folder that is there."
    )
    assert refused("render", file, "-o", "compute.predict_workers=9").startswith(
        "compute.predict_workers asks for 9 workers of 1 GPUs, there is room for 1 without the largest of 3 nodes"
    )
    monkeypatch.setenv("MY_TOKEN", "open sesame")
    assert refused("render", file, "--env", "MY_TOKEN").startswith(
        "--env MY_TOKEN: what is called so is a secret"
    )


def test_what_can_not_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("not.yaml").write_text("a: {")
    assert (
        refused("check", "none.yaml") == "none.yaml can't be read: No such file or directory. Check the path."
    )
    assert refused("check", "not.yaml").startswith("not.yaml is not YAML: while parsing a flow node")
    Path("other.yaml").write_text("kind: Pod")
    done = perceive("check", "other.yaml")
    assert (done.exit_code, done.stderr) == (
        2, "No RayJob, RayCronJob or RayCluster in other.yaml. Check the paths.\n",
    )  # fmt: skip


def test_the_pods_job_is_the_job(file: str) -> None:
    """What the driver reads is what was rendered, but for what is fixed."""
    written = yaml.safe_load(next(yaml.safe_load_all(perceive("render", file).stdout))["data"]["job.yaml"])
    Path("again.yaml").write_text(yaml.safe_dump(written))
    job = load_job(file)
    fixed = job.model.model_copy(update={"dtype": "bfloat16"})
    assert load_job("again.yaml") == job.model_copy(update={"model": fixed})


def test_a_plan_is_made_for_the_pods(file: str) -> None:
    planned = CliRunner().invoke(main, ["plan", file, "--target", "kuberay", "--json"])
    assert planned.exit_code == 0, planned.output
    found = json.loads(planned.stdout)
    assert found["nodes"] == [[4.0, 0.0, ""], [4.0, 1.0, ""], [4.0, 1.0, ""]]
    assert (found["device"], found["dtype"], found["seconds"]) == ("cuda", "bfloat16", None)
    none = CliRunner().invoke(main, ["plan", file, "--target", "kuberay", "-o", "kubernetes=null"])
    assert none.exit_code == 2
    assert "The job has no section kubernetes, which says what a run there is made of." in none.stderr
