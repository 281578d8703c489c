"""A Kubernetes API server in this process, on 127.0.0.1, for the official client; it fails where it is asked to.

It has what a client of RayJobs meets: objects with versions and owners, dry runs, watches, logs, a status of its own
for custom resources, and what the definitions in shared/crds refuse.
"""

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

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
_PATH = re.compile(
    r"/(?:api/v1|apis/ray\.io/v1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>.+))?"
)
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


@dataclass
class Fault:
    """What happens to the next requests of a method and a path instead of, or beside, what should."""

    does: Literal["refuse", "lose", "cut", "wait", "expire"]
    method: str
    path: str  #: found in it
    times: int = 1
    code: int = 500  #: of what is refused
    after_s: float | None = None  #: Retry-After of what is refused
    pieces: int = 1  #: of a stream, before it is cut
    seconds: float = 0.0  #: of waiting


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
class Server:
    """The server; `with` runs it."""

    namespaces: set[str] = field(default_factory=lambda: {"default", "batch"})
    token: str = "planted-token-of-the-api"
    faults: list[Fault] = field(default_factory=list)
    forbidden: set[tuple[str, str]] = field(
        default_factory=set
    )  #: verbs and resources, such as create rayjobs
    serves_rayjobs: bool = True
    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    logs: dict[tuple[str, str], Log] = field(default_factory=dict)  #: by pod and container
    requests: list[str] = field(default_factory=list)
    proxied: Callable[[str, str, Any], tuple[int, bytes]] = lambda service, path, headers: (
        503,
        b"no endpoints",
    )
    #: What happened, for watches: the version, the event's type, the plural, and the object.
    history: list[tuple[int, str, str, Object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 100
        self.oldest = 100  # watches of what was before are too late
        self.closing = False

    def __enter__(self) -> "Server":
        server = self

        class Handler(_Handler):
            api = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        for log in self.logs.values():
            log.end()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def kubeconfig(self, path: Path, namespace: str = "batch", **user: str) -> Path:
        """A kubeconfig with one context, here."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": user or {"token": self.token}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": namespace}}
            ],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    # What the operator and tests do.

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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Server

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), {name: values[-1] for name, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.api.requests.append(f"{self.command} {self.path}")
        fault = self._fault(path)
        try:
            if fault and fault.does == "wait":
                time.sleep(fault.seconds)
            if fault and fault.does == "refuse":
                raise Refusal(fault.code, "on purpose", after_s=fault.after_s)
            answer = self._answer(path, query, body, fault)
        except Refusal as refusal:
            after = {} if refusal.after_s is None else {"Retry-After": f"{refusal.after_s:g}"}
            self._send(refusal.code, json.dumps(refusal.status).encode(), headers=after)
            return
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            return
        if fault and fault.does == "lose":
            self.close_connection = True
            self.connection.close()
        elif isinstance(answer, tuple):
            self._send(*answer)
        elif answer is not None:
            self._send(201 if self.command == "POST" else 200, json.dumps(answer).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _fault(self, path: str) -> Fault | None:
        with self.api.changed:
            for fault in self.api.faults:
                if fault.times > 0 and fault.method == self.command and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def _answer(self, path: str, query: dict[str, str], body: Any, fault: Fault | None) -> Any:
        if self.headers.get("Authorization") != f"Bearer {self.api.token}":
            raise Refusal(401, "Unauthorized")
        if path.rstrip("/") == "/version":
            return {
                "major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "clean",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
            }  # fmt: skip
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            return body | {"status": {"allowed": (asked["verb"], resource) not in self.api.forbidden}}
        if path.startswith("/apis/ray.io") and not self.api.serves_rayjobs:
            return 404, b"404 page not found\n", "text/plain"
        if path.rstrip("/") == "/apis/ray.io/v1":
            resources = [
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["create"]}
                for name, (version, kind) in KINDS.items()
                if version == "ray.io/v1"
            ]
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": "ray.io/v1",
                "resources": resources,
            }
        found = _PATH.fullmatch(path)
        if not found or found["plural"] not in KINDS:
            return 404, b"404 page not found\n", "text/plain"
        return self._of_objects(query, body, fault, **found.groupdict(default=""))

    def _of_objects(  # noqa: PLR0911  # a line for each verb
        self,
        query: dict[str, str],
        body: Any,
        fault: Fault | None,
        namespace: str,
        plural: str,
        name: str,
        part: str,
    ) -> Any:
        api, dry_run = self.api, query.get("dryRun") == "All"
        verbs = {
            "GET": "get" if name else "list",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete",
        }
        resource = "/".join(filter(None, (plural, part.partition("/")[0])))
        if (verbs[self.command], resource) in api.forbidden:
            raise Refusal(
                403, f'{resource} is forbidden: User "me" cannot {verbs[self.command]} resource "{resource}" in API '
                f'group "{KINDS[plural][0].rpartition("/")[0]}" in the namespace "{namespace}"',
            )  # fmt: skip
        if part == "log":
            return self._log(api.get(plural, name, namespace), query, fault)
        if part.startswith("proxy"):
            status, answer = api.proxied(name, part.removeprefix("proxy"), self.headers)
            return status, answer, "application/json"
        match self.command:
            case "GET" if name:
                return api.get(plural, name, namespace)
            case "GET" if query.get("watch") in ("true", "True", "1"):
                return self._watch(plural, namespace, query, fault)
            case "GET":
                with api.changed:
                    items = [one for one in api.list(plural, namespace) if _selected(one, query)]
                    version, kind = KINDS[plural]
                    about = {"resourceVersion": str(api.version)}
                    return {"apiVersion": version, "kind": f"{kind}List", "metadata": about, "items": items}
            case "POST":
                return api.create(plural, namespace, body, dry_run)
            case "PUT":
                return api.replace(plural, name, namespace, body, part, dry_run)
            case "PATCH":
                return api.change(plural, name, namespace, part, dry_run, **body)
            case _:
                return api.delete(plural, name, namespace, body, dry_run)

    def _watch(self, plural: str, namespace: str, query: dict[str, str], fault: Fault | None) -> None:
        self._stream(self._events(plural, namespace, query, fault), fault)

    def _events(
        self, plural: str, namespace: str, query: dict[str, str], fault: Fault | None
    ) -> Iterator[bytes]:
        api = self.api
        since = int(query.get("resourceVersion") or 0)
        deadline = time.monotonic() + float(query.get("timeoutSeconds") or 600)
        with api.changed:
            if (fault and fault.does == "expire") or (since and since < api.oldest):
                yield _event(
                    "ERROR", Refusal(410, f"too old resource version: {since} ({api.oldest})").status
                )
                return
            if not since:
                since = api.version
                yield from (
                    _event("ADDED", one) for one in api.list(plural, namespace) if _selected(one, query)
                )
        while not api.closing and time.monotonic() < deadline:
            with api.changed:
                new = [one for one in api.history if one[0] > since]
                if not new:
                    api.changed.wait(0.1)
                    continue
            since = new[-1][0]
            for _, event, kind, thing in new:
                if kind == plural and thing["metadata"]["namespace"] == namespace and _selected(thing, query):
                    yield _event(event, thing)

    def _log(self, pod: Object, query: dict[str, str], fault: Fault | None) -> None:
        container = query.get("container") or pod["spec"]["containers"][0]["name"]
        log = self.api.logs.get((pod["metadata"]["name"], container))
        if log is None:
            raise Refusal(
                400, f'container "{container}" in pod "{pod["metadata"]["name"]}" is waiting to start'
            )
        self._stream(_lines(log, query), fault, "text/plain")

    def _stream(self, pieces: Iterator[bytes], fault: Fault | None, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for sent, piece in enumerate(pieces):
            if fault and fault.does == "cut" and sent >= fault.pieces:
                half = piece[: len(piece) // 2]  # in the middle of a line
                self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _send(
        self, code: int, body: bytes, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(code)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _lines(log: Log, query: dict[str, str]) -> Iterator[bytes]:
    first = time.time() - float(query["sinceSeconds"]) if "sinceSeconds" in query else 0.0
    told = 0
    while True:
        with log.changed:
            new, ended = log.lines[told:], log.ended
            if not new and not ended and query.get("follow") == "true":
                log.changed.wait(0.1)
                continue
        told += len(new)
        for at, line in new:
            if at >= first:
                yield (f"{_stamp(at)} ".encode() if query.get("timestamps") == "true" else b"") + line + b"\n"
        if ended or query.get("follow") != "true":
            return


def _selected(one: Object, query: dict[str, str]) -> bool:
    labels = one["metadata"].get("labels") or {}
    wanted = [
        pair.replace("==", "=").split("=") for pair in query.get("labelSelector", "").split(",") if pair
    ]
    fields = [
        pair.replace("==", "=").split("=") for pair in query.get("fieldSelector", "").split(",") if pair
    ]
    return all(labels.get(name) == value for name, value in wanted) and all(
        _at(one, name) == value for name, value in fields
    )


def _at(one: Any, path: str) -> Any:
    for name in path.split("."):
        one = (one or {}).get(name)
    return one


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


def _event(kind: str, thing: Object) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
