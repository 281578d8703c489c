"""What the operator alone refuses: each case with its whole reason, and a twin beside it that passes."""

import pytest

from cluster.kuberay.rules import broken
from tests.cluster.kuberay import cluster_cases, job_cases
from tests.cluster.kuberay.cases import HEAD, Case, made
from tests.cluster.kuberay.cluster_cases import ENV, GROUP
from tests.cluster.kuberay.crds import FOLDER, problems
from tests.cluster.kuberay.job_cases import RULES
from tests.cluster.kuberay.test_crds import changed, config_map, ray_job

CASES = [*job_cases.CASES, *cluster_cases.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_is_refused_and_its_twin_passes(case: Case) -> None:
    assert broken(made(case, case.wrong)) == [case.reason]
    assert broken(made(case, case.right)) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_twin_passes_the_schemas_too(case: Case) -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"KubeRay's schemas are not in {FOLDER}")
    assert problems(case.kind, made(case, case.right)) == []


def test_most_of_it_is_what_the_schemas_let_pass() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"KubeRay's schemas are not in {FOLDER}")
    seen = [case.name for case in CASES if problems(case.kind, made(case, case.wrong))]
    assert seen == ["preRunningDeadlineSeconds is too little"]


def test_all_reasons_come_at_once() -> None:
    manifest = changed(changed(ray_job(), "spec.backoffLimit", -1), "spec.submissionMode", "Mine")
    assert [reason.split(":")[0] for reason in broken(manifest)] == [
        "spec.submissionMode",
        "spec.backoffLimit",
    ]


def test_what_is_of_a_wrong_type_is_left_to_the_schemas() -> None:
    for place in ("spec", "metadata", "spec.rayClusterSpec", f"{HEAD}.template", ENV, GROUP, RULES):
        for value in ("text", 3, [3], [[]], {"a": [3]}, True):
            assert isinstance(broken(changed(ray_job(), place, value)), list)


def test_other_kinds_are_not_known() -> None:
    with pytest.raises(ValueError, match=r"^expected a RayJob, RayCronJob or RayCluster; got 'ConfigMap'\.$"):
        broken(config_map())
