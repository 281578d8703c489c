"""What the KubeRay operator (1.7) refuses of a cluster that its schema lets pass."""

from collections.abc import Iterator, Mapping
from typing import Any

from packaging.version import InvalidVersion, Version

from cluster.kuberay.names import wrong_key, wrong_value
from cluster.kuberay.reading import given, listed, mapping, number

_V2 = "RAY_enable_autoscaler_v2"
_REDIS, _REDIS_USER, _REDIS_PASSWORD = "RAY_REDIS_ADDRESS", "REDIS_USERNAME", "REDIS_PASSWORD"
_START = "KUBERAY_GEN_AUTOSCALER_START_CMD"
_FAULT_TOLERANT, _NAMESPACE = "ray.io/ft-enabled", "ray.io/external-storage-namespace"


def broken_cluster(spec: Mapping[str, Any], at: str, annotations: Mapping[str, Any]) -> list[str]:
    """Why the operator would refuse a RayCluster's spec, which stands `at` that place in a manifest."""
    head = mapping(spec.get("headGroupSpec"))
    groups = {
        f"{at}.workerGroupSpecs.{index}": mapping(group)
        for index, group in enumerate(listed(spec.get("workerGroupSpecs")))
    }
    autoscaling = spec.get("enableInTreeAutoscaling") is True
    options = mapping(spec.get("autoscalerOptions"))
    environment = _environment(head)
    newer = autoscaling and (options.get("version") == "v2" or environment.get(_V2) in ("1", "true"))
    reasons = [*_group(head, f"{at}.headGroupSpec")]
    for place, group in groups.items():
        reasons += _group(group, place)
        reasons += _replicas(group, place)
        reasons += _with_autoscaler(group, place, autoscaling, newer, spec.get("rayVersion"))
    reasons += _autoscaler(options, at, autoscaling, environment)
    if newer:
        for place, group in {f"{at}.headGroupSpec": head, **groups}.items():
            reasons += _restarts(group, place)
    reasons += _redis(spec, at, annotations, mapping(head.get("rayStartParams")), environment)
    reasons += _token(spec, at)
    return reasons


def _environment(head: Mapping[str, Any]) -> dict[str, Any]:
    containers = listed(mapping(mapping(head.get("template")).get("spec")).get("containers"))
    variables = listed(mapping(containers[0]).get("env")) if containers else ()
    return {str(one.get("name")): one.get("value") for one in map(mapping, variables)}


def _group(group: Mapping[str, Any], at: str) -> Iterator[str]:
    """What is asked of the head's group and of workers' alike."""
    start = mapping(group.get("rayStartParams"))
    if not listed(mapping(mapping(group.get("template")).get("spec")).get("containers")):
        yield f"{at}.template.spec.containers: expected at least one; got none. The first is Ray's."
    twice = [name for name in ("num-cpus", "num-gpus", "memory", "resources") if start.get(name)]
    if twice and mapping(group.get("resources")):
        yield (
            f"{at}: expected Ray's resources either in rayStartParams or in resources; got both ({', '.join(twice)}). "
            "Leave one of the two out."
        )
    if "labels" in start:
        yield f"{at}.rayStartParams.labels: labels of Ray's nodes are not set there. Move them to {at}.labels."
    for key, value in mapping(group.get("labels")).items():
        if why := wrong_key(str(key)) or wrong_value(str(value)):
            yield f"{at}.labels.{key}: {value!r} can't be a label: {why} Change it."


def _replicas(group: Mapping[str, Any], at: str) -> Iterator[str]:
    for name in ("minReplicas", "maxReplicas"):
        if number(group, name) < 0:
            yield f"{at}.{name}: expected at least 0; got {group[name]}. Raise it."
    least, most = number(group, "minReplicas"), number(group, "maxReplicas", (1 << 31) - 1)
    if least > most >= 0:
        yield f"{at}: expected minReplicas of at most maxReplicas, {most}; got {least}. Lower the one."


def _with_autoscaler(
    group: Mapping[str, Any], at: str, autoscaling: bool, newer: bool, ray_version: Any
) -> Iterator[str]:
    if autoscaling and group.get("suspend") is True:
        yield f"{at}.suspend: a group can't be suspended with autoscaling. Leave it out, or enableInTreeAutoscaling."
    if number(group, "idleTimeoutSeconds") < 0:
        yield f"{at}.idleTimeoutSeconds: expected at least 0; got {group['idleTimeoutSeconds']}. Raise it."
    for name in ("idleTimeoutSeconds", "priority"):
        if number(group, name, 1 if given(group, name) else 0) and not newer:
            yield (
                f"{at}.{name}: a group's own needs autoscaling of version v2. Set enableInTreeAutoscaling to true and "
                "autoscalerOptions.version to v2, or leave it out."
            )
    if number(group, "priority"):
        yield from _at_least(ray_version, "2.56.0", f"{at}.priority")


def _autoscaler(
    options: Mapping[str, Any], at: str, autoscaling: bool, environment: Mapping[str, Any]
) -> Iterator[str]:
    if not autoscaling and environment.get(_V2) in ("1", "true"):
        yield (
            f"{at}.headGroupSpec: {_V2} is set, and enableInTreeAutoscaling is not true. Set that, and leave the "
            "variable out: autoscalerOptions.version is v2 instead."
        )
    if autoscaling and given(options, "version") and _V2 in environment:
        yield f"{at}.autoscalerOptions.version: {_V2} of the head says it, too. Leave the variable out."
    if number(options, "idleTimeoutSeconds") < 0:
        yield (
            f"{at}.autoscalerOptions.idleTimeoutSeconds: expected at least 0; got {options['idleTimeoutSeconds']}. "
            "Raise it."
        )
    if any(mapping(one).get("name") == _START for one in listed(options.get("env"))):
        yield f"{at}.autoscalerOptions.env: {_START} is set by the operator. Leave it out."


def _restarts(group: Mapping[str, Any], at: str) -> Iterator[str]:
    policy = mapping(mapping(group.get("template")).get("spec")).get("restartPolicy", "Never")
    if policy != "Never":
        yield (
            f"{at}.template.spec.restartPolicy: expected Never with autoscaling of version v2; got {policy}. Set it "
            "so, or leave it out."
        )


def _redis(
    spec: Mapping[str, Any],
    at: str,
    annotations: Mapping[str, Any],
    start: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> Iterator[str]:
    """The control store's own store, which is said in one place alone."""
    there = given(spec, "gcsFaultToleranceOptions")
    options, instead = f"{at}.gcsFaultToleranceOptions", "Leave it out there"
    if there and annotations.get(_FAULT_TOLERANT):
        yield f"{options}: the annotation {_FAULT_TOLERANT} says it, too. Leave the annotation out."
    if there and annotations.get(_NAMESPACE):
        yield f"{options}: the annotation {_NAMESPACE} is set, too. {instead}: externalStorageNamespace says it."
    if there and (start.get("redis-password") or _REDIS_PASSWORD in environment):
        yield f"{options}: the head is given Redis' password, too. {instead}: redisPassword says it."
    if there and _REDIS in environment:
        yield f"{options}: the head has {_REDIS}, too. {instead}: redisAddress says it."
    if not there and _REDIS in environment and annotations.get(_FAULT_TOLERANT) != "true":
        yield f"{at}.headGroupSpec: {_REDIS} is set without gcsFaultToleranceOptions. Set those, or leave it out."
    if start.get("redis-username") or _REDIS_USER in environment:
        yield f"{at}.headGroupSpec: Redis' user is not set there, but by gcsFaultToleranceOptions. {instead}."


def _token(spec: Mapping[str, Any], at: str) -> Iterator[str]:
    options = mapping(spec.get("authOptions"))
    of_kubernetes = options.get("enableK8sTokenAuth") is True
    if options.get("mode") != "token":
        if of_kubernetes:
            yield f"{at}.authOptions.enableK8sTokenAuth: expected mode token with it. Set it, or leave this out."
        return
    yield from _at_least(spec.get("rayVersion"), "2.55.0" if of_kubernetes else "2.52.0", f"{at}.authOptions")
    if of_kubernetes and options.get("secretName"):
        yield f"{at}.authOptions: expected either enableK8sTokenAuth or secretName; got both. Leave one of the two out."


def _at_least(version: Any, least: str, what: str) -> Iterator[str]:
    """What needs a Ray of at least that version, and that it is said."""
    place = f"{what}: expected rayVersion to be {least} or newer with it"
    if not version:
        yield f"{place}; got none. Say which Ray the image has."
        return
    try:
        if Version(str(version)) < Version(least):
            yield f"{place}; got {version}. Take an image with a newer Ray."
    except InvalidVersion:
        yield f"{place}; got {version!r}, which is no version. Write it such as 2.60.0."
