"""A Google Cloud Storage on 127.0.0.1, as far as gcsfs asks, behind the proxy: no package knows conditional uploads."""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.faults.proxy import listening, serve
from tests.faults.store import Store

_PAGE = 7  # a store may answer with fewer than it was asked for

#: Read when gcsfs is imported: otherwise it asks by gRPC what kind of bucket it is, for a minute where nothing answers.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@contextmanager
def gcs() -> Iterator[Store]:
    """A store with an empty bucket called bucket, while the block runs."""

    class Handler(_Handler):
        held = _Held()

    with listening(Handler) as upstream, serve(upstream) as (proxy, url):
        environment = {
            "STORAGE_EMULATOR_HOST": url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "CLOUDSDK_CONFIG": "/nonexistent",
            "GOOGLE_APPLICATION_CREDENTIALS": "",
            "NO_GCE_CHECK": "true",  # no other traffic
        }
        yield Store(proxy, environment, f"http://{upstream}")


@dataclass
class _Held:
    """What the store holds."""

    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    sessions: dict[str, tuple[str, bool, bytearray]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    held: _Held

    def do_GET(self) -> None:
        path, query = self._asked()
        if path == "/storage/v1/b/bucket/o":
            return self._list(query)
        found = self.held.objects.get(path.partition("/b/bucket/o/")[2])
        if found is None:
            return self._answer(404, b"Not Found")
        data, info = found
        if query.get("alt") != "media":
            return self._json(info)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span:
            return self._answer(200, data)
        start, end = int(span[1]), min(len(data), int(span[2] or len(data)) + 1)
        if start >= len(data):
            return self._answer(416, b"")
        return self._answer(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})

    def do_POST(self) -> None:
        path, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.startswith("/session/"):
            return self._more(path, body)
        if path != "/upload/storage/v1/b/bucket/o":
            return self._answer(404, b"Not Found")
        new = query.get("ifGenerationMatch") == "0"
        if query["uploadType"] == "resumable":
            session = f"/session/{uuid.uuid4().hex}"
            self.held.sessions[session] = (json.loads(body)["name"], new, bytearray())
            return self._answer(200, b"", {"Location": f"http://{self.headers['Host']}{session}?upload_id=1"})
        _, described, content, _ = body.split(b"--==0==", 3)
        name = json.loads(described.split(b"\n\n", 1)[1])["name"]
        return self._store(name, content.split(b"\n\n", 1)[1][:-1], new)

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        held = self.held.objects if "/b/bucket/o/" in path else self.held.sessions
        with self.held.lock:
            found = held.pop(path.partition("/b/bucket/o/")[2] or path, None)
        self._answer(404, b"Not Found") if found is None else self._answer(204, b"")

    def _more(self, session: str, body: bytes) -> None:
        """Another chunk. The condition is looked at when the last one is there: the latest that a store can."""
        if session not in self.held.sessions:
            return self._answer(404, b"Not Found")
        name, new, data = self.held.sessions[session]
        start, size = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", self.headers["Content-Range"]).groups()  # type: ignore[union-attr]
        data[int(start) :] = body
        if len(data) < int(size):
            return self._answer(308, b"", {"Range": f"bytes=0-{len(data) - 1}"})
        del self.held.sessions[session]
        return self._store(name, bytes(data), new)

    def _store(self, name: str, data: bytes, new: bool) -> None:
        with self.held.lock:
            if new and name in self.held.objects:
                return self._answer(412, b'{"error": {"code": 412, "message": "At least one condition"}}')
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
            info = {"kind": "storage#object", "name": name, "size": str(len(data)), "etag": uuid.uuid4().hex}
            info |= {
                "updated": now,
                "timeCreated": now,
                "bucket": "bucket",
                "generation": str(uuid.uuid4().int),
            }
            self.held.objects[name] = (data, info)
        return self._json(info)

    def _list(self, query: dict[str, str]) -> None:
        start = max(query.get("startOffset", ""), query.get("pageToken", ""))
        names = sorted(name for name in self.held.objects if name.startswith(query.get("prefix", "")))
        names = [name for name in names if name >= start]
        page: dict[str, Any] = {"kind": "storage#objects"}
        page["items"] = [self.held.objects[name][1] for name in names[:_PAGE]]
        if names[_PAGE:]:
            page["nextPageToken"] = names[_PAGE]
        self._json(page)

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        return unquote(url.path), {name: values[0] for name, values in parse_qs(url.query).items()}

    def _json(self, data: Any) -> None:
        self._answer(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return
