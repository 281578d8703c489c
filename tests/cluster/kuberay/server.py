"""A Kubernetes API server in this process, on 127.0.0.1, for the official client; it fails where it is asked to.

It serves what a client of RayJobs asks for: what objects.py holds, watches of it, and logs.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.cluster.kuberay.objects import KINDS, Log, Object, Objects, Refusal

_PATH = re.compile(
    r"/(?:api/v1|apis/ray\.io/v1)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<part>.+))?"
)


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


@dataclass
class Server(Objects):
    """The server; `with` runs it."""

    token: str = "planted-token-of-the-api"
    faults: list[Fault] = field(default_factory=list)
    forbidden: set[tuple[str, str]] = field(
        default_factory=set
    )  #: verbs and resources, such as create rayjobs
    serves_rayjobs: bool = True
    requests: list[str] = field(default_factory=list)
    proxied: Callable[[str, str, Any], tuple[int, bytes]] = lambda service, path, headers: (
        503,
        b"no endpoints",
    )

    def __enter__(self) -> "Server":
        server = self
        self.closing = False

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


def _event(kind: str, thing: Object) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
