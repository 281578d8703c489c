"""What the operator alone refuses: each case with its whole reason, and a twin beside it that passes."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster.kuberay.rules import broken
from tests.cluster.kuberay.crds import FOLDER, problems
from tests.cluster.kuberay.test_crds import GOOD, changed, config_map, ray_job

Changes = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A manifest that is refused for a reason, and what makes it good: changes at places, None for taken away."""

    name: str
    wrong: Changes
    right: Changes
    reason: str
    kind: str = "RayJob"
    both: Changes = field(default_factory=dict)


_OWN = "spec.rayClusterSpec"
_HEAD, _GROUP = f"{_OWN}.headGroupSpec", f"{_OWN}.workerGroupSpecs.0"
_RULES = "spec.deletionStrategy.deletionRules"
_SELECTED: Changes = {_OWN: None, "spec.clusterSelector": {"ray.io/cluster": "theirs"}}
_SCALING: Changes = {f"{_OWN}.enableInTreeAutoscaling": True}
_V2: Changes = {**_SCALING, f"{_OWN}.autoscalerOptions.version": "v2"}
_QUEUED: Changes = {"metadata.labels": {"kueue.x-k8s.io/queue-name": "team"}}
_FAULTS: Changes = {f"{_OWN}.gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}
_TOKEN: Changes = {f"{_OWN}.authOptions": {"mode": "token"}}
_PLACE = f"{_HEAD}.template.spec.containers.0.env"


def rule(policy: str, ttl: int, **condition: str) -> Changes:
    return {"policy": policy, "condition": {**(condition or {"jobStatus": "FAILED"}), "ttlSeconds": ttl}}


def variable(name: str, value: str = "1") -> list[Changes]:
    return [{"name": name, "value": value}]


def not_on_selected(what: str) -> str:
    return (
        f"spec.clusterSelector: a job on a cluster that is there already can't have {what}. Leave that out, or give "
        "the job a rayClusterSpec of its own."
    )


CASES = [
    Case(
        "a job's name is too long",
        {"metadata.name": "a" * 48},
        {"metadata.name": "a" * 47},
        f"metadata.name: {'a' * 48} can't be a RayJob's name: it has 48 characters, and 47 are allowed. Choose "
        "another.",
    ),
    Case(
        "a job's name begins with a digit",
        {"metadata.name": "1job"},
        {"metadata.name": "job1"},
        "metadata.name: 1job can't be a RayJob's name: it must be of lower-case letters, digits and hyphens, begin "
        "with a letter and not end with a hyphen. Choose another.",
    ),
    Case(
        "a schedule's name is too long",
        {"metadata.name": "a" * 37},
        {"metadata.name": "a" * 36},
        f"metadata.name: {'a' * 37} can't be a RayCronJob's name: it has 37 characters, and 36 are allowed. Choose "
        "another.",
        kind="RayCronJob",
    ),
    Case(
        "a cluster's name is too long",
        {"metadata.name": "a" * 54},
        {"metadata.name": "a" * 53},
        f"metadata.name: {'a' * 54} can't be a RayCluster's name: it has 54 characters, and 53 are allowed. Choose "
        "another.",
        kind="RayCluster",
    ),
    Case(
        "no cluster",
        {_OWN: None},
        {},
        "spec: expected rayClusterSpec or clusterSelector; got neither. Say which cluster the job runs on.",
    ),
    Case(
        "two clusters",
        {"spec.clusterSelector": {"ray.io/cluster": "theirs"}},
        _SELECTED,
        "spec: expected either rayClusterSpec or clusterSelector; got both, and the first would be ignored. Leave one "
        "of the two out.",
    ),
    Case(
        "a selector of no cluster",
        {"spec.clusterSelector": {"ray.io/name": "theirs"}},
        {"spec.clusterSelector": {"ray.io/cluster": "theirs"}},
        "spec.clusterSelector: expected ray.io/cluster with a RayCluster's name; got none. Name the cluster.",
        both={_OWN: None},
    ),
    Case(
        "retries on a cluster of others",
        {"spec.backoffLimit": 1},
        {"spec.backoffLimit": 0},
        not_on_selected("a backoffLimit of more than 0"),
        both=_SELECTED,
    ),
    Case(
        "a suspended job on a cluster of others",
        {"spec.suspend": True},
        {"spec.suspend": False},
        not_on_selected("suspend: true"),
        both={**_SELECTED, "spec.shutdownAfterJobFinishes": True},
    ),
    Case(
        "a sidecar in a cluster of others",
        {"spec.submissionMode": "SidecarMode"},
        {"spec.submissionMode": "HTTPMode"},
        not_on_selected("submissionMode: SidecarMode"),
        both=_SELECTED,
    ),
    Case(
        "a mode that there is not",
        {"spec.submissionMode": "HttpMode"},
        {"spec.submissionMode": "HTTPMode"},
        "spec.submissionMode: expected K8sJobMode, HTTPMode, SidecarMode or InteractiveMode; got 'HttpMode'. Choose "
        "one.",
    ),
    Case(
        "retries of what somebody else submits",
        {"spec.backoffLimit": 2},
        {"spec.backoffLimit": 0},
        "spec.backoffLimit: expected 0 with InteractiveMode; got 2. Nothing can be tried again that somebody else "
        "submits: leave it out.",
        both={"spec.submissionMode": "InteractiveMode"},
    ),
    *(
        Case(
            f"{name} with a sidecar",
            {"spec.submissionMode": "SidecarMode"},
            {"spec.submissionMode": "K8sJobMode"},
            f"spec.{name}: SidecarMode has no submitter of its own. Leave it out, or choose K8sJobMode.",
            both={f"spec.{name}": value},
        )
        for name, value in {
            "submitterConfig": {"backoffLimit": 1},
            "submitterPodTemplate": {"spec": {"containers": [{"name": "submitter"}]}},
        }.items()
    ),
    Case(
        "a head that restarts beside a sidecar",
        {f"{_HEAD}.template.spec.restartPolicy": "Always"},
        {f"{_HEAD}.template.spec.restartPolicy": "Never"},
        f"{_HEAD}.template.spec.restartPolicy: expected Never with SidecarMode; got Always. Set it so, or leave it "
        "out.",
        both={"spec.submissionMode": "SidecarMode"},
    ),
    Case(
        "suspended without an end",
        {"spec.shutdownAfterJobFinishes": False},
        {"spec.shutdownAfterJobFinishes": True},
        "spec.suspend: only a job whose cluster goes once it is done can be suspended. Set shutdownAfterJobFinishes "
        "to true.",
        both={"spec.suspend": True},
    ),
    Case(
        "a time to live without an end",
        {"spec.ttlSecondsAfterFinished": 60},
        {"spec.ttlSecondsAfterFinished": 60, "spec.shutdownAfterJobFinishes": True},
        "spec.ttlSecondsAfterFinished: 60 is of no use while nothing is shut down. Set shutdownAfterJobFinishes to "
        "true, or leave it out; deletionRules have ttlSeconds of their own.",
    ),
    *(
        Case(
            f"{name} is too little",
            {f"spec.{name}": least - 1},
            {f"spec.{name}": least},
            f"spec.{name}: expected at least {least}; got {least - 1}. Raise it, or leave it out.",
        )
        for name, least in {
            "ttlSecondsAfterFinished": 0,
            "activeDeadlineSeconds": 1,
            "preRunningDeadlineSeconds": 1,
            "backoffLimit": 0,
        }.items()
    ),
    Case(
        "rules and an end",
        {"spec.shutdownAfterJobFinishes": True},
        {"spec.shutdownAfterJobFinishes": False},
        f"{_RULES}: expected either these or shutdownAfterJobFinishes; got both. Leave shutdownAfterJobFinishes out, "
        "and say by a rule when the cluster goes.",
        both={_RULES: [rule("DeleteCluster", 60)]},
    ),
    Case(
        "workers are deleted from a cluster of others",
        {_RULES: [rule("DeleteWorkers", 60)]},
        {_RULES: [rule("DeleteSelf", 60)]},
        f"{_RULES}.0: DeleteWorkers is not for a cluster that clusterSelector names. Choose DeleteSelf or "
        "DeleteNone.",
        both=_SELECTED,
    ),
    Case(
        "workers are deleted beside an autoscaler",
        {_RULES: [rule("DeleteWorkers", 60)]},
        {_RULES: [rule("DeleteCluster", 60)]},
        f"{_RULES}.0: DeleteWorkers is not for a cluster with autoscaling. Choose DeleteCluster.",
        both=_SCALING,
    ),
    Case(
        "a rule twice",
        {_RULES: [rule("DeleteCluster", 60), rule("DeleteCluster", 90)]},
        {_RULES: [rule("DeleteCluster", 60), rule("DeleteCluster", 90, jobStatus="SUCCEEDED")]},
        f"{_RULES}.1: DeleteCluster with jobStatus FAILED is there already. Leave one of the two out.",
    ),
    Case(
        "rules out of order",
        {_RULES: [rule("DeleteSelf", 30), rule("DeleteCluster", 60)]},
        {_RULES: [rule("DeleteSelf", 60), rule("DeleteCluster", 60)]},
        f"{_RULES}: with jobStatus FAILED, expected DeleteSelf no earlier than DeleteCluster, after 60 s; got 30 s. "
        "Raise its ttlSeconds.",
    ),
    Case(
        "an end that deletes nothing",
        {"spec.shutdownAfterJobFinishes": True},
        {"spec.shutdownAfterJobFinishes": False},
        "spec.deletionStrategy.onFailure: DeleteNone can't be had with shutdownAfterJobFinishes. Leave one of the two "
        "out.",
        both={"spec.deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {"policy": "DeleteNone"}}},
    ),
    Case(
        "an end without a policy",
        {"spec.deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {}}},
        {"spec.deletionStrategy": {"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {"policy": "DeleteSelf"}}},
        "spec.deletionStrategy.onFailure: expected a policy; got none. Say what is deleted, such as DeleteCluster.",
    ),
    Case(
        "a runtime environment that is no YAML",
        {"spec.runtimeEnvYAML": "env_vars: {"},
        {"spec.runtimeEnvYAML": "env_vars: {}"},
        "spec.runtimeEnvYAML: expected YAML; got a text that is none. Mend it, or leave it out.",
    ),
    Case(
        "a runtime environment that is a text",
        {"spec.runtimeEnvYAML": "env_vars"},
        {"spec.runtimeEnvYAML": ""},
        "spec.runtimeEnvYAML: expected a mapping, such as env_vars: ...; got something else. Write it as one.",
    ),
    Case(
        "in Kueue's queue without an end",
        {},
        {"spec.shutdownAfterJobFinishes": True},
        "spec.shutdownAfterJobFinishes: expected true with the label kueue.x-k8s.io/queue-name: Kueue counts the "
        "cluster until it is gone. Set it so, without deletionRules.",
        both=_QUEUED,
    ),
    Case(
        "in Kueue's queue on a cluster of others",
        _QUEUED,
        {},
        "spec.clusterSelector: Kueue queues clusters, and here is none to queue. Leave the label "
        "kueue.x-k8s.io/queue-name out.",
        both={**_SELECTED, "spec.shutdownAfterJobFinishes": True},
    ),
    Case(
        "a job with Kubernetes' own tokens",
        {f"{_OWN}.authOptions.enableK8sTokenAuth": True},
        {},
        f"{_OWN}.authOptions.enableK8sTokenAuth: a RayJob can't have Kubernetes' own tokens. Leave it out: mode token "
        "alone makes a token.",
        both=_TOKEN,
    ),
    *(
        Case(
            f"a token with Ray {given}",
            {f"{_OWN}.rayVersion": given},
            {f"{_OWN}.rayVersion": "2.52.0"},
            f"{_OWN}.authOptions: expected rayVersion to be 2.52.0 or newer with it; got {said}",
            both=_TOKEN,
        )
        for given, said in {
            None: "none. Say which Ray the image has.",
            "2.51.1": "2.51.1. Take an image with a newer Ray.",
            "nightly": "'nightly', which is no version. Write it such as 2.60.0.",
        }.items()
    ),
    Case(
        "Kubernetes' own tokens without a token",
        {"spec.authOptions.mode": "disabled"},
        {"spec.authOptions.mode": "token"},
        "spec.authOptions.enableK8sTokenAuth: expected mode token with it. Set it, or leave this out.",
        kind="RayCluster",
        both={"spec.authOptions.enableK8sTokenAuth": True},
    ),
    Case(
        "Kubernetes' own tokens, and one",
        {"spec.authOptions.secretName": "mine"},
        {},
        "spec.authOptions: expected either enableK8sTokenAuth or secretName; got both. Leave one of the two out.",
        kind="RayCluster",
        both={"spec.authOptions": {"mode": "token", "enableK8sTokenAuth": True}},
    ),
    Case(
        "Kubernetes' own tokens with an older Ray",
        {"spec.rayVersion": "2.54.0"},
        {"spec.rayVersion": "2.55.0"},
        "spec.authOptions: expected rayVersion to be 2.55.0 or newer with it; got 2.54.0. Take an image with a newer "
        "Ray.",
        kind="RayCluster",
        both={"spec.authOptions": {"mode": "token", "enableK8sTokenAuth": True}},
    ),
    *(
        Case(
            f"no containers in {place}",
            {f"{place}.template.spec.containers": []},
            {},
            f"{place}.template.spec.containers: expected at least one; got none. The first is Ray's.",
        )
        for place in (_HEAD, _GROUP)
    ),
    Case(
        "resources twice",
        {f"{_GROUP}.rayStartParams": {"num-cpus": "2"}},
        {f"{_GROUP}.rayStartParams": {}},
        f"{_GROUP}: expected Ray's resources either in rayStartParams or in resources; got both (num-cpus). Leave one "
        "of the two out.",
        both={f"{_GROUP}.resources": {"CPU": "2"}},
    ),
    Case(
        "labels where none are",
        {f"{_GROUP}.rayStartParams": {"labels": "a=b"}},
        {f"{_GROUP}.labels": {"a": "b"}},
        f"{_GROUP}.rayStartParams.labels: labels of Ray's nodes are not set there. Move them to {_GROUP}.labels.",
    ),
    Case(
        "labels that are none",
        {f"{_GROUP}.labels": {"type": "A 100"}},
        {f"{_GROUP}.labels": {"type": "A-100"}},
        f"{_GROUP}.labels.type: 'A 100' can't be a label: it must be of letters, digits, -, _ and points, and begin "
        "and end with a letter or digit. Change it.",
    ),
    *(
        Case(
            f"{name} is negative",
            {f"{_GROUP}.{name}": -1, f"{_GROUP}.{other}": 0},
            {f"{_GROUP}.{name}": 0, f"{_GROUP}.{other}": 0},
            f"{_GROUP}.{name}: expected at least 0; got -1. Raise it.",
        )
        for name, other in (("minReplicas", "maxReplicas"), ("maxReplicas", "minReplicas"))
    ),
    Case(
        "more at least than at most",
        {f"{_GROUP}.minReplicas": 3},
        {f"{_GROUP}.minReplicas": 2},
        f"{_GROUP}: expected minReplicas of at most maxReplicas, 2; got 3. Lower the one.",
    ),
    Case(
        "a group's suspension beside an autoscaler",
        _SCALING,
        {},
        f"{_GROUP}.suspend: a group can't be suspended with autoscaling. Leave it out, or enableInTreeAutoscaling.",
        both={f"{_GROUP}.suspend": True},
    ),
    Case(
        "a group's own idle time with the first autoscaler",
        _SCALING,
        _V2,
        f"{_GROUP}.idleTimeoutSeconds: a group's own needs autoscaling of version v2. Set enableInTreeAutoscaling to "
        "true and autoscalerOptions.version to v2, or leave it out.",
        both={f"{_GROUP}.idleTimeoutSeconds": 60},
    ),
    Case(
        "a group's own idle time is negative",
        {f"{_GROUP}.idleTimeoutSeconds": -1},
        {f"{_GROUP}.idleTimeoutSeconds": 0},
        f"{_GROUP}.idleTimeoutSeconds: expected at least 0; got -1. Raise it.",
        both=_V2,
    ),
    Case(
        "a group's priority without an autoscaler",
        {},
        _V2,
        f"{_GROUP}.priority: a group's own needs autoscaling of version v2. Set enableInTreeAutoscaling to true and "
        "autoscalerOptions.version to v2, or leave it out.",
        both={f"{_GROUP}.priority": 5},
    ),
    Case(
        "a group's priority with an older Ray",
        {f"{_OWN}.rayVersion": "2.55.1"},
        {f"{_OWN}.rayVersion": "2.56.0"},
        f"{_GROUP}.priority: expected rayVersion to be 2.56.0 or newer with it; got 2.55.1. Take an image with a newer "
        "Ray.",
        both={**_V2, f"{_GROUP}.priority": 5},
    ),
    Case(
        "a switch for an autoscaler that is off",
        {},
        _SCALING,
        f"{_HEAD}: RAY_enable_autoscaler_v2 is set, and enableInTreeAutoscaling is not true. Set that, and leave the "
        "variable out: autoscalerOptions.version is v2 instead.",
        both={_PLACE: variable("RAY_enable_autoscaler_v2")},
    ),
    Case(
        "an autoscaler's version twice",
        {_PLACE: variable("RAY_enable_autoscaler_v2")},
        {},
        f"{_OWN}.autoscalerOptions.version: RAY_enable_autoscaler_v2 of the head says it, too. Leave the variable out.",
        both=_V2,
    ),
    Case(
        "an autoscaler's idle time is negative",
        {f"{_OWN}.autoscalerOptions.idleTimeoutSeconds": -1},
        {f"{_OWN}.autoscalerOptions.idleTimeoutSeconds": 0},
        f"{_OWN}.autoscalerOptions.idleTimeoutSeconds: expected at least 0; got -1. Raise it.",
        both=_SCALING,
    ),
    Case(
        "the autoscaler's own variable",
        {f"{_OWN}.autoscalerOptions.env": variable("KUBERAY_GEN_AUTOSCALER_START_CMD")},
        {f"{_OWN}.autoscalerOptions.env": variable("MINE")},
        f"{_OWN}.autoscalerOptions.env: KUBERAY_GEN_AUTOSCALER_START_CMD is set by the operator. Leave it out.",
        both=_SCALING,
    ),
    *(
        Case(
            f"restarts beside the second autoscaler in {place}",
            {f"{place}.template.spec.restartPolicy": "OnFailure"},
            {f"{place}.template.spec.restartPolicy": "Never"},
            f"{place}.template.spec.restartPolicy: expected Never with autoscaling of version v2; got OnFailure. Set "
            "it so, or leave it out.",
            both=_V2,
        )
        for place in (_HEAD, _GROUP)
    ),
    Case(
        "Redis without fault tolerance",
        {},
        _FAULTS | {_PLACE: []},
        f"{_HEAD}: RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions. Set those, or leave it out.",
        both={_PLACE: variable("RAY_REDIS_ADDRESS")},
    ),
    *(
        Case(
            f"fault tolerance is said twice, by {name}",
            wrong,
            {},
            f"{_OWN}.gcsFaultToleranceOptions: {said}",
            both=_FAULTS,
        )
        for name, wrong, said in (
            (
                "an annotation", {"metadata.annotations": {"ray.io/ft-enabled": "true"}},
                "the annotation ray.io/ft-enabled says it, too. Leave the annotation out.",
            ),
            (
                "another", {"metadata.annotations": {"ray.io/external-storage-namespace": "a"}},
                "the annotation ray.io/external-storage-namespace is set, too. Leave it out there: "
                "externalStorageNamespace says it.",
            ),
            (
                "an address", {_PLACE: variable("RAY_REDIS_ADDRESS")},
                "the head has RAY_REDIS_ADDRESS, too. Leave it out there: redisAddress says it.",
            ),
            (
                "a variable", {_PLACE: variable("REDIS_PASSWORD")},
                "the head is given Redis' password, too. Leave it out there: redisPassword says it.",
            ),
            (
                "a parameter", {f"{_HEAD}.rayStartParams": {"redis-password": "x"}},
                "the head is given Redis' password, too. Leave it out there: redisPassword says it.",
            ),
        )
    ),
    *(
        Case(
            f"Redis' user in {next(iter(wrong))}",
            wrong,
            {},
            f"{_HEAD}: Redis' user is not set there, but by gcsFaultToleranceOptions. Leave it out there.",
            both=_FAULTS,
        )
        for wrong in (
            {f"{_HEAD}.rayStartParams": {"redis-username": "x"}},
            {_PLACE: variable("REDIS_USERNAME")},
        )
    ),
    Case(
        "a time zone in the schedule",
        {"spec.schedule": "CRON_TZ=UTC 0 2 * * *"},
        {"spec.schedule": "0 2 * * *"},
        "spec.schedule: expected no time zone in it; got 'CRON_TZ=UTC 0 2 * * *'. Say it in spec.timeZone.",
        kind="RayCronJob",
    ),
    Case(
        "a schedule of six fields",
        {"spec.schedule": "0 0 2 * * *"},
        {"spec.schedule": "@daily"},
        "spec.schedule: expected five fields, minute, hour, day, month and weekday, or such as @daily; got "
        "'0 0 2 * * *'. Write it so.",
        kind="RayCronJob",
    ),
    *(
        Case(
            f"the time zone {zone!r}",
            {"spec.timeZone": zone},
            {"spec.timeZone": "Europe/Berlin"},
            f"spec.timeZone: expected a time zone's name, such as Europe/Berlin; got {zone!r}. Correct it, or leave it "
            "out for the operator's own.",
            kind="RayCronJob",
        )
        for zone in ("Europe/Berlin-Mitte", "../etc/passwd")
    ),
    Case(
        "a job of a schedule",
        {"spec.jobTemplate.submissionMode": "HttpMode"},
        {"spec.jobTemplate.submissionMode": "HTTPMode"},
        "spec.jobTemplate.submissionMode: expected K8sJobMode, HTTPMode, SidecarMode or InteractiveMode; got "
        "'HttpMode'. Choose one.",
        kind="RayCronJob",
    ),
]  # fmt: skip


def made(case: Case, changes: Changes) -> dict[str, Any]:
    manifest = GOOD[case.kind]()
    for place, value in {**case.both, **changes}.items():
        manifest = changed(manifest, place, value)
    return manifest


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
    for place in ("spec", "metadata", "spec.rayClusterSpec", f"{_HEAD}.template", _PLACE, _GROUP, _RULES):
        for value in ("text", 3, [3], [[]], {"a": [3]}, True):
            assert isinstance(broken(changed(ray_job(), place, value)), list)


def test_other_kinds_are_not_known() -> None:
    with pytest.raises(ValueError, match=r"^expected a RayJob, RayCronJob or RayCluster; got 'ConfigMap'\.$"):
        broken(config_map())
