"""What a RayJob's command wrote, as Kubernetes' own API gives it.

In SidecarMode it is the log of the container that hands the command to Ray and follows it, ray-job-submitter in the
head's pod: pods/log. In HTTPMode no container's log has it, only Ray's job API, which is asked through the head's
service: services/proxy, and secrets for Ray's token. Once the cluster is gone there is what KubeRay keeps in the
RayJob's message: the end of the log of a command that failed.
"""

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.errors import ClusterError, ConnectionLostError
from cluster.kuberay.api import Api, ApiError
from cluster.kuberay.states import log_of, sent_of
from cluster.target import ENDED

_AGAIN_S = 1.0
_SUBMITTER = "ray-job-submitter"
_DASHBOARD = 8265
_PATIENCE_S = 5.0  # with a head that may be gone
_NOT_THERE = (404, 500, 502, 503, 504)  # the service, its token, its head or the job: not yet, or no more


def written(api: Api, id: str, rayjob: dict[str, Any], follow: bool) -> Iterator[str]:
    """The log, as it comes with `follow`, until the RayJob ends or is gone. A cluster that takes over begins anew."""
    name, of_pods, of_ray, told = rayjob["metadata"]["name"], _PodLog(), _RayLog(), False
    while True:
        ended = (
            sent_of(id, rayjob).state in ENDED
        )  # as it was before the read: what it wrote until then is read
        mode = rayjob["spec"].get("submissionMode")
        new = (
            of_ray.new(api, id, rayjob)
            if mode == "HTTPMode"
            else of_pods.new(api, rayjob, follow and not ended)
        )
        for text in new:
            told = True
            yield text
        if ended and not told:
            yield _kept(id, rayjob)
        if ended or not follow:
            return
        time.sleep(_AGAIN_S)
        again = api.rayjob(name)
        if again is None:
            return
        rayjob = again


def _kept(id: str, rayjob: dict[str, Any]) -> str:
    """What there is of a log without a cluster."""
    end = log_of(rayjob)
    if not end:
        raise ClusterError(
            f"The cluster of {id} is gone, and its log with it; perceive logs --events says what happened to its run. "
            "kubernetes.ttl_seconds_after_finished is how long it stays."
        )
    return f"{end.rstrip()}\n"


@dataclass
class _PodLog:
    """The log of the container that follows the command."""

    pod: str = ""
    last: str = ""  # the time of the last line that was told, all of one width;
    same: int = 0  # how many of that time were told,
    seen: int = 0  # and how many came by in this read
    heard: float = field(default_factory=time.monotonic)

    def new(self, api: Api, rayjob: dict[str, Any], follow: bool) -> Iterator[str]:
        """Lines that were not told yet; where a connection breaks off, the rest is for the next time."""
        pod = self._speaker(api, rayjob)
        if pod is None:
            return
        if pod != self.pod:
            self.pod, self.last, self.same = pod, "", 0
        since = int(time.monotonic() - self.heard) + 10 if self.last else None
        self.seen = 0
        rest = b""
        try:
            for piece in api.log(pod, _SUBMITTER, follow, since):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield from self._once(line, "\n")
            if rest:
                yield from self._once(rest, "")
        except ConnectionLostError:
            return
        except ApiError as error:
            if error.status not in (400, 404):  # not started yet; gone
                raise

    def _once(self, line: bytes, end: str) -> Iterator[str]:
        """A line without its time, unless it was told before."""
        at, _, text = line.decode(errors="replace").partition(" ")
        if at < self.last:
            return
        self.seen = self.seen + 1 if at == self.last else 1
        if at == self.last and self.seen <= self.same:
            return
        self.last, self.same, self.heard = at, self.seen, time.monotonic()
        yield text + end

    def _speaker(self, api: Api, rayjob: dict[str, Any]) -> str | None:
        cluster = (rayjob.get("status") or {}).get("rayClusterName")
        pods = api.pods(f"ray.io/cluster={cluster},ray.io/node-type=head") if cluster else []
        return pods[-1]["metadata"]["name"] if pods else None


@dataclass
class _RayLog:
    """The log that Ray's job API has."""

    cluster: str = ""
    told: int = 0

    def new(self, api: Api, id: str, rayjob: dict[str, Any]) -> Iterator[str]:
        status = rayjob.get("status") or {}
        cluster, head = status.get("rayClusterName"), (status.get("rayClusterStatus") or {}).get("head") or {}
        service = head.get("serviceName")
        if not cluster or not service:
            return
        if cluster != self.cluster:
            self.cluster, self.told = cluster, 0
        path = f"api/jobs/{status.get('jobId') or id}/logs"
        try:
            answer = replace(api, patience_s=_PATIENCE_S).through(
                service, _DASHBOARD, path, self._token(api, rayjob)
            )
        except ConnectionLostError:
            return
        except ApiError as error:
            if error.status not in _NOT_THERE:
                raise
            return
        text = answer["logs"]
        if new := text[self.told :]:
            self.told = len(text)
            yield new

    def _token(self, api: Api, rayjob: dict[str, Any]) -> dict[str, str]:
        auth = rayjob["spec"].get("rayClusterSpec", {}).get("authOptions") or {}
        if auth.get("mode") != "token":
            return {}
        secret = api.secret(auth.get("secretName") or self.cluster)
        token = base64.b64decode(secret.get("auth_token", "")).decode().strip()
        # Not Authorization: that is for the API server, which keeps it.
        return {"X-Ray-Authorization": f"Bearer {token}"}
