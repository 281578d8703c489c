"""Kubernetes, by the KubeRay operator. A submission is a RayJob, which owns the ConfigMap with what its command reads.

An id is unique by the RayJob's name. That is created first, so whatever else there is has an owner from its first
moment, and is collected with it: a client that is killed in between leaves nothing behind but a RayJob whose head
waits for its files, until the same submission brings them or its deadline passes.
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cluster.errors import ClusterError
from cluster.kuberay import api, logs, render, states
from cluster.kuberay.api import Api, ApiError
from cluster.kuberay.settings import Kubernetes
from cluster.local import Node
from cluster.target import ENDED, Sent, Submission

_SENT_BY = "perceiver-batch/sent-by"  # an annotation: which of all tries made it
_TRIES = 5
_LOOK_S = 10.0
Manifest = dict[str, Any]


@dataclass(frozen=True)
class KubeRayTarget:
    """A namespace of a cluster with KubeRay; who asks is who the kubeconfig's context, or this pod's account, is."""

    context: str  #: of the kubeconfig, or in-cluster
    namespace: str
    settings: Kubernetes | None = (
        None  #: what runs are made of; to look at one, and to end it, none are needed
    )
    patience_s: float = 60.0  #: with an API that throttles, fails or doesn't answer

    @property
    def name(self) -> str:
        return f"kuberay {self.namespace}@{self.context}"

    @property
    def api(self) -> Api:
        return Api(self.context, self.namespace, self.patience_s)

    def nodes(self) -> tuple[Node, ...]:
        return render.nodes(self._needed())

    def manifests(self, submission: Submission) -> list[Manifest]:
        """What a submission comes to: its ConfigMap and its RayJob. ClusterError of all that the operator refuses."""
        if submission.packages:
            raise ClusterError(
                "No code goes along to Kubernetes, where a run's files may have 1 MB: the image has its "
                "perceiver-batch."
            )
        return render.manifests(self._needed().model_copy(update={"namespace": self.namespace}), submission)

    def rehearse(self, manifests: Iterable[Manifest]) -> None:
        """Have the API check them as if they were to be created (dryRun=All)."""
        for manifest in manifests:
            try:
                self.api.create(manifest, dry_run=True)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise

    def submit(self, submission: Submission) -> bool:
        config_map, rayjob = self.manifests(submission)
        self.rehearse((config_map, rayjob))
        mine = uuid.uuid4().hex
        rayjob["metadata"].setdefault("annotations", {})[_SENT_BY] = mine
        try:
            there = self.api.create(rayjob)
        except ClusterError as error:
            if isinstance(error, ApiError) and not (error.passes or error.reason == "AlreadyExists"):
                raise
            # Another's, or this one's whose answer was lost.
            found = self.api.rayjob(rayjob["metadata"]["name"])
            if found is None:
                raise
            there = found
        if states.sent_of(submission.id, there).state not in ENDED:
            self._bring(config_map, there)
        return (there["metadata"].get("annotations") or {}).get(_SENT_BY) == mine

    def look(self, id: str) -> Sent | None:
        # Somebody waits for it, and may look again.
        hasty = replace(self, patience_s=min(self.patience_s, _LOOK_S))
        rayjob = hasty._rayjob(id)
        return states.sent_of(id, rayjob, hasty._why) if rayjob else None

    def logs(self, id: str, follow: bool = False) -> Iterator[str]:
        rayjob = self._rayjob(id)
        if rayjob is None:
            raise ClusterError(
                f"There is no submission {id} in namespace {self.namespace} of {self.context}, so no log of it: it was "
                "stopped, or it ended so long ago that it was collected."
            )
        yield from logs.written(self.api, id, rayjob, follow)

    def stop(self, id: str) -> None:
        """Delete its RayJob; KubeRay stops the command first, as Ctrl-C does. Suspended, it would stay for ever."""
        rayjob = self._rayjob(id)
        if rayjob is None or states.sent_of(id, rayjob).state in ENDED:
            return
        self.api.delete_rayjob(rayjob["metadata"]["name"], rayjob["metadata"]["uid"])

    def _rayjob(self, id: str) -> Manifest | None:
        return self.api.rayjob(render.object_name(id))

    def _bring(self, config_map: Manifest, rayjob: Manifest) -> None:
        """See that a RayJob has what its command reads, whoever has made it."""
        about = rayjob["metadata"]
        owner = {
            "apiVersion": rayjob["apiVersion"], "kind": rayjob["kind"], "name": about["name"], "uid": about["uid"],
        }  # fmt: skip
        owned = config_map | {"metadata": config_map["metadata"] | {"ownerReferences": [owner]}}
        for _ in range(_TRIES):
            try:
                self.api.create(owned)
                return
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
            there = self.api.config_map(about["name"])
            if there is None:
                continue
            owners = there["metadata"].get("ownerReferences") or []
            if any(one["uid"] == about["uid"] for one in owners):
                return
            # Of a RayJob of that name before: the cluster may collect it at any moment, also from under this one.
            self.api.delete_config_map(about["name"], there["metadata"]["uid"])
        raise ClusterError(
            f"ConfigMap {about['name']} in namespace {self.namespace} is another's, and comes again whenever it is "
            f"deleted: RayJob {about['name']} waits for its own. Find out who makes it, and submit again."
        )

    def _why(self, rayjob: Manifest) -> str:
        """What keeps a RayJob from beginning."""
        cluster = (rayjob.get("status") or {}).get("rayClusterName")
        try:
            pods = self.api.pods(f"ray.io/cluster={cluster}") if cluster else []
            if pods:
                return states.waits_for(pods, self.api.warnings)
            told = (self.api.warnings(cluster) if cluster else []) or self.api.warnings(
                rayjob["metadata"]["name"]
            )
            return f"{told[-1].rstrip('.')}." if told else ""
        except ApiError as error:
            if error.status != 403:
                raise
            return "Why can't be seen: this account may not list pods and events."

    def _needed(self) -> Kubernetes:
        if self.settings is None:
            raise ClusterError(
                "What a run has in Kubernetes is in its job's kubernetes: section, and there is none. perceive schema "
                "says what belongs there; image is all that must be."
            )
        return self.settings


def target(address: str = "", settings: Kubernetes | None = None) -> KubeRayTarget:
    """The target at an address, "NAMESPACE@CONTEXT"; what it leaves out is as kubectl would have it.

    ClusterError where it leaves something out and there is no kubeconfig.
    """
    namespace, _, context = address.partition("@")
    if not (namespace and context):
        own_context, own_namespace = api.here(context)
        context = context or own_context
        namespace = namespace or (settings and settings.namespace) or own_namespace
    return KubeRayTarget(context, namespace, settings)
