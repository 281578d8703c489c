"""What the Kubernetes API of server.py holds: objects with versions and owners, what happened to them, and logs.

Custom resources have a status with a path of its own, and are held to the definitions in shared/crds. A dry run
keeps nothing.
"""

import copy
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.cluster.kuberay import crds

Object = dict[str, Any]
KINDS = {
    "configmaps": ("v1", "ConfigMap"),
    "events": ("v1", "Event"),
    "pods": ("v1", "Pod"),
    "secrets": ("v1", "Secret"),
    "services": ("v1", "Service"),
    "rayclusters": ("ray.io/v1", "RayCluster"),
    "rayjobs": ("ray.io/v1", "RayJob"),
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_CODES = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
    422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable",
}  # fmt: skip


class Refusal(Exception):  # noqa: N818
    """An answer that isn't 2xx."""

    def __init__(self, code: int, message: str, reason: str = "", **details: Any) -> None:
        super().__init__(message)
        self.code, self.after_s = code, details.pop("after_s", None)
        self.status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason or _CODES[code], "code": code, "details": details,
        }  # fmt: skip


class Log:
    """What a container wrote."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, bytes]] = []
        self.ended = False
        self.changed = threading.Condition()

    def write(self, line: str, at: float | None = None) -> None:
        with self.changed:
            self.lines.append((time.time() if at is None else at, line.encode()))
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()


@dataclass
class Objects:
    """All that is there; the operator and tests change it by the same methods as requests do."""

    namespaces: set[str] = field(default_factory=lambda: {"default", "batch"})
    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    logs: dict[tuple[str, str], Log] = field(default_factory=dict)  #: by pod and container
    #: What happened, for watches: the version, the event's type, the plural, and the object.
    history: list[tuple[int, str, str, Object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 100
        self.oldest = 100  # watches of what was before are too late

    def get(self, plural: str, name: str, namespace: str = "batch") -> Object:
        with self.changed:
            found = self.objects.get((plural, namespace, name))
            if found is None:
                raise Refusal(404, f'{plural} "{name}" not found', name=name, kind=plural)
            return copy.deepcopy(found)

    def list(self, plural: str, namespace: str = "batch") -> list[Object]:
        with self.changed:
            return [
                copy.deepcopy(one)
                for (kind, where, _), one in sorted(self.objects.items())
                if kind == plural and where == namespace
            ]

    def create(self, plural: str, namespace: str, given: Object, dry_run: bool = False) -> Object:
        with self.changed:
            made = self._admitted(plural, namespace, given)
            if not dry_run:
                self._keep("ADDED", plural, made)
            return copy.deepcopy(made)

    def change(
        self,
        plural: str,
        name: str,
        namespace: str = "batch",
        part: str = "",
        dry_run: bool = False,
        **patch: Any,
    ) -> Object:
        """A merge patch, of an object or of its status."""
        with self.changed:
            before = self.get(plural, name, namespace)
            wanted = patch.get("metadata", {}).get("resourceVersion")
            return self._replaced(plural, before, merged(before, patch), wanted, part, dry_run)

    def replace(
        self, plural: str, name: str, namespace: str, given: Object, part: str = "", dry_run: bool = False
    ) -> Object:
        with self.changed:
            before = self.get(plural, name, namespace)
            return self._replaced(
                plural, before, given, given["metadata"].get("resourceVersion"), part, dry_run
            )

    def delete(
        self,
        plural: str,
        name: str,
        namespace: str = "batch",
        options: Object | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Delete an object and all that it owns; one with finalizers once those are gone."""
        with self.changed:
            there = self.get(plural, name, namespace)
            uid = ((options or {}).get("preconditions") or {}).get("uid")
            if uid and uid != there["metadata"]["uid"]:
                raise Refusal(
                    409, f"Precondition failed: UID in precondition: {uid}, UID in object meta: other"
                )
            if dry_run:
                return there
            if there["metadata"].get("finalizers"):
                there["metadata"].setdefault("deletionTimestamp", _now())
                self._keep("MODIFIED", plural, there)
                return there
            self._remove(plural, there)
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def expire(self) -> None:
        """Forget what happened: watches that go on from before are too late."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.history.clear()

    def _admitted(self, plural: str, namespace: str, given: Object) -> Object:
        """An object as it would be there, or why it can't be."""
        version, kind = KINDS[plural]
        made = copy.deepcopy(given)
        about = made.setdefault("metadata", {})
        if namespace not in self.namespaces:
            raise Refusal(404, f'namespaces "{namespace}" not found', name=namespace, kind="namespaces")
        if about.setdefault("namespace", namespace) != namespace:
            raise Refusal(
                400, "the namespace of the provided object does not match the namespace sent on the request"
            )
        if (made.get("apiVersion"), made.get("kind")) != (version, kind):
            raise Refusal(400, f"expected {version} {kind}, got {made.get('apiVersion')} {made.get('kind')}")
        if not about.get("name") and about.get("generateName"):
            about["name"] = about["generateName"] + uuid.uuid4().hex[:5]
        name = about.get("name") or ""
        if not _NAME.fullmatch(name):
            raise _invalid(kind, name, [f"metadata.name: {name!r} is not a name"])
        if (plural, namespace, name) in self.objects:
            raise Refusal(409, f'{plural} "{name}" already exists', "AlreadyExists", name=name, kind=plural)
        if version != "v1":
            made.pop("status", None)  # which is for its own path alone
            self._check(kind, made)
        about |= {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": _now(),
            "generation": 1,
            "resourceVersion": "0",
        }
        return made

    def _check(self, kind: str, document: Object, before: Object | None = None) -> None:
        if crds.FOLDER.is_dir() and (causes := crds.problems(kind, document, before)):
            raise _invalid(kind, document["metadata"]["name"], causes)

    def _replaced(
        self, plural: str, before: Object, after: Object, wanted: str | None, part: str, dry_run: bool
    ) -> Object:
        about = before["metadata"]
        if wanted and wanted != about["resourceVersion"]:
            raise Refusal(
                409, f'Operation cannot be fulfilled on {plural} "{about["name"]}": the object has been modified; '
                "please apply your changes to the latest version and try again", name=about["name"], kind=plural,
            )  # fmt: skip
        after = copy.deepcopy(after)
        if part == "status":
            after = before | {"status": after.get("status", {})}
        elif KINDS[plural][0] != "v1":
            after.pop("status", None)
            after |= {"status": before["status"]} if "status" in before else {}
        kept = {name: about[name] for name in ("uid", "creationTimestamp", "name", "namespace")}
        after["metadata"] = after["metadata"] | kept
        if KINDS[plural][0] != "v1":
            self._check(KINDS[plural][1], after, before)
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] = about["generation"] + 1
        if not dry_run:
            self._keep("MODIFIED", plural, after)
            if after["metadata"].get("deletionTimestamp") and not after["metadata"].get("finalizers"):
                self._remove(plural, after)
        return copy.deepcopy(after)

    def _keep(self, event: str, plural: str, made: Object) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        about = made["metadata"]
        if event == "DELETED":
            self.objects.pop((plural, about["namespace"], about["name"]), None)
        else:
            self.objects[plural, about["namespace"], about["name"]] = copy.deepcopy(made)
        self.history.append((self.version, event, plural, copy.deepcopy(made)))
        self.changed.notify_all()

    def _remove(self, plural: str, gone: Object) -> None:
        self._keep("DELETED", plural, gone)
        for (kind, namespace, name), one in list(self.objects.items()):
            owners = one["metadata"].get("ownerReferences") or []
            if owners and all(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                self.delete(kind, name, namespace)


def merged(before: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(before) if isinstance(before, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _invalid(kind: str, name: str, causes: list[str]) -> Refusal:
    told = [
        {"reason": "FieldValueInvalid", "message": cause, "field": cause.partition(":")[0]}
        for cause in causes
    ]
    return Refusal(422, f'{kind} "{name}" is invalid: {"; ".join(causes)}', name=name, kind=kind, causes=told)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
