"""A proxy on 127.0.0.1 that passes requests on, but for those that its script spoils."""

import http.client
import re
import socket
import struct
import sys
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
_CONFLICT = (
    b'<?xml version="1.0"?><Error><Code>ConditionalRequestConflict</Code><Message>At once</Message></Error>'
)
_HOPS = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


@dataclass
class Fault:
    """What becomes of the first `times` requests that match, as "METHOD path range"."""

    kind: Literal[
        "slow down", "reset", "cut", "short", "slow",
        "reply lost",  # done, but who asked can't know it
        "unconditional",  # done without its condition, as some stores do
        "conflict",  # two at once: refused, for now
        "unnamed",  # refused, without saying by which condition
        "corrupt",  # answered with other bytes
    ]  # fmt: skip
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
        self.down_until = 0.0

    def outage(self, seconds: float) -> None:
        """From now on, every request is reset or refused in turn, for so long."""
        self.down_until = time.monotonic() + seconds

    def fault(self, request: str) -> str | None:
        """The kind of fault that is this request's lot."""
        with self.lock:
            self.asked.append(request)
            if time.monotonic() < self.down_until:
                return "reset" if len(self.asked) % 2 else "slow down"
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

    with listening(Handler) as address:
        yield proxy, f"http://{address}"


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The "host:port" of a server, while the block runs."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # gcsfs hangs up on what it needs no more
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    script: Proxy

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        kind = self.script.fault(f"{self.command} {self.path} {self.headers.get('Range', '')}")
        if kind == "reset":
            return self._reset()
        if kind == "slow down":
            return self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        if kind == "conflict":
            return self._answer(409, [("Content-Type", "application/xml")], _CONFLICT)
        if kind == "reply lost":
            self._passed_on(sent, kind)
            return self._reset()
        return self._spoilt(kind, *self._passed_on(sent, kind))

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _passed_on(self, sent: bytes, kind: str | None) -> tuple[http.client.HTTPResponse, bytes]:
        path, asked = self.path, dict(self.headers)
        if kind == "unconditional":
            path = path.replace("ifGenerationMatch=0", "nothing=0")
            asked = {name: value for name, value in asked.items() if name.lower() != "if-none-match"}
        upstream = http.client.HTTPConnection(self.script.upstream, timeout=30)
        try:
            upstream.request(self.command, path, sent or None, asked)
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        return answer, body

    def _spoilt(self, kind: str | None, answer: http.client.HTTPResponse, body: bytes) -> None:
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOPS]
        if kind == "corrupt":
            body = bytes(byte ^ 1 for byte in body)
        if kind == "unnamed":
            body = re.sub(rb"<Condition>.*?</Condition>", b"", body)
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
