"""What the KubeRay operator (1.7) refuses of manifests that its schemas let pass, and Kueue with it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from cluster.kuberay.cluster_rules import broken_cluster
from cluster.kuberay.names import wrong_dns_1035
from cluster.kuberay.reading import given, listed, mapping, number
from cluster.kuberay.settings import KUEUE

RAY_JOB_LONGEST = 47  #: characters; for its cluster, as for a schedule's jobs, the operator adds some
KINDS = ("RayJob", "RayCronJob", "RayCluster")
_LONGEST = {"RayJob": RAY_JOB_LONGEST, "RayCronJob": 36, "RayCluster": 53}
_MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_DESCRIPTORS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def broken(manifest: Mapping[str, Any]) -> list[str]:
    """Why the operator would refuse a RayJob, RayCronJob or RayCluster, or fail with it: where, and what to do.

    What the schemas refuse is not looked for. Nor is what depends on how the operator is installed: feature gates.
    """
    kind, spec = manifest.get("kind"), mapping(manifest.get("spec"))
    metadata = mapping(manifest.get("metadata"))
    if kind not in KINDS:
        raise ValueError(f"expected a {', '.join(KINDS[:-1])} or {KINDS[-1]}; got {kind!r}.")
    reasons = [*_name(kind, metadata)]
    if kind == "RayCluster":
        reasons += broken_cluster(spec, "spec", mapping(metadata.get("annotations")))
    elif kind == "RayJob":
        reasons += _job(spec, "spec", metadata)
    else:
        reasons += _schedule(spec)
        reasons += _job(mapping(spec.get("jobTemplate")), "spec.jobTemplate", {})
    return reasons


def _name(kind: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    name = metadata.get("name")
    if isinstance(name, str) and (why := wrong_dns_1035(name, _LONGEST[kind])):
        yield f"metadata.name: {name} can't be a {kind}'s name: {why} Choose another."


def _job(spec: Mapping[str, Any], at: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    yield from _source(spec, at)
    yield from _mode(spec, at)
    yield from _numbers(spec, at)
    yield from _end(spec, at)
    yield from _deletion(mapping(spec.get("deletionStrategy")), spec, f"{at}.deletionStrategy")
    yield from _runtime_env(spec, at)
    yield from _queue(spec, at, mapping(metadata.get("labels")))
    if given(spec, "rayClusterSpec"):
        cluster = mapping(spec["rayClusterSpec"])
        if mapping(cluster.get("authOptions")).get("enableK8sTokenAuth"):
            yield (
                f"{at}.rayClusterSpec.authOptions.enableK8sTokenAuth: a RayJob can't have Kubernetes' own tokens. "
                "Leave it out: mode token alone makes a token."
            )
        yield from broken_cluster(cluster, f"{at}.rayClusterSpec", mapping(metadata.get("annotations")))


def _source(spec: Mapping[str, Any], at: str) -> Iterator[str]:
    """Which cluster it runs on."""
    selector = mapping(spec.get("clusterSelector"))
    if not selector:
        if not given(spec, "rayClusterSpec"):
            yield f"{at}: expected rayClusterSpec or clusterSelector; got neither. Say which cluster the job runs on."
        return
    if given(spec, "rayClusterSpec"):
        yield (
            f"{at}: expected either rayClusterSpec or clusterSelector; got both, and the first would be ignored. Leave "
            "one of the two out."
        )
    if not selector.get("ray.io/cluster"):
        yield f"{at}.clusterSelector: expected ray.io/cluster with a RayCluster's name; got none. Name the cluster."
    for refused, what in (
        (spec.get("suspend") is True, "suspend: true"),
        (spec.get("submissionMode") == "SidecarMode", "submissionMode: SidecarMode"),
        (number(spec, "backoffLimit") > 0, "a backoffLimit of more than 0"),
    ):
        if refused:
            yield (
                f"{at}.clusterSelector: a job on a cluster that is there already can't have {what}. Leave that out, or "
                "give the job a rayClusterSpec of its own."
            )


def _mode(spec: Mapping[str, Any], at: str) -> Iterator[str]:
    mode = spec.get("submissionMode", _MODES[0])
    if mode not in _MODES:
        yield f"{at}.submissionMode: expected {', '.join(_MODES[:-1])} or {_MODES[-1]}; got {mode!r}. Choose one."
    if mode == "InteractiveMode" and number(spec, "backoffLimit") > 0:
        yield (
            f"{at}.backoffLimit: expected 0 with InteractiveMode; got {spec['backoffLimit']}. Nothing can be tried "
            "again that somebody else submits: leave it out."
        )
    if mode == "SidecarMode":
        for name in ("submitterPodTemplate", "submitterConfig"):
            if given(spec, name):
                yield f"{at}.{name}: SidecarMode has no submitter of its own. Leave it out, or choose K8sJobMode."
        head = mapping(mapping(mapping(spec.get("rayClusterSpec")).get("headGroupSpec")).get("template"))
        policy = mapping(head.get("spec")).get("restartPolicy", "Never")
        if policy != "Never":
            yield (
                f"{at}.rayClusterSpec.headGroupSpec.template.spec.restartPolicy: expected Never with SidecarMode; got "
                f"{policy}. Set it so, or leave it out."
            )


def _numbers(spec: Mapping[str, Any], at: str) -> Iterator[str]:
    for name, least in (
        ("backoffLimit", 0),
        ("ttlSecondsAfterFinished", 0),
        ("activeDeadlineSeconds", 1),
        ("preRunningDeadlineSeconds", 1),
    ):
        if given(spec, name) and number(spec, name, least) < least:
            yield f"{at}.{name}: expected at least {least}; got {spec[name]}. Raise it, or leave it out."


def _end(spec: Mapping[str, Any], at: str) -> Iterator[str]:
    """What needs the cluster to go once the job is done."""
    if spec.get("shutdownAfterJobFinishes"):
        return
    if spec.get("suspend") is True:
        yield (
            f"{at}.suspend: only a job whose cluster goes once it is done can be suspended. Set "
            "shutdownAfterJobFinishes to true."
        )
    if number(spec, "ttlSecondsAfterFinished") > 0:
        yield (
            f"{at}.ttlSecondsAfterFinished: {spec['ttlSecondsAfterFinished']} is of no use while nothing is shut down. "
            "Set shutdownAfterJobFinishes to true, or leave it out; deletionRules have ttlSeconds of their own."
        )


def _deletion(strategy: Mapping[str, Any], spec: Mapping[str, Any], at: str) -> Iterator[str]:
    rules = [mapping(rule) for rule in listed(strategy.get("deletionRules"))]
    if rules and spec.get("shutdownAfterJobFinishes"):
        yield (
            f"{at}.deletionRules: expected either these or shutdownAfterJobFinishes; got both. Leave "
            "shutdownAfterJobFinishes out, and say by a rule when the cluster goes."
        )
    on_selected = bool(mapping(spec.get("clusterSelector")))
    autoscaling = bool(mapping(spec.get("rayClusterSpec")).get("enableInTreeAutoscaling"))
    every = [(f"{at}.deletionRules.{index}", rule.get("policy")) for index, rule in enumerate(rules)]
    for name in ("onSuccess", "onFailure"):
        every.append((f"{at}.{name}", mapping(strategy.get(name)).get("policy")))
        if given(strategy, name) and not given(mapping(strategy[name]), "policy"):
            yield f"{at}.{name}: expected a policy; got none. Say what is deleted, such as DeleteCluster."
        if every[-1][1] == "DeleteNone" and spec.get("shutdownAfterJobFinishes"):
            yield f"{at}.{name}: DeleteNone can't be had with shutdownAfterJobFinishes. Leave one of the two out."
    for place, policy in every:
        if on_selected and policy in ("DeleteCluster", "DeleteWorkers"):
            yield f"{place}: {policy} is not for a cluster that clusterSelector names. Choose DeleteSelf or DeleteNone."
        if autoscaling and policy == "DeleteWorkers":
            yield f"{place}: DeleteWorkers is not for a cluster with autoscaling. Choose DeleteCluster."
    yield from _rule_times(rules, f"{at}.deletionRules")


def _rule_times(rules: Sequence[Mapping[str, Any]], at: str) -> Iterator[str]:
    """Rules of one condition: each policy once, and what is part of another no later than that."""
    times: dict[tuple[str, str], dict[str, int]] = {}
    for index, rule in enumerate(rules):
        condition, policy = mapping(rule.get("condition")), str(rule.get("policy"))
        status = next((name for name in ("jobStatus", "jobDeploymentStatus") if given(condition, name)), "")
        when = (status, str(condition.get(status)))
        if policy in times.setdefault(when, {}):
            yield f"{at}.{index}: {policy} with {when[0]} {when[1]} is there already. Leave one of the two out."
        times[when].setdefault(policy, number(condition, "ttlSeconds"))
    for (status, value), policies in times.items():
        in_order = [policy for policy in _ORDER if policy in policies]
        for first, then in pairwise(in_order):
            if policies[then] < policies[first]:
                yield (
                    f"{at}: with {status} {value}, expected {then} no earlier than {first}, after {policies[first]} s; "
                    f"got {policies[then]} s. Raise its ttlSeconds."
                )


def _runtime_env(spec: Mapping[str, Any], at: str) -> Iterator[str]:
    text = spec.get("runtimeEnvYAML")
    try:
        document = yaml.safe_load(text) if isinstance(text, str) and text else {}
    except yaml.YAMLError:
        yield f"{at}.runtimeEnvYAML: expected YAML; got a text that is none. Mend it, or leave it out."
        return
    if not isinstance(document, dict):
        yield f"{at}.runtimeEnvYAML: expected a mapping, such as env_vars: ...; got something else. Write it as one."


def _queue(spec: Mapping[str, Any], at: str, labels: Mapping[str, Any]) -> Iterator[str]:
    """What Kueue's webhook refuses of what is in a queue of it."""
    if KUEUE not in labels:
        return
    if not spec.get("shutdownAfterJobFinishes"):
        yield (
            f"{at}.shutdownAfterJobFinishes: expected true with the label {KUEUE}: Kueue counts the cluster until it "
            "is gone. Set it so, without deletionRules."
        )
    if mapping(spec.get("clusterSelector")):
        yield f"{at}.clusterSelector: Kueue queues clusters, and here is none to queue. Leave the label {KUEUE} out."


def _schedule(spec: Mapping[str, Any]) -> Iterator[str]:
    schedule, zone = str(spec.get("schedule", "")), spec.get("timeZone")
    if "TZ" in schedule:
        yield f"spec.schedule: expected no time zone in it; got {schedule!r}. Say it in spec.timeZone."
    elif not (schedule in _DESCRIPTORS or schedule.startswith("@every ") or len(schedule.split()) == 5):
        yield (
            f"spec.schedule: expected five fields, minute, hour, day, month and weekday, or such as @daily; got "
            f"{schedule!r}. Write it so."
        )
    if isinstance(zone, str):
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield (
                f"spec.timeZone: expected a time zone's name, such as Europe/Berlin; got {zone!r}. Correct it, or "
                "leave it out for the operator's own."
            )
