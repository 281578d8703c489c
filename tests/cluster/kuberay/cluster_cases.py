"""What cluster_rules.py refuses of a cluster, a job's own or one alone; test_rules goes through the cases."""

from tests.cluster.kuberay.cases import HEAD, OWN, SCALING, TOKEN, Case, Changes

GROUP = f"{OWN}.workerGroupSpecs.0"
ENV = f"{HEAD}.template.spec.containers.0.env"
_V2: Changes = {**SCALING, f"{OWN}.autoscalerOptions.version": "v2"}
_FAULTS: Changes = {f"{OWN}.gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}


def variable(name: str, value: str = "1") -> list[Changes]:
    return [{"name": name, "value": value}]


CASES = [
    *(
        Case(
            f"a token with Ray {given}",
            {f"{OWN}.rayVersion": given},
            {f"{OWN}.rayVersion": "2.52.0"},
            f"{OWN}.authOptions: expected rayVersion to be 2.52.0 or newer with it; got {said}",
            both=TOKEN,
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
        for place in (HEAD, GROUP)
    ),
    Case(
        "resources twice",
        {f"{GROUP}.rayStartParams": {"num-cpus": "2"}},
        {f"{GROUP}.rayStartParams": {}},
        f"{GROUP}: expected Ray's resources either in rayStartParams or in resources; got both (num-cpus). Leave one "
        "of the two out.",
        both={f"{GROUP}.resources": {"CPU": "2"}},
    ),
    Case(
        "labels where none are",
        {f"{GROUP}.rayStartParams": {"labels": "a=b"}},
        {f"{GROUP}.labels": {"a": "b"}},
        f"{GROUP}.rayStartParams.labels: labels of Ray's nodes are not set there. Move them to {GROUP}.labels.",
    ),
    Case(
        "labels that are none",
        {f"{GROUP}.labels": {"type": "A 100"}},
        {f"{GROUP}.labels": {"type": "A-100"}},
        f"{GROUP}.labels.type: 'A 100' can't be a label: it must be of letters, digits, -, _ and points, and begin "
        "and end with a letter or digit. Change it.",
    ),
    *(
        Case(
            f"{name} is negative",
            {f"{GROUP}.{name}": -1, f"{GROUP}.{other}": 0},
            {f"{GROUP}.{name}": 0, f"{GROUP}.{other}": 0},
            f"{GROUP}.{name}: expected at least 0; got -1. Raise it.",
        )
        for name, other in (("minReplicas", "maxReplicas"), ("maxReplicas", "minReplicas"))
    ),
    Case(
        "more at least than at most",
        {f"{GROUP}.minReplicas": 3},
        {f"{GROUP}.minReplicas": 2},
        f"{GROUP}: expected minReplicas of at most maxReplicas, 2; got 3. Lower the one.",
    ),
    Case(
        "a group's suspension beside an autoscaler",
        SCALING,
        {},
        f"{GROUP}.suspend: a group can't be suspended with autoscaling. Leave it out, or enableInTreeAutoscaling.",
        both={f"{GROUP}.suspend": True},
    ),
    Case(
        "a group's own idle time with the first autoscaler",
        SCALING,
        _V2,
        f"{GROUP}.idleTimeoutSeconds: a group's own needs autoscaling of version v2. Set enableInTreeAutoscaling to "
        "true and autoscalerOptions.version to v2, or leave it out.",
        both={f"{GROUP}.idleTimeoutSeconds": 60},
    ),
    Case(
        "a group's own idle time is negative",
        {f"{GROUP}.idleTimeoutSeconds": -1},
        {f"{GROUP}.idleTimeoutSeconds": 0},
        f"{GROUP}.idleTimeoutSeconds: expected at least 0; got -1. Raise it.",
        both=_V2,
    ),
    Case(
        "a group's priority without an autoscaler",
        {},
        _V2,
        f"{GROUP}.priority: a group's own needs autoscaling of version v2. Set enableInTreeAutoscaling to true and "
        "autoscalerOptions.version to v2, or leave it out.",
        both={f"{GROUP}.priority": 5},
    ),
    Case(
        "a group's priority with an older Ray",
        {f"{OWN}.rayVersion": "2.55.1"},
        {f"{OWN}.rayVersion": "2.56.0"},
        f"{GROUP}.priority: expected rayVersion to be 2.56.0 or newer with it; got 2.55.1. Take an image with a newer "
        "Ray.",
        both={**_V2, f"{GROUP}.priority": 5},
    ),
    Case(
        "a switch for an autoscaler that is off",
        {},
        SCALING,
        f"{HEAD}: RAY_enable_autoscaler_v2 is set, and enableInTreeAutoscaling is not true. Set that, and leave the "
        "variable out: autoscalerOptions.version is v2 instead.",
        both={ENV: variable("RAY_enable_autoscaler_v2")},
    ),
    Case(
        "an autoscaler's version twice",
        {ENV: variable("RAY_enable_autoscaler_v2")},
        {},
        f"{OWN}.autoscalerOptions.version: RAY_enable_autoscaler_v2 of the head says it, too. Leave the variable out.",
        both=_V2,
    ),
    Case(
        "an autoscaler's idle time is negative",
        {f"{OWN}.autoscalerOptions.idleTimeoutSeconds": -1},
        {f"{OWN}.autoscalerOptions.idleTimeoutSeconds": 0},
        f"{OWN}.autoscalerOptions.idleTimeoutSeconds: expected at least 0; got -1. Raise it.",
        both=SCALING,
    ),
    Case(
        "the autoscaler's own variable",
        {f"{OWN}.autoscalerOptions.env": variable("KUBERAY_GEN_AUTOSCALER_START_CMD")},
        {f"{OWN}.autoscalerOptions.env": variable("MINE")},
        f"{OWN}.autoscalerOptions.env: KUBERAY_GEN_AUTOSCALER_START_CMD is set by the operator. Leave it out.",
        both=SCALING,
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
        for place in (HEAD, GROUP)
    ),
    Case(
        "Redis without fault tolerance",
        {},
        _FAULTS | {ENV: []},
        f"{HEAD}: RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions. Set those, or leave it out.",
        both={ENV: variable("RAY_REDIS_ADDRESS")},
    ),
    *(
        Case(
            f"fault tolerance is said twice, by {name}",
            wrong,
            {},
            f"{OWN}.gcsFaultToleranceOptions: {said}",
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
                "an address", {ENV: variable("RAY_REDIS_ADDRESS")},
                "the head has RAY_REDIS_ADDRESS, too. Leave it out there: redisAddress says it.",
            ),
            (
                "a variable", {ENV: variable("REDIS_PASSWORD")},
                "the head is given Redis' password, too. Leave it out there: redisPassword says it.",
            ),
            (
                "a parameter", {f"{HEAD}.rayStartParams": {"redis-password": "x"}},
                "the head is given Redis' password, too. Leave it out there: redisPassword says it.",
            ),
        )
    ),
    *(
        Case(
            f"Redis' user in {next(iter(wrong))}",
            wrong,
            {},
            f"{HEAD}: Redis' user is not set there, but by gcsFaultToleranceOptions. Leave it out there.",
            both=_FAULTS,
        )
        for wrong in (
            {f"{HEAD}.rayStartParams": {"redis-username": "x"}},
            {ENV: variable("REDIS_USERNAME")},
        )
    ),
]  # fmt: skip
