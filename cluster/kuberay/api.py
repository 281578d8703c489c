"""A Kubernetes API by the official client: asked again where that may help, and what it refuses said plainly."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tenacity

from cluster.errors import ClusterError, ConnectionLostError

IN_CLUSTER = "in-cluster"  #: the context of a process that runs in the cluster itself
_GROUP, _VERSION, _PLURAL = "ray.io", "v1", "rayjobs"
#: What a namespace's users need: verb, API group and resource.
RIGHTS = (
    *((verb, _GROUP, _PLURAL) for verb in ("create", "get", "delete")),
    *((verb, "", "configmaps") for verb in ("create", "get", "delete")),
    *(("list", "", resource) for resource in ("pods", "events")),
    ("get", "", "pods/log"),
)
RIGHTS_OF_HTTP = (("get", "", "services/proxy"), ("get", "", "secrets"))  #: for logs in HTTPMode
_TIMEOUT_S = (5.0, 30.0)  # to connect, and for an answer
#: Answers are taken as they come: the client's models (37) refuse what another version of Kubernetes leaves out.
_RAW: dict[str, Any] = {"_preload_content": False, "_request_timeout": _TIMEOUT_S}
_SILENCE_S = 60.0  # of a log that is followed: then its connection may be dead without a word
_BACKOFF = tenacity.wait_random_exponential(multiplier=0.2, min=0.05, max=10.0)
_PASSING = (408, 429, 500, 502, 503, 504)
_MISSING = "Kubernetes needs its client: pip install 'perceiver-batch[kube]'."
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ApiError(ClusterError):
    """What the API answered instead of what was asked for."""

    def __init__(self, message: str, status: int = 0, reason: str = "", after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason  #: in one word, as the API gives it
        self.after_s = after_s  #: when it wants to be asked again

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered later."""
        return self.status in _PASSING


@dataclass(frozen=True)
class Api:
    """One namespace of a cluster. All of it raises ClusterError; ConnectionLostError where it doesn't answer."""

    context: str  #: of the kubeconfig, or IN_CLUSTER
    namespace: str
    patience_s: float = 60.0  #: for so long it is asked again after what passes

    def create(self, manifest: dict[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Create a ConfigMap or a RayJob; with `dry_run` all is checked, and nothing kept."""
        kept = {"dry_run": "All"} if dry_run else {}
        if manifest["kind"] == "ConfigMap":
            return self._asked(
                lambda kube: kube.core.create_namespaced_config_map(self.namespace, manifest, **kept, **_RAW)
            )
        return self._asked(
            lambda kube: kube.custom.create_namespaced_custom_object(
                *self._of_rayjobs, manifest, field_validation="Strict", **kept, **_RAW
            )
        )

    def rayjob(self, name: str) -> dict[str, Any] | None:
        return self._found(
            lambda kube: kube.custom.get_namespaced_custom_object(*self._of_rayjobs, name, **_RAW)
        )

    def config_map(self, name: str) -> dict[str, Any] | None:
        return self._found(lambda kube: kube.core.read_namespaced_config_map(name, self.namespace, **_RAW))

    def delete_rayjob(self, name: str, uid: str) -> None:
        """Delete a RayJob, if it is still the one of that uid, and in time what it owns. Nothing if it isn't."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        self._deleted(
            lambda kube: kube.custom.delete_namespaced_custom_object(
                *self._of_rayjobs, name, body=options, **_RAW
            )
        )

    def delete_config_map(self, name: str, uid: str) -> None:
        """Delete a ConfigMap, if it is still the one of that uid. Nothing if it isn't."""
        options = {"preconditions": {"uid": uid}}
        self._deleted(
            lambda kube: kube.core.delete_namespaced_config_map(name, self.namespace, body=options, **_RAW)
        )

    def pods(self, labels: str) -> list[dict[str, Any]]:
        """The pods with these labels (name=value,...), the newest last."""
        found = self._asked(
            lambda kube: kube.core.list_namespaced_pod(self.namespace, label_selector=labels, **_RAW)
        )
        return sorted(found["items"], key=lambda pod: pod["metadata"].get("creationTimestamp") or "")

    def warnings(self, name: str) -> list[str]:
        """What the cluster warned of an object, the newest last."""
        about = f"involvedObject.name={name},type=Warning"
        found = self._asked(
            lambda kube: kube.core.list_namespaced_event(self.namespace, field_selector=about, **_RAW)
        )
        events = sorted(found["items"], key=lambda event: event.get("lastTimestamp") or "")
        return [f"{event.get('reason')}: {event.get('message')}" for event in events]

    def log(self, pod: str, container: str, follow: bool, since_s: int | None) -> Iterator[bytes]:
        """A container's log in pieces, each line with its time before it; ConnectionLostError where it breaks off."""
        import urllib3

        asked = {"container": container, "follow": follow, "timestamps": True, "_preload_content": False}
        since = {} if since_s is None else {"since_seconds": since_s}
        silence = (_TIMEOUT_S[0], _SILENCE_S)
        answer = self._asked(
            lambda kube: kube.core.read_namespaced_pod_log(
                pod, self.namespace, **asked, **since, _request_timeout=silence
            ),
            read=lambda answer: answer,
        )
        try:
            yield from answer.stream(1 << 16)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionLostError(f"The log of {pod} broke off: {error}") from error
        finally:
            answer.close()

    def through(self, service: str, port: int, path: str, headers: dict[str, str]) -> Any:
        """What a service answers at a path, by way of the API."""
        return self._asked(
            lambda kube: kube.core.connect_get_namespaced_service_proxy_with_path(
                f"{service}:{port}", self.namespace, path, _headers=headers, **_RAW
            )
        )

    def secret(self, name: str) -> dict[str, str]:
        """A Secret's entries, in base64."""
        found = self._asked(lambda kube: kube.core.read_namespaced_secret(name, self.namespace, **_RAW))
        return found.get("data") or {}

    def version(self) -> str:
        """Of the cluster's Kubernetes."""
        return str(self._asked(lambda kube: kube.version.get_code(**_RAW))["gitVersion"])

    def serves_rayjobs(self) -> bool:
        """Whether KubeRay's definition of RayJobs is there."""
        found = self._found(lambda kube: kube.custom.get_api_resources(_GROUP, _VERSION, **_RAW), True)
        return any(one.get("name") == _PLURAL for one in (found or {}).get("resources", []))

    def may(self, verb: str, resource: str, group: str = "") -> bool:
        """Whether this account may do that in the namespace."""
        plural, _, part = resource.partition("/")
        about = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": part,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": about},
        }
        found = self._asked(lambda kube: kube.authorization.create_self_subject_access_review(review, **_RAW))
        return bool(found["status"]["allowed"])

    @property
    def _of_rayjobs(self) -> tuple[str, str, str, str]:
        return _GROUP, _VERSION, self.namespace, _PLURAL

    def _found(self, ask: Callable[["_Kube"], Any], or_no_kind: bool = False) -> dict[str, Any] | None:
        """What is there; None if it isn't, or with `or_no_kind` nothing of its kind is known."""
        try:
            found: dict[str, Any] = self._asked(ask)
            return found
        except ApiError as error:
            if error.status == 404 and (error.reason == "NotFound" or or_no_kind):
                return None
            raise

    def _deleted(self, ask: Callable[["_Kube"], Any]) -> None:
        try:
            self._asked(ask)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def _asked(
        self, ask: Callable[["_Kube"], Any], read: Callable[[Any], Any] = lambda _: json.loads(_.data)
    ) -> Any:
        """What the API answers; what passes is asked again, with its Retry-After or longer and longer pauses."""
        import urllib3

        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: (
                    isinstance(error, ConnectionLostError) or (isinstance(error, ApiError) and error.passes)
                )
            ),
            wait=_pause,
            stop=tenacity.stop_before_delay(self.patience_s),
            reraise=True,
        ):
            with attempt:
                kube = _connected(self.context, _kubeconfig())
                try:
                    return read(ask(kube))
                except kube.refusal as error:
                    raise self._refused(error) from error
                except ValueError as error:
                    raise ClusterError(
                        f"{_place(self.context)} answered what is no JSON ({error}). Is that a Kubernetes API, and "
                        "nothing between that answers for it?"
                    ) from error
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise ConnectionLostError(
                        f"{_place(self.context)} does not answer ({type(error).__name__}). Check that it runs and "
                        f"can be reached from here: kubectl{_flag(self.context)} version."
                    ) from error
        raise AssertionError("tenacity returns or raises")

    def _refused(self, error: Any) -> ApiError:
        """What an answer that isn't 2xx means, and what to do."""
        place, status = _place(self.context), int(error.status or 0)
        try:
            said = json.loads(error.body or "")
        except ValueError:
            said = None
        said = said if isinstance(said, dict) else {}  # of a service behind the API, it may be anything
        reason, message = said.get("reason") or "", (said.get("message") or error.reason or "").rstrip(".")
        if status == 0:  # the client's own, of TLS
            text = f"{place} can't be trusted: {message}. Check the certificates in its kubeconfig."
        elif status == 401:
            _connected.cache_clear()  # what it was logged in with may have been renewed meanwhile
            text = (
                f"{place} does not know who asks (401). Log in again, as for kubectl; "
                f"kubectl{_flag(self.context)} auth whoami says who you are."
            )
        elif status == 403:
            text = (
                f"{place} refuses it (403): {message}. Ask for the Role that the README lists, On Kubernetes, in "
                f"namespace {self.namespace}; perceive doctor --target kuberay says what of it is missing."
            )
        elif status == 404 and not reason:
            text = f"{place} serves no RayJobs (ray.io/v1). Install KubeRay's operator, or choose another context."
        elif status == 404 and (said.get("details") or {}).get("kind") == "namespaces":
            reason = "NoNamespace"
            text = f"{place} has no namespace {self.namespace}. Choose another with --namespace, or have it made."
        elif status in _PASSING:
            text = f"{place} answered {status} for {self.patience_s:g} s ({message}). Try again later."
        else:
            text = f"{place} refuses it ({status}): {message}."
        return ApiError(text, status, reason, _after(error.headers))


@dataclass(frozen=True)
class _Kube:
    """The official client's parts."""

    core: Any
    custom: Any
    version: Any
    authorization: Any
    refusal: type[Exception]


@lru_cache(maxsize=8)  # its logins may be programs that take seconds
def _connected(context: str, kubeconfig: str) -> _Kube:
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise ClusterError(_MISSING) from error

    configuration = client.Configuration()
    try:
        if context == IN_CLUSTER:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(kubeconfig, context, client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError) as error:
        raise ClusterError(
            f"The context {context} can't be used: {str(error).rstrip('.')}. kubectl config get-contexts lists those "
            f"of {kubeconfig}."
        ) from error
    configuration.safe_chars_for_path_param = "/"  # in what is asked of a service
    configuration.retries = False  # urllib3's own, which know no patience: see Api._asked
    api = client.ApiClient(configuration)
    return _Kube(
        client.CoreV1Api(api),
        client.CustomObjectsApi(api),
        client.VersionApi(api),
        client.AuthorizationV1Api(api),
        client.ApiException,
    )


def here(context: str = "") -> tuple[str, str]:
    """The context and the namespace that kubectl would use, of a context or by default. ClusterError without any."""
    try:
        from kubernetes import config
    except ImportError as error:
        raise ClusterError(_MISSING) from error

    kubeconfig = _kubeconfig()
    try:
        known, active = config.list_kube_config_contexts(kubeconfig)
        if context:
            active = next((one for one in known if one["name"] == context), None)
        if active:
            return active["name"], active["context"].get("namespace") or "default"
        names = ", ".join(one["name"] for one in known)
        raise ClusterError(
            f"{kubeconfig} has no {f'context {context}' if context else 'current context'}. It has: {names or 'none'}."
        )
    except (config.ConfigException, OSError, TypeError, KeyError) as error:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            own = _OWN_NAMESPACE
            return IN_CLUSTER, own.read_text().strip() if own.exists() else "default"
        raise ClusterError(
            f"There is no cluster to go to: {str(error).rstrip('.')}. Set KUBECONFIG to a kubeconfig with a current "
            "context, or name one with --context."
        ) from error


def _kubeconfig() -> str:
    # The client reads the variable when it is imported, which may be before it is set.
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    wanted = error.after_s if isinstance(error, ApiError) else None
    return max(wanted or 0.0, _BACKOFF(state))


def _after(headers: Any) -> float | None:
    try:
        return float(headers["Retry-After"])
    except (KeyError, TypeError, ValueError):
        return None


def _place(context: str) -> str:
    return "This pod's cluster" if context == IN_CLUSTER else f"The cluster of context {context}"


def _flag(context: str) -> str:
    return "" if context == IN_CLUSTER else f" --context {context}"
