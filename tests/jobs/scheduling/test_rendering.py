"""A schedule as a CronJob: what Kubernetes takes, and what no CronJob can do, each with a twin that it can."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from jobs.cli import main
from jobs.cli.options import FIRE
from jobs.scheduling.rendering import render
from jobs.spec import SpecError, parse_job
from tests.cluster.kuberay.crds import problems

IMAGE = f"registry.example.com/perceiver-batch@sha256:{'0' * 64}"
SCHEDULE = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}
KUBERNETES: dict[str, Any] = {
    "image": IMAGE, "service_account": "scheduler", "namespace": "batch", "env": {"AWS_REGION": "eu-west-1"},
    "secrets": {"HF_TOKEN": {"name": "hub", "key": "token"}}, "labels": {"team": "video"},
}  # fmt: skip
JOB: dict[str, Any] = {
    "name": "nightly",
    "task": "video-classification",
    "model": {"checkpoint": "demo"},
    "input": {"uri": "s3://bucket/videos", "select": "new"},
    "output": {"uri": "s3://bucket/out"},
    "kubernetes": KUBERNETES,
    "schedule": SCHEDULE,
}


def rendered(**more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    files, cron_job = render(parse_job(JOB | {"schedule": SCHEDULE | more}))
    return files, cron_job


def test_it_is_what_kubernetes_takes() -> None:
    files, cron_job = rendered(start_deadline="2h")
    for one in (files, cron_job):
        assert not problems(one["kind"], one)
    spec = cron_job["spec"]
    assert {name: value for name, value in spec.items() if name != "jobTemplate"} == {
        "schedule": "30 2 * * *", "timeZone": "Europe/Berlin", "concurrencyPolicy": "Forbid", "suspend": False,
        "startingDeadlineSeconds": 7200,
    }  # fmt: skip
    assert cron_job["metadata"]["name"] == "perceive-nightly"
    assert cron_job["metadata"]["labels"]["team"] == "video"
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == [
        "python", "-m", "jobs", "submit", "/etc/perceiver-job/job.yaml", "--target", "kuberay",
        "--fire", "$(PERCEIVER_CRON_JOB)", "--wait",
    ]  # fmt: skip
    variables = {one["name"]: one for one in container["env"]}
    assert variables["PERCEIVER_CRON_JOB"]["valueFrom"] == {
        "fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}
    }
    assert "value" not in variables["HF_TOKEN"]
    assert (pod["serviceAccountName"], pod["restartPolicy"]) == ("scheduler", "Never")
    assert {"name": "job", "configMap": {"name": files["metadata"]["name"]}} in pod["volumes"]
    assert parse_job(yaml.safe_load(files["data"]["job.yaml"])) == parse_job(
        JOB | {"schedule": SCHEDULE | {"start_deadline": "2h"}}
    )


def test_a_changed_job_has_a_config_map_of_its_own() -> None:
    names = {
        render(parse_job(JOB | {"max_error_rate": rate}))[0]["metadata"]["name"] for rate in (0.1, 0.2, 0.1)
    }
    assert len(names) == 2
    assert all(name.startswith("perceive-nightly-") for name in names)


@pytest.mark.parametrize(
    ("overlap", "policy"), [("forbid", "Forbid"), ("queue", "Forbid"), ("allow", "Allow")]
)
def test_overlaps(overlap: str, policy: str) -> None:
    assert rendered(overlap=overlap)[1]["spec"]["concurrencyPolicy"] == policy


def test_what_is_not_made_up_for_is_missed_after_ten_minutes() -> None:
    assert rendered(catch_up="none")[1]["spec"]["startingDeadlineSeconds"] == 600
    assert "startingDeadlineSeconds" not in rendered(catch_up="latest")[1]["spec"]


OTHERWISE = " Choose otherwise, or leave it to perceive tick: perceive schedule apply FILE --target kuberay."


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"schedule": SCHEDULE | {"overlap": "replace"}},
            "schedule: by a CronJob, overlap: replace would end the pod that waits for a run, and not the run."
            + OTHERWISE,
        ),
        (
            {"schedule": SCHEDULE | {"catch_up": "all"}},
            "schedule: by a CronJob, catch_up: all can't be had, for it makes up for the last fire alone."
            + OTHERWISE,
        ),
        (
            {"schedule": SCHEDULE | {"jitter": "5m"}},
            "schedule: by a CronJob, jitter can't be had." + OTHERWISE,
        ),
        (
            {"schedule": SCHEDULE | {"webhook": "TEAM"}},
            "schedule: by a CronJob, webhook can't be had: let what watches the cluster's Jobs tell of failed ones."
            + OTHERWISE,
        ),
        (
            {"schedule": SCHEDULE | {"start_deadline": "9s"}},
            "start_deadline: a CronJob with less than 10 s may never fire; got 9 s. Give it more.",
        ),
        (
            {"kubernetes": KUBERNETES | {"service_account": None}},
            "The CronJob's pods create RayJobs, and need an account that may: set kubernetes.service_account. perceive "
            "doctor --context says what is missing.",
        ),
        (
            {"schedule": None},
            "The job nightly has no schedule: expected a section schedule with cron, such as schedule: {cron: "
            '"30 2 * * *", timezone: Europe/Berlin}. To run it once: perceive submit --target kuberay.',
        ),
    ],
)
def test_what_no_cron_job_can_do(more: dict[str, Any], expected: str) -> None:
    with pytest.raises(SpecError) as caught:
        render(parse_job(JOB | more))
    assert str(caught.value) == expected


def test_its_name_must_leave_room_for_its_jobs() -> None:
    render(parse_job(JOB | {"name": "n" * 43}))
    with pytest.raises(
        SpecError, match=r"n can't be a CronJob named perceive-n+: .* Give the job a shorter name\."
    ):
        render(parse_job(JOB | {"name": "n" * 44}))


def test_a_jobs_name_is_its_fires_time() -> None:
    at = datetime(2026, 11, 26, 1, 30, tzinfo=UTC)
    name = f"perceive-nightly-{int(at.timestamp()) // 60}"

    @click.command()
    @FIRE
    def command(fire: str) -> None:
        click.echo(fire)

    for given in (name, "2026-11-26T02:30+01:00"):
        assert CliRunner().invoke(command, ["--fire", given]).stdout == "2026-11-26T01:30:00+00:00\n"
    assert CliRunner().invoke(command, ["--fire", "perceive-nightly"]).exit_code == 2


def test_it_is_printed_for_kubectl(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    done = CliRunner().invoke(main, ["schedule", "render", str(tmp_path / "job.yaml")])
    assert [one["kind"] for one in yaml.safe_load_all(done.stdout)] == ["ConfigMap", "CronJob"]
    done = CliRunner().invoke(main, ["schedule", "render", str(tmp_path / "job.yaml"), "--json"])
    assert json.loads(done.stdout)["items"] == render(parse_job(JOB))
