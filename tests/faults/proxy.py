"""A proxy on 127.0.0.1 that passes requests on, but for those that its script spoils."""

import http.client
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Literal

_SLOW_DOWN = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>'
)
_HOPS = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


@dataclass
class Fault:
    """What becomes of the first `times` requests that match, as "METHOD path range"."""

    kind: Literal["slow down", "reset", "cut", "short", "slow"]
    match: str
    times: int = 1
    done: int = 0


class Proxy:
    """The script, and what was asked."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.lock = Lock()

    def fault(self, request: str) -> str | None:
        """The kind of fault that is this request's lot."""
        with self.lock:
            self.asked.append(request)
            for fault in self.faults:
                if fault.done < fault.times and re.search(fault.match, request):
                    fault.done += 1
                    return fault.kind
        return None


@contextmanager
def serve(upstream: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy to "host:port", and its URL, while the block runs."""
    proxy = Proxy(upstream)

    class Handler(_Handler):
        script = proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Proxy

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        kind = self.script.fault(f"{self.command} {self.path} {self.headers.get('Range', '')}")
        if kind == "reset":
            return self._reset()
        if kind == "slow down":
            return self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        upstream = http.client.HTTPConnection(self.script.upstream, timeout=30)
        try:
            upstream.request(self.command, self.path, sent or None, dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOPS]
        length = (
            int(answer.headers.get("Content-Length") or len(body)) if self.command == "HEAD" else len(body)
        )
        if kind == "cut":  # all is promised, half comes
            self._answer(answer.status, headers, body[: len(body) // 2], length)
            return self._reset()
        if kind == "short":  # half is promised, half comes: nothing in HTTP is wrong with it
            return self._answer(answer.status, headers, body[: len(body) // 2])
        if kind == "slow":
            self._answer(answer.status, headers, b"", length)
            for start in range(0, len(body), max(1, len(body) // 8)):
                time.sleep(0.05)
                self.wfile.write(body[start : start + max(1, len(body) // 8)])
            return None
        return self._answer(answer.status, headers, body, length)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _answer(self, status: int, headers: Any, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        return
