"""The API server that other tests talk to: the official client meets in it what it would meet in a real one."""

import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client, config
from kubernetes.client import ApiException
from kubernetes.watch import Watch

from tests.cluster.kuberay import crds
from tests.cluster.kuberay.objects import Log
from tests.cluster.kuberay.server import Fault, Server

RAYJOBS = ("ray.io", "v1", "batch", "rayjobs")


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> client.ApiClient:
    configuration = client.Configuration()
    config.load_kube_config(str(server.kubeconfig(tmp_path / "own")), client_configuration=configuration)
    configuration.retries = False
    return client.ApiClient(configuration)


@pytest.fixture
def core(kube: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(kube)


@pytest.fixture
def custom(kube: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(kube)


def config_map(name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": {"a": "b"},
    }


def rayjob(name: str = "one", **spec: Any) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"name": "ray-head", "image": "ray"}]}}
    cluster = {"headGroupSpec": {"rayStartParams": {}, "template": pod}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {"entrypoint": "python a.py", "rayClusterSpec": cluster, **spec},
    }


def refused(status: int, reason: str) -> Any:
    return pytest.raises(ApiException, match=rf'\({status}\)(.|\n)*"reason": "{reason}"')


def test_created_found_listed_and_deleted(core: client.CoreV1Api) -> None:
    made = core.create_namespaced_config_map("batch", config_map("one", labels={"of": "me"}))
    assert (made.metadata.namespace, bool(made.metadata.uid), made.data) == ("batch", True, {"a": "b"})
    core.create_namespaced_config_map("batch", config_map("two"))
    assert core.read_namespaced_config_map("one", "batch").metadata.uid == made.metadata.uid
    listed = core.list_namespaced_config_map("batch", label_selector="of=me")
    assert [one.metadata.name for one in listed.items] == ["one"]
    listed = core.list_namespaced_config_map("batch", field_selector="metadata.name=two")
    assert [one.metadata.name for one in listed.items] == ["two"]
    core.delete_namespaced_config_map("one", "batch")
    with refused(404, "NotFound"):
        core.read_namespaced_config_map("one", "batch")
    assert core.list_namespaced_config_map("default").items == []


def test_what_is_there_is_not_created_again(core: client.CoreV1Api) -> None:
    core.create_namespaced_config_map("batch", config_map("one"))
    with refused(409, "AlreadyExists"):
        core.create_namespaced_config_map("batch", config_map("one"))
    with refused(409, "AlreadyExists"):
        core.create_namespaced_config_map("batch", config_map("one"), dry_run="All")


def test_a_dry_run_keeps_nothing(core: client.CoreV1Api, server: Server) -> None:
    before = server.version
    assert core.create_namespaced_config_map("batch", config_map("one"), dry_run="All").metadata.uid
    assert (server.objects, server.version) == ({}, before)
    core.create_namespaced_config_map("batch", config_map("one"))
    core.patch_namespaced_config_map("one", "batch", {"data": {"a": "c"}}, dry_run="All")
    core.delete_namespaced_config_map("one", "batch", dry_run="All")
    assert core.read_namespaced_config_map("one", "batch").data == {"a": "b"}


def test_names_are_made_and_checked(core: client.CoreV1Api) -> None:
    unnamed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "some-"}}
    names = {core.create_namespaced_config_map("batch", unnamed).metadata.name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("some-") for name in names)
    with refused(422, "Invalid"):
        core.create_namespaced_config_map("batch", config_map("No Name"))
    with refused(404, "NotFound"):
        core.create_namespaced_config_map("elsewhere", config_map("one"))


def test_a_stale_version_is_not_replaced(custom: client.CustomObjectsApi) -> None:
    made = custom.create_namespaced_custom_object(*RAYJOBS, rayjob())
    first = made | {"spec": made["spec"] | {"suspend": True}}
    custom.replace_namespaced_custom_object(*RAYJOBS, "one", first)
    with refused(409, "Conflict"):
        custom.replace_namespaced_custom_object(*RAYJOBS, "one", made)
    with refused(409, "Conflict"):
        stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
        custom.patch_namespaced_custom_object(*RAYJOBS, "one", stale)
    now = custom.get_namespaced_custom_object(*RAYJOBS, "one")
    assert (now["spec"]["suspend"], now["metadata"]["generation"]) == (True, 2)


def test_a_status_has_its_own_path(custom: client.CustomObjectsApi) -> None:
    status = {"jobDeploymentStatus": "Running"}
    made = custom.create_namespaced_custom_object(*RAYJOBS, rayjob() | {"status": status})
    assert "status" not in made
    custom.patch_namespaced_custom_object(*RAYJOBS, "one", {"status": status})
    assert "status" not in custom.get_namespaced_custom_object(*RAYJOBS, "one")
    patch = {"status": status, "spec": {"entrypoint": "another"}}
    now = custom.patch_namespaced_custom_object_status(*RAYJOBS, "one", patch)
    assert (now["status"], now["spec"]["entrypoint"], now["metadata"]["generation"]) == (
        status,
        "python a.py",
        1,
    )


def test_what_is_owned_goes_with_its_owner(custom: client.CustomObjectsApi, core: client.CoreV1Api) -> None:
    made = custom.create_namespaced_custom_object(*RAYJOBS, rayjob())
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "one", "uid": made["metadata"]["uid"]}
    core.create_namespaced_config_map("batch", config_map("owned", ownerReferences=[owner]))
    core.create_namespaced_config_map("batch", config_map("free"))
    with refused(409, "Conflict"):
        custom.delete_namespaced_custom_object(*RAYJOBS, "one", body={"preconditions": {"uid": "another"}})
    custom.delete_namespaced_custom_object(*RAYJOBS, "one")
    assert [one.metadata.name for one in core.list_namespaced_config_map("batch").items] == ["free"]


def test_a_finalizer_holds_what_is_deleted(custom: client.CustomObjectsApi) -> None:
    custom.create_namespaced_custom_object(*RAYJOBS, rayjob())
    custom.patch_namespaced_custom_object(*RAYJOBS, "one", {"metadata": {"finalizers": ["mine/hold"]}})
    custom.delete_namespaced_custom_object(*RAYJOBS, "one")
    assert custom.get_namespaced_custom_object(*RAYJOBS, "one")["metadata"]["deletionTimestamp"]
    custom.patch_namespaced_custom_object(*RAYJOBS, "one", {"metadata": {"finalizers": None}})
    with refused(404, "NotFound"):
        custom.get_namespaced_custom_object(*RAYJOBS, "one")


@crds.needs_crds
def test_the_definitions_are_held(custom: client.CustomObjectsApi, server: Server) -> None:
    for wrong in (rayjob(backoffLimit="two"), rayjob(preRunningDeadlineSeconds=0), rayjob(entryPoint="typo")):
        with refused(422, "Invalid"):
            custom.create_namespaced_custom_object(*RAYJOBS, wrong, dry_run="All")
    custom.create_namespaced_custom_object(*RAYJOBS, rayjob())
    with refused(422, "Invalid"):
        custom.patch_namespaced_custom_object(*RAYJOBS, "one", {"spec": {"backoffLimit": "two"}})


def watched(core: client.CoreV1Api, count: int, **options: Any) -> list[tuple[str, str]]:
    """The first so many events."""
    events = Watch().stream(core.list_namespaced_config_map, "batch", timeout_seconds=5, **options)
    return [(event["type"], event["object"].metadata.name) for event in islice(events, count)]


def test_a_watch_tells_what_happens_from_a_version_on(core: client.CoreV1Api, server: Server) -> None:
    core.create_namespaced_config_map("batch", config_map("one"))
    listed = core.list_namespaced_config_map("batch").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("elsewhere"))

    def go_on() -> None:
        time.sleep(0.2)
        server.create("configmaps", "batch", config_map("two"))
        server.delete("configmaps", "one")

    threading.Thread(target=go_on, daemon=True).start()
    assert watched(core, 2, resource_version=listed) == [("ADDED", "two"), ("DELETED", "one")]
    assert watched(core, 1) == [("ADDED", "two")]  # from nothing on: what there is


def test_a_watch_that_is_cut_goes_on(core: client.CoreV1Api, server: Server) -> None:
    listed = core.list_namespaced_config_map("batch").metadata.resource_version
    for name in ("one", "two", "three"):
        core.create_namespaced_config_map("batch", config_map(name))
    server.faults.append(Fault("cut", "GET", "/configmaps", pieces=1))
    seen, watch = [], Watch()
    with pytest.raises(urllib3.exceptions.ProtocolError):  # noqa: PT012
        for event in watch.stream(core.list_namespaced_config_map, "batch", resource_version=listed):
            seen.append(event["object"].metadata.name)
    events = watch.stream(
        core.list_namespaced_config_map, "batch", resource_version=watch.resource_version, timeout_seconds=5
    )
    seen += [event["object"].metadata.name for event in islice(events, 2)]
    assert seen == ["one", "two", "three"]


def test_a_watch_from_too_long_ago_is_gone(core: client.CoreV1Api, server: Server) -> None:
    listed = core.list_namespaced_config_map("batch").metadata.resource_version
    core.create_namespaced_config_map("batch", config_map("one"))
    server.expire()
    with pytest.raises(ApiException, match=r"\(410\)(.|\n)*too old resource version"):
        watched(core, 1, resource_version=listed)
    assert watched(core, 1) == [("ADDED", "one")]


def test_a_log_is_read_and_followed(core: client.CoreV1Api, server: Server) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c"}]},
    }
    server.create("pods", "batch", pod)
    with pytest.raises(ApiException, match=r"waiting to start"):
        core.read_namespaced_pod_log("p", "batch")
    log = server.logs["p", "c"] = Log()
    log.write("first", at=1.5)
    assert (
        core.read_namespaced_pod_log("p", "batch", timestamps=True)
        == "1970-01-01T00:00:01.500000000Z first\n"
    )
    assert core.read_namespaced_pod_log("p", "batch", since_seconds=60) == ""
    timer = threading.Timer(0.2, lambda: (log.write("second"), log.end()))
    timer.start()
    assert list(Watch().stream(core.read_namespaced_pod_log, "p", "batch")) == ["first", "second"]
    timer.join()


@pytest.mark.parametrize("code", [429, 500, 503])
def test_it_refuses_on_purpose_and_once(code: int, core: client.CoreV1Api, server: Server) -> None:
    server.faults.append(Fault("refuse", "GET", "/configmaps", code=code, after_s=7))
    with pytest.raises(ApiException) as raised:
        core.list_namespaced_config_map("batch")
    assert (raised.value.status, raised.value.headers["Retry-After"]) == (code, "7")
    assert core.list_namespaced_config_map("batch").items == []


def test_an_answer_is_lost_after_it_was_done(core: client.CoreV1Api, server: Server) -> None:
    server.faults.append(Fault("lose", "POST", "/configmaps"))
    with pytest.raises((urllib3.exceptions.HTTPError, OSError)):
        core.create_namespaced_config_map("batch", config_map("one"))
    assert core.read_namespaced_config_map("one", "batch").data == {"a": "b"}


def test_who_asks_is_known_and_may_do_some_things(
    kube: client.ApiClient, core: client.CoreV1Api, server: Server
) -> None:
    server.forbidden.add(("list", "pods"))
    with refused(403, "Forbidden"):
        core.list_namespaced_pod("batch")
    review = {"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "batch"}}}
    ask = client.AuthorizationV1Api(kube).create_self_subject_access_review
    assert not ask(review).status.allowed
    review["spec"]["resourceAttributes"]["verb"] = "get"
    assert ask(review).status.allowed
    server.token = "another"
    with refused(401, "Unauthorized"):
        core.list_namespaced_config_map("batch")
