"""An Azure Blob Storage on 127.0.0.1, as far as adlfs asks, behind the proxy: its emulators are no Python packages."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.faults.proxy import listening, serve
from tests.faults.store import Store

_PAGE = 7  # a store may answer with fewer than it was asked for
_CONTAINER = "/account/bucket"


@contextmanager
def azure() -> Iterator[Store]:
    """A store with an empty container called bucket, while the block runs."""

    class Handler(_Handler):
        held = _Held()

    with listening(Handler) as upstream, serve(upstream) as (proxy, url):
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey=a2V5;BlobEndpoint={url}/account"
        )
        yield Store(proxy, {"AZURE_STORAGE_CONNECTION_STRING": connection}, f"http://{upstream}")


@dataclass
class _Held:
    """What the store holds: blobs and their headers, and each blob's blocks that are staged."""

    blobs: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    staged: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    held: _Held

    def do_GET(self) -> None:
        path, query = self._asked()
        if not path.startswith(_CONTAINER):
            return self._refuse(404, "ContainerNotFound")
        if query.get("restype") == "container":
            return self._list(query) if query.get("comp") == "list" else self._answer(200, b"")
        found = self.held.blobs.get(path.removeprefix(f"{_CONTAINER}/"))
        if found is None:
            return self._refuse(404, "BlobNotFound")
        data, headers = found
        asked = self.headers.get("x-ms-range") or self.headers.get("Range") or ""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if not span or self.command == "HEAD":
            return self._answer(200, data, headers)
        start, end = int(span[1]), min(len(data), int(span[2] or len(data)) + 1)
        if start >= len(data):
            return self._refuse(416, "InvalidRange")
        ranged = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        return self._answer(206, data[start:end], headers | ranged)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        path, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not path.startswith(f"{_CONTAINER}/"):
            return self._refuse(404, "ContainerNotFound")
        name = path.removeprefix(f"{_CONTAINER}/")
        with self.held.lock:
            staged = self.held.staged.setdefault(name, {})
            if query.get("comp") == "block":
                staged[query["blockid"]] = body
                return self._answer(201, b"")
            if self.headers.get("If-None-Match") == "*" and name in self.held.blobs:
                return self._refuse(409, "BlobAlreadyExists")
            if query.get("comp") == "blocklist":
                ids = re.findall(r"<Latest>(.*?)</Latest>", body.decode())
                if not staged.keys() >= set(ids):
                    return self._refuse(400, "InvalidBlockList")
                body = b"".join(staged[one] for one in ids)
            self.held.staged.pop(name)  # other writers' blocks, too
            headers = {
                name: value for name, value in self.headers.items() if name.lower().startswith("x-ms-meta-")
            }
            headers |= {"ETag": f'"{uuid.uuid4().hex}"', "Last-Modified": formatdate(usegmt=True)}
            headers |= {"x-ms-blob-type": "BlockBlob"}
            self.held.blobs[name] = (body, headers)
        return self._answer(201, b"", headers)

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        with self.held.lock:
            found = self.held.blobs.pop(path.removeprefix(f"{_CONTAINER}/"), None)
        self._refuse(404, "BlobNotFound") if found is None else self._answer(202, b"")

    def _list(self, query: dict[str, str]) -> None:
        names = sorted(name for name in self.held.blobs if name.startswith(query.get("prefix", "")))
        names = [name for name in names if name >= query.get("marker", "")]
        blobs = "".join(map(self._listed, names[:_PAGE]))
        more = escape(names[_PAGE]) if names[_PAGE:] else ""
        prefix = f"<Prefix>{escape(query.get('prefix', ''))}</Prefix>"  # the next page is asked for by it
        text = f"{prefix}<Blobs>{blobs}</Blobs><NextMarker>{more}</NextMarker>"
        self._xml(200, f'<EnumerationResults ContainerName="bucket">{text}</EnumerationResults>')

    def _listed(self, name: str) -> str:
        data, headers = self.held.blobs[name]
        properties = (
            f"<Last-Modified>{headers['Last-Modified']}</Last-Modified><Etag>{headers['ETag']}</Etag>"
        )
        properties += f"<Content-Length>{len(data)}</Content-Length><BlobType>BlockBlob</BlobType>"
        own = {
            key.lower().removeprefix("x-ms-meta-"): value for key, value in headers.items() if "-meta-" in key
        }
        metadata = "".join(f"<{key}>{value}</{key}>" for key, value in own.items())
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties>{properties}</Properties>"
            f"<Metadata>{metadata}</Metadata></Blob>"
        )

    def _asked(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        return unquote(url.path), {name: values[0] for name, values in parse_qs(url.query).items()}

    def _refuse(self, status: int, code: str) -> None:
        self._xml(
            status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", {"x-ms-error-code": code}
        )

    def _xml(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        body = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
        self._answer(status, body, {**(headers or {}), "Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return
