"""What a target is given of a run."""

import sys
from pathlib import Path

import pytest
import yaml

from cluster.kuberay.settings import Kubernetes
from jobs.spec import Job, SpecError, parse_job
from jobs.submission import as_submission, write_job

KUBERNETES = Kubernetes(
    image=f"p@sha256:{'0' * 64}",
    volumes={"/out": {"claim": "a"}, "/in": {"claim": "b", "read_only": True}, "/keys": {"secret": "c"}},
)


def job(output: str) -> Job:
    document = {
        "name": "a-job",
        "task": "video-classification",
        "model": {"checkpoint": "demo"},
        "input": {"uri": "/in/clips"},
        "output": {"uri": output},
    }
    return parse_job(document).model_copy(update={"kubernetes": KUBERNETES})


@pytest.mark.parametrize(
    ("target", "supersede", "fire", "command"),
    [
        ("local", False, "", (sys.executable, "-m", "jobs", "run", "job.yaml")),
        ("ray http://head:8265", True, "", "python -m jobs run job.yaml --ray-address auto --supersede"),
        (
            "kuberay batch", False, "2026-01-01T02:00Z",
            "python -m jobs run job.yaml --ray-address auto --fire 2026-01-01T02:00Z",
        ),
    ],
)  # fmt: skip
def test_its_command(
    target: str, supersede: bool, fire: str, command: str | tuple[str, ...], tmp_path: Path
) -> None:
    run = job("s3://bucket/out")
    write_job(run, tmp_path / "folder")
    sent = as_submission(
        run, "0123", "0123-2", target, tmp_path / "folder", supersede, {"REGION": "eu"}, False, fire
    )
    assert sent.command == (tuple(command.split()) if isinstance(command, str) else command)
    assert sent.environment == {
        "REGION": "eu", "PERCEIVER_TARGET": target, "PERCEIVER_SUBMISSION": "0123-2",
    }  # fmt: skip
    assert sent.labels == {"run_id": "0123", "job": "a-job", "output": "s3://bucket/out"}
    assert parse_job(yaml.safe_load((sent.folder / "job.yaml").read_text())) == run


def test_in_kubernetes_an_output_outlives_its_pods(tmp_path: Path) -> None:
    def sent(output: str, target: str = "kuberay") -> None:
        as_submission(job(output), "0123", "0123", target, tmp_path, False, {}, False, "")

    for output in ("s3://bucket/out", "/out/table", "/out"):
        sent(output)
    for output in ("/in/out", "/keys/table", "/output/table", "/home/me/out"):
        sent(output, "local")
        with pytest.raises(SpecError) as raised:
            sent(output)
        assert str(raised.value) == (
            f"output.uri: in Kubernetes {output} would be a folder of each pod's own, and go with it. Name one in a "
            "bucket, or below a claim of kubernetes.volumes; got /out."
        )
