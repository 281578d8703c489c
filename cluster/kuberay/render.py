"""A submission as Kubernetes' objects: a ConfigMap with what its command reads, and a RayJob that runs it."""

import importlib.metadata
import shlex
from collections.abc import Mapping
from typing import Any

from cluster.errors import ClusterError
from cluster.kuberay.names import wrong_dns_1035, wrong_value
from cluster.kuberay.rules import RAY_JOB_LONGEST, broken
from cluster.kuberay.settings import GpuWorkers, Kubernetes, Pods, Toleration, Workers
from cluster.local import Node
from cluster.target import Submission

Manifest = dict[str, Any]

API = "ray.io/v1"
FOLDER = "/etc/perceiver-job"  #: where the head has what the command reads
_OURS = "perceiver-batch"
_FILES, _LARGEST = "job", 1_000_000  # a ConfigMap holds 1 MiB, its names counted
_GPU = "nvidia.com/gpu"
#: A command that is told to stop gets so many seconds, less than the 30 that a pod gets; by default Ray gives it 3.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_STOP_WAIT_TIME_S": "20"}
#: Of all nodes and the driver. At Ray's defaults a job stood still for 150 s after a link was cut without a reset, with
#: these for 17 s (2.60, measured); the keepalive is what ends the stall, the health check what finds the node dead.
_FAST_FAILOVER = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
}
_SPOT = (
    Toleration(key="cloud.google.com/gke-spot", value="true", effect="NoSchedule"),
    Toleration(key="kubernetes.azure.com/scalesetpriority", value="spot", effect="NoSchedule"),
    Toleration(key="spot", value="true", effect="NoSchedule"),
)
_ON_GPUS = Toleration(key=_GPU, operator="Exists", effect="NoSchedule")


def manifests(settings: Kubernetes, submission: Submission) -> list[Manifest]:
    """The submission's ConfigMap and RayJob, in the order in which they are to be created.

    Raises ClusterError where Kubernetes or the operator would refuse them.
    """
    name = object_name(submission.id)
    labels, annotations = _told(submission.labels)
    ray_job = {
        "apiVersion": API,
        "kind": "RayJob",
        "metadata": metadata(
            name, settings.namespace, labels | settings.labels, annotations | settings.annotations
        ),
        "spec": _ray_job(settings, submission, name),
    }
    if reasons := broken(ray_job):
        raise ClusterError(f"RayJob {name} would be refused: {' '.join(reasons)}")
    return [config_map(submission, name, settings.namespace), ray_job]


def config_map(submission: Submission, name: str, namespace: str | None) -> Manifest:
    """What the submission's command reads."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(name, namespace, *_told(submission.labels)),
        "data": _files(submission),
        "immutable": True,
    }


def pod_template(settings: Kubernetes, pods: Pods, submission: Submission, name: str, files: str) -> Manifest:
    """A pod that runs the submission's command from the image, outside of any Ray; `files` is its ConfigMap."""
    container = _container(name, settings.image, settings, pods, submission)
    container["command"] = [*submission.command]
    container["volumeMounts"].append({"name": _FILES, "mountPath": FOLDER, "readOnly": True})
    template = _template(settings, pods, container)
    template["spec"]["volumes"].append({"name": _FILES, "configMap": {"name": files}})
    return template


def object_name(id: str) -> str:
    """What a submission's objects are called. An id may begin with a digit, which no RayJob's name may."""
    name = f"perceive-{id}"
    if why := wrong_dns_1035(name, RAY_JOB_LONGEST):
        raise ClusterError(f"Submission {id} can't be a RayJob named {name}: {why} Choose another id.")
    return name


def nodes(settings: Kubernetes) -> tuple[Node, ...]:
    """The nodes that a plan can count on: every worker pod, none of the head."""
    return tuple(_node(group) for group in settings.groups.values() for _ in range(group.max_replicas))


def _node(group: Workers) -> Node:
    if isinstance(group, GpuWorkers):
        return float(group.cpus), float(group.gpus), group.accelerator or ""
    return float(group.cpus), 0.0, ""


def _ray_job(settings: Kubernetes, submission: Submission, name: str) -> Manifest:
    spec: Manifest = {
        "entrypoint": entrypoint(submission.command),
        "jobId": submission.id,
        "submissionMode": settings.submission_mode,
        "backoffLimit": settings.backoff_limit,
        "preRunningDeadlineSeconds": settings.pre_running_deadline_seconds,
        **_ends(settings),
        "rayClusterSpec": _cluster(settings, submission, name),
    }
    if settings.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = settings.active_deadline_seconds
    return spec


def entrypoint(command: tuple[str, ...]) -> str:
    """The command as Ray runs it on the head, in the folder of what it reads, by cluster/kuberay/driver.py.

    Words alone: on their way through SidecarMode quotes and dollar signs would be lost.
    """
    return shlex.join(["python", "-m", "cluster.kuberay.driver", FOLDER, *command])


def _ends(settings: Kubernetes) -> Manifest:
    """When the cluster goes."""
    done, failed = settings.ttl_seconds_after_finished, settings.keep_failed_seconds
    if failed is None:
        return {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": done}
    when = (
        ("jobStatus", "SUCCEEDED", done),
        ("jobStatus", "FAILED", failed),
        ("jobDeploymentStatus", "Failed", failed),
    )
    return {
        "deletionStrategy": {
            "deletionRules": [
                {"policy": "DeleteCluster", "condition": {status: value, "ttlSeconds": seconds}}
                for status, value, seconds in when
            ]
        }
    }


def _cluster(settings: Kubernetes, submission: Submission, name: str) -> Manifest:
    spec: Manifest = {
        "rayVersion": settings.ray_version or importlib.metadata.version("ray"),
        "authOptions": _auth(settings),
        "headGroupSpec": _head_group(settings, submission, name),
        "workerGroupSpecs": [
            _worker_group(settings, submission, called, group) for called, group in settings.groups.items()
        ],
    }
    if settings.autoscaling:
        spec["enableInTreeAutoscaling"] = True
        spec["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": settings.idle_seconds,
            "securityContext": _secure(),
        }
    return spec


def _auth(settings: Kubernetes) -> Manifest:
    if not settings.token_auth:
        return {"mode": "disabled"}
    return {"mode": "token"} | ({"secretName": settings.token_secret} if settings.token_secret else {})


def _head_group(settings: Kubernetes, submission: Submission, name: str) -> Manifest:
    container = _container("ray-head", settings.image, settings, settings.head, submission)
    container["volumeMounts"].append({"name": _FILES, "mountPath": FOLDER, "readOnly": True})
    # Whatever takes the head away, a deletion, a suspension, a drain of its node, lets the run end in order before it.
    end = ["ray", "job", "stop", "--address", "http://127.0.0.1:8265", submission.id]
    container["lifecycle"] = {"preStop": {"exec": {"command": end}}}
    template = _template(settings, settings.head, container)
    template["spec"]["volumes"].append({"name": _FILES, "configMap": {"name": name}})
    # No actor of the run's goes to the head: what ends it ends the run.
    return {"rayStartParams": {"num-cpus": "0"}, "template": template}


def _worker_group(settings: Kubernetes, submission: Submission, name: str, group: Workers) -> Manifest:
    on_gpus = isinstance(group, GpuWorkers)
    image = (settings.gpu_image if on_gpus else None) or settings.image
    container = _container("ray-worker", image, settings, group, submission)
    spec: Manifest = {
        "groupName": name,
        "replicas": group.least,
        "minReplicas": group.least,
        "maxReplicas": group.max_replicas,
        "rayStartParams": {},
        "template": _template(settings, group, container),
    }
    if labels := _ray_labels(group):
        spec["labels"] = labels
    return spec


def _ray_labels(group: Workers) -> dict[str, str]:
    """The labels that Ray itself knows of the group's nodes, also of those that are yet to be."""
    accelerator = group.accelerator if isinstance(group, GpuWorkers) else None
    return {
        **({"ray.io/accelerator-type": accelerator} if accelerator else {}),
        **({"ray.io/market-type": "spot"} if group.spot else {}),
    }


def _template(settings: Kubernetes, pods: Pods, container: Manifest) -> Manifest:
    """A pod template with the one container."""
    spec: Manifest = {
        "containers": [container],
        "volumes": [_volume(number, path, settings) for number, path in enumerate(settings.volumes)],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        # A container that starts anew in its pod has lost what its cluster was; the operator replaces whole pods.
        "restartPolicy": "Never",
    }
    if settings.run_as_user is not None:
        spec["securityContext"]["runAsUser"] = settings.run_as_user
    if settings.fs_group is not None:
        spec["securityContext"]["fsGroup"] = settings.fs_group
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.service_account is not None:
        spec["serviceAccountName"] = settings.service_account
    elif not (pods is settings.head and settings.autoscaling):  # whose autoscaler asks Kubernetes for pods
        spec["automountServiceAccountToken"] = False
    if settings.priority_class is not None:
        spec["priorityClassName"] = settings.priority_class
    if pods.node_selector:
        spec["nodeSelector"] = dict(pods.node_selector)
    if tolerations := _tolerations(pods):
        spec["tolerations"] = tolerations
    metadata = {"labels": dict(settings.pod_labels), "annotations": dict(settings.pod_annotations)}
    told = {name: value for name, value in metadata.items() if value}
    return {**({"metadata": told} if told else {}), "spec": spec}


def _tolerations(pods: Pods) -> list[Manifest]:
    every = [
        *pods.tolerations,
        *(_SPOT if isinstance(pods, Workers) and pods.spot else ()),
        *((_ON_GPUS,) if isinstance(pods, GpuWorkers) else ()),
    ]
    names = {"toleration_seconds": "tolerationSeconds"}
    return [
        {names.get(name, name): value for name, value in one.model_dump(exclude_none=True).items()}
        for one in every
    ]


def _container(name: str, image: str, settings: Kubernetes, pods: Pods, submission: Submission) -> Manifest:
    return {
        "name": name,
        "image": image,
        "env": _environment(settings, submission),
        "resources": _resources(pods),
        "securityContext": _secure(),
        "volumeMounts": [
            {"name": f"volume-{number}", "mountPath": path, "readOnly": volume.read_only}
            for number, (path, volume) in enumerate(settings.volumes.items())
        ],
    }


def _environment(settings: Kubernetes, submission: Submission) -> list[Manifest]:
    """The variables of all nodes, and so of the driver."""
    if twice := sorted(submission.environment.keys() & settings.secrets.keys()):
        raise ClusterError(
            f"{', '.join(twice)}: of kubernetes.secrets, and given along with the submission, too. Leave out one."
        )
    network = _FAST_FAILOVER if settings.network == "fast_failover" else {}
    plain = _ENVIRONMENT | network | settings.env | dict(submission.environment)
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": one.name, "key": one.key}}}
            for name, one in settings.secrets.items()
        ),
    ]


def _secure() -> Manifest:
    """What the restricted pod security standard asks of a container, beside what it asks of its pod."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _resources(pods: Pods) -> Manifest:
    """Requested and at most the same: Ray counts on all of it."""
    amounts: dict[str, str] = {"cpu": str(pods.cpus), "memory": pods.memory}
    if pods.disk is not None:
        amounts["ephemeral-storage"] = pods.disk
    if isinstance(pods, GpuWorkers):
        amounts[_GPU] = str(pods.gpus)
    return {"requests": amounts, "limits": dict(amounts)}


def _volume(number: int, path: str, settings: Kubernetes) -> Manifest:
    volume = settings.volumes[path]
    if volume.secret is not None:
        return {"name": f"volume-{number}", "secret": {"secretName": volume.secret}}
    return {
        "name": f"volume-{number}",
        "persistentVolumeClaim": {"claimName": volume.claim, "readOnly": volume.read_only},
    }


def metadata(
    name: str, namespace: str | None, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> Manifest:
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "labels": {"app.kubernetes.io/managed-by": _OURS, **labels},
        **({"annotations": dict(annotations)} if annotations else {}),
    }


def _told(about: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What is told of a submission, as labels where it may be one, and else as annotations."""
    keyed = {f"{_OURS}/{name.replace('_', '-')}": value for name, value in about.items() if value}
    labels = {key: value for key, value in keyed.items() if not wrong_value(value)}
    return labels, {key: value for key, value in keyed.items() if key not in labels}


def _files(submission: Submission) -> dict[str, str]:
    """What the command reads, by name."""
    found: dict[str, str] = {}
    for path in sorted(submission.folder.iterdir()):
        if not path.is_file():
            raise ClusterError(
                f"{path} is no file, and a ConfigMap holds files alone. Take it out of the folder."
            )
        try:
            found[path.name] = path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ClusterError(f"{path} is not UTF-8 text, which goes into a ConfigMap alone.") from error
    size = sum(len(name) + len(text.encode()) for name, text in found.items())
    if size > _LARGEST:
        raise ClusterError(
            f"{submission.folder} has {size} bytes, and a ConfigMap holds {_LARGEST}. Name the input by a glob or a "
            "folder, not by its files one by one."
        )
    return found
