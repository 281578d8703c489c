"""The job file's section `kubernetes`: where in Kubernetes, from what image, on how many pods of what kind."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cluster.kuberay.names import wrong_entry, wrong_key, wrong_subdomain, wrong_value

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[^\s@]+:[\w][\w.-]{0,127}")
_AMOUNT = re.compile(r"[1-9][0-9]*(?:Mi|Gi|Ti|M|G|T)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KUEUE = "kueue.x-k8s.io/queue-name"
#: What the operator sets itself, or takes for a wish to use Redis.
_OPERATORS = (
    "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "RAY_IP", "RAY_PORT", "FQ_RAY_IP", "REDIS_PASSWORD",
    "REDIS_USERNAME", "RAY_REDIS_ADDRESS", "RAY_enable_autoscaler_v2",
)  # fmt: skip
#: Where jobs are mounted, and Ray keeps its own.
_TAKEN_PATHS = ("/", "/etc", "/dev/shm", "/tmp/ray", "/etc/perceiver-job")


def _name(name: str) -> str:
    if why := wrong_subdomain(name):
        raise ValueError(f"expected a name as Kubernetes has them; got {name!r}: {why}")
    return name


def _amount(amount: str) -> str:
    if not _AMOUNT.fullmatch(amount):
        raise ValueError(
            f"expected an amount with its unit, Mi, Gi, Ti, M, G or T; got {amount!r}. Write it such as 16Gi."
        )
    return amount


def _labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    for key, value in _keyed(labels).items():
        if why := wrong_value(value):
            raise ValueError(f"{key}: expected a label's value; got {value!r}: {why}")
    return labels


def _keyed(annotations: Mapping[str, str]) -> Mapping[str, str]:
    for key in annotations:
        if why := wrong_key(key):
            raise ValueError(f"expected a key as Kubernetes has them; got {key!r}: {why}")
    return annotations


Name = Annotated[str, AfterValidator(_name)]
Amount = Annotated[str, AfterValidator(_amount)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(_keyed)]


class Section(BaseModel):
    """A part of the section: of known fields only, and frozen."""

    # Inputs are hidden: pydantic's own text, which a Python object's maker sees, would repeat what looks like a key.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretKey(Section):
    """Where a secret is; never the secret."""

    name: str = Field(description="a Secret's name, in the run's namespace")
    key: str = Field(description="the name of one of its entries")

    @field_validator("name", "key")
    @classmethod
    def _is_one(cls, name: str, info: ValidationInfo) -> str:
        """Say what is wrong without what came: it may be the secret."""
        if why := wrong_subdomain(name) if info.field_name == "name" else wrong_entry(name):
            raise ValueError(f"expected a name as Kubernetes has them; got one that it hasn't: {why}")
        return name


class Toleration(Section):
    """A taint of nodes that pods put up with."""

    key: str | None = Field(default=None, description="of the taint; by default every taint's")
    operator: Literal["Equal", "Exists"] = Field(
        default="Equal", description="Equal: a taint of this value; Exists: whatever its value is"
    )
    value: str | None = Field(default=None, description="of the taint, with Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="of the taint; by default every effect"
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="with NoExecute, how long; by default for ever"
    )

    @model_validator(mode="after")
    def _meant(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError(
                "with operator Exists a value is of no use: leave value out, or set operator to Equal."
            )
        if self.operator == "Equal" and not self.key:
            raise ValueError(
                "expected a key with operator Equal: name the taint's key, or set operator to Exists."
            )
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(
                "toleration_seconds is for effect NoExecute alone: leave it out, or set that effect."
            )
        return self


class Volume(Section):
    """What is mounted into all pods: one of the two."""

    claim: Name | None = Field(default=None, description="a PersistentVolumeClaim's name")
    secret: Name | None = Field(default=None, description="a Secret's name: its entries become files")
    read_only: bool = Field(default=False, description="nothing can be written there")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.claim is None) == (self.secret is None):
            raise ValueError("expected either claim or secret: name what is mounted there.")
        return self


class Pods(Section):
    """What one kind of pods asks for, and where it may run."""

    cpus: int = Field(default=4, ge=1, description="CPUs of each pod, whole ones, requested and at most")
    memory: Amount = Field(default="16Gi", description="of each pod, such as 16Gi, requested and at most")
    disk: Amount | None = Field(default=None, description="ephemeral storage of each pod, such as 50Gi")
    node_selector: Labels = Field(default={}, description="labels of the nodes that the pods may run on")
    tolerations: tuple[Toleration, ...] = Field(default=(), description="taints that the pods put up with")


class Head(Pods):
    """The pod with Ray's head and the run's driver; no worker of the run is placed there."""

    cpus: int = Field(default=2, ge=1, description="CPUs of the pod, whole ones, requested and at most")
    memory: Amount = Field(default="8Gi", description="of the pod, such as 8Gi, requested and at most")


class Workers(Pods):
    """A group of worker pods, all alike."""

    max_replicas: int = Field(default=1, ge=1, description="pods at most: the plan is made for so many")
    min_replicas: int | None = Field(
        default=None,
        ge=1,
        description="pods at least; fewer than max_replicas turns autoscaling on; by default as many",
    )
    spot: bool = Field(
        default=False, description="put up with the taints of spot nodes (GKE's, AKS's, and spot=true)"
    )

    @property
    def least(self) -> int:
        """Pods at least."""
        return self.max_replicas if self.min_replicas is None else self.min_replicas

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.least > self.max_replicas:
            raise ValueError(
                f"expected min_replicas of at most max_replicas, {self.max_replicas}; got {self.least}. Lower the one "
                "or raise the other."
            )
        return self


class GpuWorkers(Workers):
    """A group of worker pods with GPUs."""

    gpus: int = Field(default=1, ge=1, description="GPUs of each pod (nvidia.com/gpu)")
    accelerator: str | None = Field(
        default=None, description="their type as Ray calls it, such as A100 or L4: Ray's label of these nodes"
    )

    @field_validator("accelerator")
    @classmethod
    def _label(cls, accelerator: str | None) -> str | None:
        if accelerator is not None:
            _labels({"ray.io/accelerator-type": accelerator})
        return accelerator


class Kubernetes(Section):
    """Where and how the run goes on in Kubernetes, by the KubeRay operator: perceive submit --target kuberay."""

    namespace: Name | None = Field(default=None, description="by default the one of the current context")
    allow_tag: bool = Field(
        default=False, description="images may be named by tags, which may lead to another image tomorrow"
    )
    image: str = Field(
        description="an image with this perceiver-batch in it, by its digest: registry/name@sha256:<64 hex digits>",
        examples=[f"registry.example/perceiver-batch@sha256:{'0' * 64}"],
    )
    gpu_image: str | None = Field(default=None, description="of the GPU workers; by default image")
    image_pull_secrets: tuple[Name, ...] = Field(default=(), description="Secrets that the registry asks for")
    service_account: Name | None = Field(
        default=None,
        description="of all pods, as for a bucket's access; without one, pods get no token of Kubernetes",
    )
    env: dict[str, str] = Field(
        default={}, description="variables of all pods; no secrets: whoever may look at the run sees them"
    )
    secrets: dict[str, SecretKey] = Field(
        default={},
        description="variables of all pods that come from Secrets, such as HF_TOKEN: {name: hub, key: token}",
    )
    volumes: dict[str, Volume] = Field(
        default={},
        description="what is mounted in all pods, by its path there, such as /data: {claim: datasets}",
    )
    head: Head = Field(default=Head(), description="the pod with Ray's head and the run's driver")
    cpu_workers: Workers | None = Field(
        default=Workers(), description="worker pods without GPUs; null for none"
    )
    gpu_workers: GpuWorkers | None = Field(default=None, description="worker pods with GPUs; null for none")
    idle_seconds: int = Field(
        default=60, ge=0, description="with autoscaling, a worker pod that was idle for so long goes"
    )
    submission_mode: Literal["HTTPMode", "SidecarMode"] = Field(
        default="HTTPMode",
        description="who hands the command to Ray: the operator, or a container beside the head, which has the log",
    )
    backoff_limit: int = Field(
        default=2,
        ge=0,
        description="how often a failed attempt is made again, each on a new cluster, resuming the run",
    )
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, description="the run fails after so long; by default never"
    )
    pre_running_deadline_seconds: int = Field(
        default=900,
        ge=1,
        description="the run fails if its cluster isn't up after so long, as without free nodes",
    )
    ttl_seconds_after_finished: int = Field(
        default=60, ge=0, description="how long the cluster stays once the run is done"
    )
    keep_failed_seconds: int | None = Field(
        default=None,
        ge=0,
        description="how long it stays once the run has failed, to be looked at; by default as done",
    )
    labels: Labels = Field(
        default={},
        description="of the RayJob, such as kueue.x-k8s.io/queue-name: they lead to Kueue, Volcano and others",
    )
    annotations: Annotations = Field(default={}, description="of the RayJob")
    pod_labels: Labels = Field(default={}, description="of all pods")
    pod_annotations: Annotations = Field(default={}, description="of all pods")
    priority_class: Name | None = Field(default=None, description="of all pods")
    token_auth: bool = Field(
        default=True,
        description="Ray's API and processes ask for a token; false leaves them open to the whole network",
    )
    token_secret: Name | None = Field(
        default=None,
        description="the Secret with that token as auth_token; by default the operator makes one a cluster",
    )
    ray_version: str | None = Field(
        default=None, description="of the image's Ray; by default as this perceiver-batch has it"
    )
    network: Literal["default", "fast_failover"] = Field(
        default="default",
        description="fast_failover: a node that is cut off is given up after 20 s, not 70, and its links after 15 s, "
        "not 150; networks that pause for seconds then lose nodes",
    )
    run_as_user: int | None = Field(
        default=None,
        ge=1,
        description="the user's number in all pods; by default the image's, which must not be root",
    )
    fs_group: int | None = Field(
        default=None, ge=1, description="the group's number that volumes are made writable for"
    )

    @field_validator("image", "gpu_image")
    @classmethod
    def _pinned(cls, image: str | None, info: ValidationInfo) -> str | None:
        if image is None or _DIGEST.fullmatch(image):
            return image
        if _TAG.fullmatch(image) and info.data.get("allow_tag"):
            return image
        raise ValueError(
            f"expected an image by its digest, registry/name@sha256:<64 hex digits>; got {image!r}. A tag may "
            "lead to another image tomorrow: docker buildx imagetools inspect IMAGE tells the digest of a tag; or "
            "set kubernetes.allow_tag to true."
        )

    @field_validator("secrets", mode="before")
    @classmethod
    def _referred(cls, secrets: Any) -> Any:
        """Say what is wrong where a secret itself may have been given, without saying what came."""
        if isinstance(secrets, Mapping) and any(
            not isinstance(one, Mapping | SecretKey) for one in secrets.values()
        ):
            raise ValueError(
                "expected a Secret's name and key for each variable, such as {name: hub, key: token}; got something "
                "else, which is not shown. Keep the secret itself in the Secret alone."
            )
        return secrets

    @field_validator("env", "secrets")
    @classmethod
    def _variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        for name in variables:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(
                    f"expected names of environment variables, of letters, digits and underscores; got {name!r}."
                )
            if name in _OPERATORS:
                raise ValueError(f"{name} is set by the operator: leave it out.")
        return variables

    @field_validator("secrets")
    @classmethod
    def _once(cls, secrets: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name in secrets.keys() & info.data.get("env", {}).keys():
            raise ValueError(f"{name} is in env, too: leave it out of one of the two.")
        return secrets

    @field_validator("volumes")
    @classmethod
    def _paths(cls, volumes: dict[str, Volume]) -> dict[str, Volume]:
        for path in volumes:
            if not path.startswith("/") or path.rstrip("/") != path or ":" in path or "/../" in f"{path}/":
                raise ValueError(
                    f"expected absolute paths without a slash at their end, such as /data; got {path!r}."
                )
            if path in _TAKEN_PATHS:
                raise ValueError(
                    f"{path} is taken by the system, Ray or the job itself: choose another path."
                )
        return volumes

    @field_validator("token_secret")
    @classmethod
    def _asked(cls, token_secret: str | None, info: ValidationInfo) -> str | None:
        if token_secret is not None and not info.data.get("token_auth", True):
            raise ValueError("of no use while token_auth is false: leave one of the two out.")
        return token_secret

    @model_validator(mode="after")
    def _together(self) -> Self:
        if not self.groups:
            raise ValueError(
                "there are no workers: expected cpu_workers, gpu_workers or both. Leave one not null."
            )
        if KUEUE in self.labels and self.keep_failed_seconds is not None:
            raise ValueError(
                f"keep_failed_seconds can't be had with the label {KUEUE}: Kueue asks that a cluster goes once its job "
                "is done. Leave one of the two out; ttl_seconds_after_finished works with Kueue."
            )
        return self

    @property
    def autoscaling(self) -> bool:
        """Whether the groups grow and shrink."""
        return any(group.least < group.max_replicas for group in self.groups.values())

    @property
    def groups(self) -> dict[str, Workers]:
        """The groups of worker pods that there are, by their names."""
        both = {"cpu": self.cpu_workers, "gpu": self.gpu_workers}
        return {name: group for name, group in both.items() if group is not None}
