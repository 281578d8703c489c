"""A Kubernetes API by the official client: asked again where that may help, and what it refuses said plainly."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from cluster.errors import ClusterError, ConnectionLostError

_T = TypeVar("_T")
IN_CLUSTER = "in-cluster"  #: the context of a process that runs in the cluster itself
_GROUP, _VERSION, _PLURAL = "ray.io", "v1", "rayjobs"
_TIMEOUT_S = (5.0, 30.0)  # to connect, and for an answer
_SILENCE_S = 60.0  # of a log that is followed: then its connection may be dead without a word
_PASSING = (408, 429, 500, 502, 503, 504)
_MISSING = "Kubernetes needs its client: pip install 'perceiver-batch[kube]'."
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ApiError(ClusterError):
    """What the API answered instead of what was asked for."""

    def __init__(
        self, message: str, status: int = 0, reason: str = "", after_s: float | None = None
    ) -> None:
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

    def rayjob(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._asked(
                lambda kube: kube.custom.get_namespaced_custom_object(
                    _GROUP, _VERSION, self.namespace, _PLURAL, name, _request_timeout=_TIMEOUT_S
                )
            )
            return found
        except ApiError as error:
            if error.status == 404 and error.reason == "NotFound":
                return None
            raise

    def create(self, manifest: dict[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Create a ConfigMap or a RayJob; with `dry_run` all is checked, and nothing kept."""
        kept = {"dry_run": "All"} if dry_run else {}
        if manifest["kind"] == "ConfigMap":
            return self._asked(
                lambda kube: kube.plain(
                    kube.core.create_namespaced_config_map(
                        self.namespace, manifest, _request_timeout=_TIMEOUT_S, **kept
                    )
                )
            )
        return self._asked(
            lambda kube: kube.custom.create_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, _PLURAL, manifest,
                field_validation="Strict", _request_timeout=_TIMEOUT_S, **kept,
            )
        )  # fmt: skip

    def delete(self, name: str, uid: str) -> None:
        """Delete a RayJob, if it is still the one of that uid; what it owns goes with it."""
        self._asked(
            lambda kube: kube.custom.delete_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, _PLURAL, name,
                body={"propagationPolicy": "Background", "preconditions": {"uid": uid}}, _request_timeout=_TIMEOUT_S,
            )
        )  # fmt: skip

    def config_map(self, name: str) -> dict[str, Any] | None:
        try:
            return self._asked(
                lambda kube: kube.plain(
                    kube.core.read_namespaced_config_map(name, self.namespace, _request_timeout=_TIMEOUT_S)
                )
            )
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def delete_config_map(self, name: str, uid: str) -> None:
        """Delete a ConfigMap, if it is still the one of that uid."""
        self._asked(
            lambda kube: kube.core.delete_namespaced_config_map(
                name, self.namespace, body={"preconditions": {"uid": uid}}, _request_timeout=_TIMEOUT_S
            )
        )

    def pods(self, labels: str) -> list[dict[str, Any]]:
        """The pods with these labels (name=value,...), the newest last."""
        found = self._asked(
            lambda kube: kube.plain(
                kube.core.list_namespaced_pod(
                    self.namespace, label_selector=labels, _request_timeout=_TIMEOUT_S
                )
            )
        )
        return sorted(found.get("items", []), key=lambda pod: pod["metadata"].get("creationTimestamp") or "")

    def warnings(self, name: str) -> list[str]:
        """What the cluster warned of an object, the newest last."""
        found = self._asked(
            lambda kube: kube.plain(
                kube.core.list_namespaced_event(
                    self.namespace, field_selector=f"involvedObject.name={name},type=Warning",
                    _request_timeout=_TIMEOUT_S,
                )
            )
        )  # fmt: skip
        events = sorted(found.get("items", []), key=lambda event: event.get("lastTimestamp") or "")
        return [f"{event.get('reason')}: {event.get('message')}" for event in events]

    def log(self, pod: str, container: str, follow: bool, since_s: int | None) -> Iterator[bytes]:
        """A container's log in pieces, each line with its time before it; ConnectionLostError where it breaks off."""
        since = {} if since_s is None else {"since_seconds": since_s}
        answer = self._asked(
            lambda kube: kube.core.read_namespaced_pod_log(
                pod, self.namespace, container=container, follow=follow, timestamps=True, _preload_content=False,
                _request_timeout=(_TIMEOUT_S[0], _SILENCE_S), **since,
            )
        )  # fmt: skip
        import urllib3

        try:
            yield from answer.stream(1 << 16)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionLostError(f"The log of {pod} broke off: {error}") from error
        finally:
            answer.close()

    def through(self, service: str, port: int, path: str, headers: dict[str, str]) -> bytes:
        """What a service answers at a path, by way of the API."""
        return self._asked(
            lambda kube: kube.core.connect_get_namespaced_service_proxy_with_path(
                f"{service}:{port}", self.namespace, path,
                _headers=headers, _preload_content=False, _request_timeout=_TIMEOUT_S,
            ).data
        )  # fmt: skip

    def secret(self, name: str) -> dict[str, str]:
        """A Secret's entries, in base64."""
        return self._asked(
            lambda kube: (
                kube.core.read_namespaced_secret(name, self.namespace, _request_timeout=_TIMEOUT_S).data or {}
            )
        )

    def version(self) -> str:
        """Of the cluster's Kubernetes."""
        return self._asked(lambda kube: str(kube.version.get_code(_request_timeout=_TIMEOUT_S).git_version))

    def serves_rayjobs(self) -> bool:
        """Whether KubeRay's definition of RayJobs is there."""
        try:
            found = self._asked(
                lambda kube: kube.plain(
                    kube.custom.get_api_resources(_GROUP, _VERSION, _request_timeout=_TIMEOUT_S)
                )
            )
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return any(one.get("name") == _PLURAL for one in found.get("resources", []))

    def may(self, verb: str, resource: str, group: str = "") -> bool:
        """Whether this account may do that in the namespace."""
        plural, _, part = resource.partition("/")
        attributes = {
            "namespace": self.namespace, "verb": verb, "group": group, "resource": plural, "subresource": part,
        }  # fmt: skip
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        found = self._asked(
            lambda kube: kube.authorization.create_self_subject_access_review(
                review, _request_timeout=_TIMEOUT_S
            )
        )
        return bool(found.status.allowed)

    def _asked(self, ask: Callable[["_Kube"], _T]) -> _T:
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
                    return ask(kube)
                except kube.refusal as error:
                    raise self._refused(error) from error
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise ConnectionLostError(
                        f"{_place(self.context)} does not answer ({type(error).__name__}). Check that it runs and can be "
                        f"reached from here: kubectl{_flag(self.context)} version."
                    ) from error
        raise AssertionError("tenacity returns or raises")

    def _refused(self, error: Any) -> ApiError:
        """What an answer that isn't 2xx means, and what to do."""
        place, status = _place(self.context), int(error.status or 0)
        try:
            said = json.loads(error.body or "")
        except ValueError:
            said = {}
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
                f"{place} refuses it (403): {message}. Ask for the Role that the README lists under Kubernetes, in "
                f"namespace {self.namespace}; perceive doctor --target kuberay says what of it is missing."
            )
        elif status == 404 and not reason:
            text = (
                f"{place} serves no RayJobs (ray.io/v1). Install KubeRay's operator there, or choose another context."
            )
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
    plain: Callable[[Any], Any]  #: an answer as the JSON that it came as


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
        api.sanitize_for_serialization,
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
    return max(wanted or 0.0, tenacity.wait_exponential_jitter(initial=0.2, max=10.0, jitter=0.3)(state))


def _after(headers: Any) -> float | None:
    try:
        return float((headers or {}).get("Retry-After"))
    except (TypeError, ValueError):
        return None


def _place(context: str) -> str:
    return "This pod's cluster" if context == IN_CLUSTER else f"The cluster of context {context}"


def _flag(context: str) -> str:
    return "" if context == IN_CLUSTER else f" --context {context}"
