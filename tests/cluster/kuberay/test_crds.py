"""The schemas do refuse: a validator that lets everything pass would hold up nothing else."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.kuberay.crds import needs_crds, problems, with_defaults

IMAGE = f"registry.example/p@sha256:{'0' * 64}"


def pod() -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "ray", "image": IMAGE}]}}


def ray_job() -> dict[str, Any]:
    """As little of one as there can be."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "a-job"},
        "spec": {
            "entrypoint": "python -m jobs",
            "rayClusterSpec": {
                "rayVersion": "2.60.0",
                "headGroupSpec": {"template": pod()},
                "workerGroupSpecs": [
                    {"groupName": "cpu", "minReplicas": 1, "maxReplicas": 2, "template": pod()}
                ],
            },
        },
    }


def ray_cron_job() -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCronJob",
        "metadata": {"name": "a-schedule"},
        "spec": {"schedule": "0 2 * * *", "timeZone": "Europe/Berlin", "jobTemplate": ray_job()["spec"]},
    }


def ray_cluster() -> dict[str, Any]:
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "a-cluster"},
        "spec": ray_job()["spec"]["rayClusterSpec"],
    }


def config_map() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a-job"},
        "data": {"job.yaml": "name: a"},
    }


GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "RayJob": ray_job,
    "RayCronJob": ray_cron_job,
    "RayCluster": ray_cluster,
    "ConfigMap": config_map,
}
_CLUSTER = "spec.rayClusterSpec"
_CONTAINER = f"{_CLUSTER}.headGroupSpec.template.spec.containers.0"
_RULES = "spec.deletionStrategy"


def changed(document: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The document with another value at a place; None takes away what is there."""
    document = copy.deepcopy(document)
    *above, last = (int(step) if step.isdigit() else step for step in place.split("."))
    below: Any = document
    for step in above:
        below = below.setdefault(step, {}) if isinstance(below, dict) else below[step]
    if value is None:
        del below[last]
    else:
        below[last] = value
    return document


@needs_crds
@pytest.mark.parametrize("kind", GOOD)
def test_what_is_right_passes(kind: str) -> None:
    assert problems(kind, GOOD[kind]()) == []


@needs_crds
@pytest.mark.parametrize(
    ("kind", "place", "value", "said"),
    [
        ("RayJob", "spec.entryPoint", "x", "'entryPoint' was unexpected"),
        ("RayJob", f"{_CLUSTER}.headGroupSpec.replicas", 1, "'replicas' was unexpected"),
        ("RayJob", f"{_CONTAINER}.ressources", {}, "'ressources' was unexpected"),
        ("RayJob", "spec.backoffLimit", "2", "'2' is not of type 'integer'"),
        ("RayJob", "spec.backoffLimit", 1 << 40, "is not a 'int32'"),
        ("RayJob", "spec.entrypoint", ["python"], "is not of type 'string'"),
        ("RayJob", f"{_CLUSTER}.headGroupSpec", None, "'headGroupSpec' is a required property"),
        ("RayJob", f"{_CONTAINER}.name", None, "'name' is a required property"),
        ("RayJob", f"{_CLUSTER}.authOptions.mode", "tokens", "'tokens' is not one of ['disabled', 'token']"),
        ("RayJob", f"{_CONTAINER}.resources.limits", {"memory": "16Gb"}, "'16Gb' does not match"),
        ("RayJob", "spec.preRunningDeadlineSeconds", 0, "0 is less than the minimum of 1"),
        ("RayJob", f"{_CONTAINER}.env", [{"name": "A", "value": "1"}, {"name": "A"}], "['A'] is there twice"),
        ("RayJob", f"{_CLUSTER}.managedBy", "me", "the managedBy field value must be either"),
        ("RayJob", _RULES, {"onSuccess": {"policy": "DeleteSelf"}}, "requires either BOTH onSuccess and onFailure"),
        (
            "RayJob", f"{_RULES}.deletionRules", [{"policy": "DeleteSelf", "condition": {"ttlSeconds": 1}}],
            "requires either the JobStatus or the JobDeploymentStatus field",
        ),
        (
            "RayJob", f"{_RULES}.deletionRules",
            [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}}],
            "cannot be used together within the same deletion condition",
        ),
        ("RayJob", "metadata.name", "A_job", "'A_job' is no name"),
        ("RayJob", "metadata.labels", {"a": "no label"}, "'no label' is no label"),
        ("RayJob", "apiVersion", "ray.io/v2", "expected ray.io/v1 RayJob; got ray.io/v2 RayJob"),
        ("RayCronJob", "spec.concurrencyPolicy", "Forbid", "'concurrencyPolicy' was unexpected"),
        ("RayCronJob", "spec.jobTemplate.spec", {}, "'spec' was unexpected"),
        ("RayCluster", "spec.workerGroupSpecs.0.groupName", None, "'groupName' is a required property"),
        ("RayCluster", "spec.autoscalerOptions.version", "v3", "'v3' is not one of ['v1', 'v2']"),
        ("ConfigMap", "data", {"job.yaml": 1}, "1 is not of type"),
        ("ConfigMap", "dta", {}, "'dta' was unexpected"),
    ],
)  # fmt: skip
def test_what_is_wrong_does_not(kind: str, place: str, value: Any, said: str) -> None:
    found = problems(kind, changed(GOOD[kind](), place, value))
    assert len(found) == 1, found
    assert said in found[0]


@needs_crds
def test_what_was_there_before_is_compared() -> None:
    before = changed(ray_job(), "spec.managedBy", "ray.io/kuberay-operator")
    after = changed(ray_job(), "spec.managedBy", "kueue.x-k8s.io/multikueue")
    assert problems("RayJob", after) == problems("RayJob", before, before) == []
    assert problems("RayJob", after, before) == ["spec.managedBy: the managedBy field is immutable"]


@needs_crds
def test_defaults_are_those_of_the_schema() -> None:
    stored = with_defaults("RayJob", ray_job())["spec"]
    assert (stored["submissionMode"], stored["backoffLimit"]) == ("K8sJobMode", 0)
    assert stored["rayClusterSpec"]["workerGroupSpecs"][0]["numOfHosts"] == 1
