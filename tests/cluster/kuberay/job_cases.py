"""What rules.py refuses of names, jobs and schedules; test_rules goes through the cases."""

from tests.cluster.kuberay.cases import HEAD, OWN, SCALING, TOKEN, Case, Changes

RULES = "spec.deletionStrategy.deletionRules"
_SELECTED: Changes = {OWN: None, "spec.clusterSelector": {"ray.io/cluster": "theirs"}}
_QUEUED: Changes = {"metadata.labels": {"kueue.x-k8s.io/queue-name": "team"}}


def rule(policy: str, ttl: int, **condition: str) -> Changes:
    return {"policy": policy, "condition": {**(condition or {"jobStatus": "FAILED"}), "ttlSeconds": ttl}}


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
        {OWN: None},
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
        both={OWN: None},
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
        {f"{HEAD}.template.spec.restartPolicy": "Always"},
        {f"{HEAD}.template.spec.restartPolicy": "Never"},
        f"{HEAD}.template.spec.restartPolicy: expected Never with SidecarMode; got Always. Set it so, or leave it "
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
        f"{RULES}: expected either these or shutdownAfterJobFinishes; got both. Leave shutdownAfterJobFinishes out, "
        "and say by a rule when the cluster goes.",
        both={RULES: [rule("DeleteCluster", 60)]},
    ),
    Case(
        "workers are deleted from a cluster of others",
        {RULES: [rule("DeleteWorkers", 60)]},
        {RULES: [rule("DeleteSelf", 60)]},
        f"{RULES}.0: DeleteWorkers is not for a cluster that clusterSelector names. Choose DeleteSelf or "
        "DeleteNone.",
        both=_SELECTED,
    ),
    Case(
        "workers are deleted beside an autoscaler",
        {RULES: [rule("DeleteWorkers", 60)]},
        {RULES: [rule("DeleteCluster", 60)]},
        f"{RULES}.0: DeleteWorkers is not for a cluster with autoscaling. Choose DeleteCluster.",
        both=SCALING,
    ),
    Case(
        "a rule twice",
        {RULES: [rule("DeleteCluster", 60), rule("DeleteCluster", 90)]},
        {RULES: [rule("DeleteCluster", 60), rule("DeleteCluster", 90, jobStatus="SUCCEEDED")]},
        f"{RULES}.1: DeleteCluster with jobStatus FAILED is there already. Leave one of the two out.",
    ),
    Case(
        "rules out of order",
        {RULES: [rule("DeleteSelf", 30), rule("DeleteCluster", 60)]},
        {RULES: [rule("DeleteSelf", 60), rule("DeleteCluster", 60)]},
        f"{RULES}: with jobStatus FAILED, expected DeleteSelf no earlier than DeleteCluster, after 60 s; got 30 s. "
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
        {f"{OWN}.authOptions.enableK8sTokenAuth": True},
        {},
        f"{OWN}.authOptions.enableK8sTokenAuth: a RayJob can't have Kubernetes' own tokens. Leave it out: mode token "
        "alone makes a token.",
        both=TOKEN,
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
