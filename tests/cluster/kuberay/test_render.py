"""What is made of a submission: it passes KubeRay's schemas and its operator's rules, and says what was asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import ClusterError
from cluster.kuberay.render import FOLDER, manifests, nodes, object_name
from cluster.kuberay.rules import broken
from cluster.kuberay.settings import Kubernetes
from cluster.target import Submission
from pipelines.pools import Node, fit_pools
from tests.cluster.kuberay.crds import needs_crds, problems

IMAGE = f"registry.example/p@sha256:{'0' * 64}"
ID = "0123456789ab"


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    folder = tmp_path_factory.mktemp("job")
    (folder / "job.yaml").write_text("name: a-job\n")
    return Submission(
        ID,
        ("python", "-m", "jobs", "run", "job.yaml", "--ray-address", "auto"),
        folder,
        environment={"PERCEIVER_SUBMISSION": ID},
        labels={"run_id": ID, "output": "s3://bucket/out"},
    )


def of(**fields: Any) -> Kubernetes:
    return Kubernetes.model_validate({"image": IMAGE, **fields})


def rendered(submission: Submission, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    config_map, ray_job = manifests(of(**fields), submission)
    return config_map, ray_job


def cluster(submission: Submission, **fields: Any) -> dict[str, Any]:
    spec: dict[str, Any] = rendered(submission, **fields)[1]["spec"]["rayClusterSpec"]
    return spec


def pod_specs(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The head's first."""
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


MATRIX: dict[str, dict[str, Any]] = {
    "as little as there can be": {},
    "a tag": {"image": "registry.example:5000/team/p:1.2", "allow_tag": True},
    "GPUs alone": {"cpu_workers": None, "gpu_workers": {"gpus": 4, "cpus": 16, "memory": "128Gi"}},
    "both, growing": {
        "gpu_image": IMAGE,
        "cpu_workers": {"min_replicas": 1, "max_replicas": 40, "spot": True, "disk": "100Gi"},
        "gpu_workers": {"min_replicas": 2, "max_replicas": 8, "spot": True, "accelerator": "H100"},
        "idle_seconds": 120,
    },
    "what surrounds it": {
        "namespace": "batch",
        "service_account": "reader",
        "image_pull_secrets": ["registry"],
        "env": {"AWS_REGION": "eu-central-1"},
        "secrets": {"HF_TOKEN": {"name": "hub", "key": "token"}},
        "volumes": {"/data": {"claim": "data"}, "/keys": {"secret": "keys"}, "/in": {"claim": "in", "read_only": True}},
        "priority_class": "low",
        "labels": {"kueue.x-k8s.io/queue-name": "team"},
        "annotations": {"example.com/contact": "Somebody <a@example.com>"},
        "pod_labels": {"team": "video"},
        "pod_annotations": {"sidecar.istio.io/inject": "false"},
        "run_as_user": 1000,
        "fs_group": 1000,
    },
    "where pods go": {
        "head": {"node_selector": {"pool": "steady"}, "tolerations": [{"operator": "Exists"}]},
        "cpu_workers": {
            "tolerations": [{"key": "a", "value": "b", "effect": "NoExecute", "toleration_seconds": 60}],
        },
    },
    "a sidecar": {"submission_mode": "SidecarMode"},
    "a failed cluster stays": {"keep_failed_seconds": 3600, "ttl_seconds_after_finished": 0},
    "deadlines": {"active_deadline_seconds": 86_400, "pre_running_deadline_seconds": 60, "backoff_limit": 0},
    "no token": {"token_auth": False},
    "a token of one's own": {"token_secret": "ray", "ray_version": "2.61.0"},
    "fast failover": {"network": "fast_failover"},
}  # fmt: skip


@needs_crds
@pytest.mark.parametrize("name", MATRIX)
def test_the_schemas_and_the_rules_take_it(name: str, submission: Submission) -> None:
    config_map, ray_job = rendered(submission, **MATRIX[name])
    assert problems("ConfigMap", config_map) == []
    assert problems("RayJob", ray_job) == []
    assert broken(ray_job) == []


_names = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
_labels = st.dictionaries(
    _names, st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,9}[a-z])?)?", fullmatch=True), max_size=2
)
_amounts = st.sampled_from(["1Gi", "16Gi", "500M", "2Ti"])
_seconds = st.integers(1, 10**6)
_variables = st.from_regex(r"[A-Z][A-Z0-9_]{3,12}", fullmatch=True).map(lambda name: f"X_{name}")
_tolerations = st.lists(
    st.one_of(
        st.builds(lambda key, value: {"key": key, "value": value}, _names, _names),
        st.builds(
            lambda effect: {"operator": "Exists", "effect": effect},
            st.sampled_from(["NoSchedule", "NoExecute"]),
        ),
        st.builds(lambda s: {"key": "k", "effect": "NoExecute", "toleration_seconds": s}, _seconds),
    ),
    max_size=2,
)
_pods = {
    "cpus": st.integers(1, 96), "memory": _amounts, "disk": st.none() | _amounts,
    "node_selector": _labels, "tolerations": _tolerations,
}  # fmt: skip


@st.composite
def _group(draw: st.DrawFn, **more: st.SearchStrategy[Any]) -> dict[str, Any]:
    least, extra = draw(st.integers(1, 5)), draw(st.integers(0, 5))
    fields = {name: draw(one) for name, one in {**_pods, "spot": st.booleans(), **more}.items()}
    return fields | {"min_replicas": least, "max_replicas": least + extra}


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """Whatever a section may say."""
    on_gpus = _group(gpus=st.integers(1, 8), accelerator=st.none() | st.sampled_from(["A100", "L4"]))
    groups = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    token = draw(st.booleans())
    env = draw(st.dictionaries(_variables, st.text(max_size=20), max_size=2))
    volume = st.sampled_from([{"claim": "a"}, {"secret": "b"}, {"claim": "c", "read_only": True}])
    return {
        "image": IMAGE,
        "namespace": draw(st.none() | _names),
        "gpu_image": draw(st.sampled_from([None, IMAGE])),
        "image_pull_secrets": draw(st.lists(_names, max_size=2, unique=True)),
        "service_account": draw(st.none() | _names),
        "env": env,
        "secrets": {
            name: {"name": "a", "key": "b.c"} for name in draw(st.sets(_variables, max_size=2)) if name not in env
        },
        "volumes": draw(st.dictionaries(_names.map(lambda name: f"/mnt/{name}"), volume, max_size=2)),
        "head": {name: draw(one) for name, one in _pods.items()},
        "cpu_workers": draw(_group()) if groups[0] else None,
        "gpu_workers": draw(on_gpus) if groups[1] else None,
        "idle_seconds": draw(st.integers(0, 600)),
        "submission_mode": draw(st.sampled_from(["HTTPMode", "SidecarMode"])),
        "backoff_limit": draw(st.integers(0, 5)),
        "active_deadline_seconds": draw(st.none() | _seconds),
        "pre_running_deadline_seconds": draw(_seconds),
        "ttl_seconds_after_finished": draw(st.integers(0, 600)),
        "keep_failed_seconds": draw(st.none() | st.integers(0, 600)),
        "labels": draw(_labels), "annotations": draw(_labels),
        "pod_labels": draw(_labels), "pod_annotations": draw(_labels),
        "priority_class": draw(st.none() | _names),
        "token_auth": token,
        "token_secret": draw(st.none() | _names) if token else None,
        "network": draw(st.sampled_from(["default", "fast_failover"])),
        "run_as_user": draw(st.none() | st.integers(1, 65_535)),
        "fs_group": draw(st.none() | st.integers(1, 65_535)),
    }  # fmt: skip


@needs_crds
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(fields=sections())
def test_so_they_take_whatever_a_section_says(fields: dict[str, Any], submission: Submission) -> None:
    section = Kubernetes.model_validate_json(json.dumps(fields), strict=True)
    config_map, ray_job = manifests(section, submission)
    assert problems("RayJob", ray_job) == []
    assert problems("ConfigMap", config_map) == []
    # Also as files say it, where nothing is by reference.
    assert yaml.safe_load(yaml.safe_dump(ray_job)) == ray_job
    assert "&id" not in yaml.safe_dump(ray_job)


def test_the_head_has_the_job_and_runs_its_command(submission: Submission) -> None:
    config_map, ray_job = rendered(submission, namespace="batch")
    assert config_map["data"] == {"job.yaml": "name: a-job\n"}
    assert (config_map["metadata"]["name"], config_map["metadata"]["namespace"]) == (
        f"perceive-{ID}",
        "batch",
    )
    assert ray_job["metadata"]["name"] == f"perceive-{ID}"
    spec = ray_job["spec"]
    assert spec["entrypoint"] == (
        f"python -m cluster.kuberay.driver {FOLDER} python -m jobs run job.yaml --ray-address auto"
    )
    assert spec["jobId"] == ID
    head, workers = pod_specs(spec["rayClusterSpec"])
    assert head["volumes"] == [{"name": "job", "configMap": {"name": f"perceive-{ID}"}}]
    assert head["containers"][0]["volumeMounts"] == [{"name": "job", "mountPath": FOLDER, "readOnly": True}]
    assert workers["volumes"] == []
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}


def test_what_is_told_of_it_is_a_label_where_it_may_be(submission: Submission) -> None:
    metadata = rendered(submission, labels={"team": "video"})[1]["metadata"]
    assert metadata["labels"] == {
        "app.kubernetes.io/managed-by": "perceiver-batch",
        "perceiver-batch/run-id": ID,
        "team": "video",
    }
    assert metadata["annotations"] == {"perceiver-batch/output": "s3://bucket/out"}


def test_what_takes_the_head_away_stops_the_run_first(submission: Submission) -> None:
    head, *workers = pod_specs(cluster(submission))
    [command] = [head["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]]
    assert command == ["ray", "job", "stop", "--address", "http://127.0.0.1:8265", ID]
    assert all("lifecycle" not in pod["containers"][0] for pod in workers)


def test_every_node_has_the_variables_and_secrets_are_named_alone(submission: Submission) -> None:
    spec = cluster(submission, **MATRIX["what surrounds it"], gpu_workers={})
    assert len(pod_specs(spec)) == 3
    for pod in pod_specs(spec):
        assert pod["containers"][0]["env"] == [
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
            {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "20"},
            {"name": "AWS_REGION", "value": "eu-central-1"},
            {"name": "PERCEIVER_SUBMISSION", "value": ID},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        ]
        assert pod["serviceAccountName"] == "reader"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["priorityClassName"] == "low"
        assert pod["securityContext"] == {
            "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1000, "fsGroup": 1000,
        }  # fmt: skip
        assert pod["volumes"][:3] == [
            {"name": "volume-0", "persistentVolumeClaim": {"claimName": "data", "readOnly": False}},
            {"name": "volume-1", "secret": {"secretName": "keys"}},
            {"name": "volume-2", "persistentVolumeClaim": {"claimName": "in", "readOnly": True}},
        ]
        mounts = [
            (mount["mountPath"], mount["readOnly"]) for mount in pod["containers"][0]["volumeMounts"][:3]
        ]
        assert mounts == [("/data", False), ("/keys", False), ("/in", True)]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert group["template"]["metadata"] == {
            "labels": {"team": "video"}, "annotations": {"sidecar.istio.io/inject": "false"},
        }  # fmt: skip


def test_the_metrics_port_is_the_operators(submission: Submission) -> None:
    """It gives every container `metrics`, 8080. Of a head that names a port, releases give the service no others."""
    spec = cluster(submission, gpu_workers={"gpus": 1, "cpus": 4, "memory": "16Gi"})
    groups = (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    assert all("metrics-export-port" not in group["rayStartParams"] for group in groups)
    assert all("ports" not in pod["containers"][0] for pod in pod_specs(spec))


def test_the_network_profile_is_of_all_nodes(submission: Submission) -> None:
    for pod in pod_specs(
        cluster(submission, network="fast_failover", env={"RAY_health_check_period_ms": "500"})
    ):
        variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert {
            name: value for name, value in variables.items() if name.startswith(("RAY_health", "RAY_grpc"))
        } == {
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "500",  # as the job says it
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "5",
            "RAY_grpc_client_keepalive_time_ms": "5000",
            "RAY_grpc_client_keepalive_timeout_ms": "10000",
        }


def test_groups_ask_for_what_they_say(submission: Submission) -> None:
    spec = cluster(submission, **MATRIX["both, growing"])
    cpu, gpu = spec["workerGroupSpecs"]
    assert [(g["groupName"], g["replicas"], g["minReplicas"], g["maxReplicas"]) for g in (cpu, gpu)] == [
        ("cpu", 1, 1, 40), ("gpu", 2, 2, 8),
    ]  # fmt: skip
    assert (spec["enableInTreeAutoscaling"], spec["autoscalerOptions"]["version"]) == (True, "v2")
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == 120
    asked = gpu["template"]["spec"]["containers"][0]["resources"]
    assert asked["requests"] == asked["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert cpu["template"]["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"] == "100Gi"
    assert gpu["labels"] == {"ray.io/accelerator-type": "H100", "ray.io/market-type": "spot"}
    keys = [toleration["key"] for toleration in gpu["template"]["spec"]["tolerations"]]
    assert keys == [
        "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority", "spot", "nvidia.com/gpu",
    ]  # fmt: skip
    assert "tolerations" not in spec["headGroupSpec"]["template"]["spec"]


def test_without_an_account_pods_get_no_token_of_kubernetes(submission: Submission) -> None:
    fixed = pod_specs(cluster(submission))
    assert [pod.get("automountServiceAccountToken") for pod in fixed] == [False, False]
    growing = pod_specs(cluster(submission, cpu_workers={"min_replicas": 1, "max_replicas": 2}))
    assert [pod.get("automountServiceAccountToken") for pod in growing] == [None, False]  # the autoscaler's
    named = pod_specs(cluster(submission, service_account="reader"))
    assert [pod.get("automountServiceAccountToken") for pod in named] == [None, None]


def test_when_the_cluster_goes(submission: Submission) -> None:
    def ends(**fields: Any) -> Any:
        spec = rendered(submission, **fields)[1]["spec"]
        return {name: spec.get(name) for name in ("shutdownAfterJobFinishes", "ttlSecondsAfterFinished")}, [
            (rule["policy"], *rule["condition"].values())
            for rule in spec.get("deletionStrategy", {}).get("deletionRules", ())
        ]

    assert ends() == ({"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": 60}, [])
    assert ends(keep_failed_seconds=600, ttl_seconds_after_finished=5) == (
        {"shutdownAfterJobFinishes": None, "ttlSecondsAfterFinished": None},
        [
            ("DeleteCluster", "SUCCEEDED", 5),
            ("DeleteCluster", "FAILED", 600),
            ("DeleteCluster", "Failed", 600),
        ],
    )


def test_the_token(submission: Submission) -> None:
    assert cluster(submission)["authOptions"] == {"mode": "token"}
    assert cluster(submission)["rayVersion"] == "2.60.0"
    assert cluster(submission, token_secret="ray")["authOptions"] == {"mode": "token", "secretName": "ray"}
    assert cluster(submission, token_auth=False)["authOptions"] == {"mode": "disabled"}


def test_the_plan_is_made_for_its_pods(submission: Submission) -> None:
    section = of(
        cpu_workers={"max_replicas": 2, "cpus": 8}, gpu_workers={"max_replicas": 3, "cpus": 4, "gpus": 2}
    )
    assert nodes(section) == (*[(8.0, 0.0, "")] * 2, *[(4.0, 2.0, "")] * 3)
    pools = fit_pools([Node(*node) for node in nodes(section)], None, None)
    assert (pools.predict_workers, pools.predict_gpus) == (4, 1.0)  # of six, two may go
    groups = cluster(submission, **section.model_dump())["workerGroupSpecs"]
    pods = [
        (float(limits["cpu"]), float(limits.get("nvidia.com/gpu", 0)), "")
        for group in groups
        for limits in [group["template"]["spec"]["containers"][0]["resources"]["limits"]]
        for _ in range(group["maxReplicas"])
    ]
    assert tuple(pods) == nodes(section)


@pytest.mark.parametrize(
    ("id", "why"),
    [
        ("a" * 39, "it has 48 characters, and 47 are allowed."),
        (
            "A",
            "it must be of lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen.",
        ),
    ],
)
def test_an_id_that_can_be_no_name(id: str, why: str) -> None:
    assert object_name("a" * 38) == f"perceive-{'a' * 38}"
    with pytest.raises(ClusterError) as raised:
        object_name(id)
    assert (
        str(raised.value)
        == f"Submission {id} can't be a RayJob named perceive-{id}: {why} Choose another id."
    )


def test_a_variable_that_is_a_secret_too(submission: Submission) -> None:
    with pytest.raises(ClusterError) as raised:
        rendered(submission, secrets={"PERCEIVER_SUBMISSION": {"name": "a", "key": "b"}})
    assert str(raised.value) == (
        "PERCEIVER_SUBMISSION: of kubernetes.secrets, and given along with the submission, too. Leave out one."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "{file} is not UTF-8 text, which goes into a ConfigMap alone."),
        (
            b"a" * 1_000_001,
            "{folder} has 1000009 bytes, and a ConfigMap holds 1000000. Name the input by a glob or a folder, "
            "not by its files one by one.",
        ),
        (None, "{file} is no file, and a ConfigMap holds files alone. Take it out of the folder."),
    ],
)
def test_what_no_config_map_holds(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ClusterError) as raised:
        manifests(of(), Submission(ID, ("python",), tmp_path))
    assert str(raised.value) == message.format(file=file, folder=tmp_path)
