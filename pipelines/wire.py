"""What a decoder's process and its parent say to each other: frames of a JSON head and raw bytes. No pickle."""

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

_LENGTHS = struct.Struct("<IQ")  # of the head, of the body
_HEAD = 64 << 20  # bytes of a head, at most
_BUFFER = 4 << 20  # bytes that may wait in the socket, if the system allows it


class GoneError(Exception):
    """The other side has closed its end, or died."""


class LateError(Exception):
    """The other side said nothing in time."""


class Channel:
    """One end of a pair of sockets."""

    def __init__(self, end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.end = end

    def send(self, head: Mapping[str, Any], *bodies: Any, seconds: float | None = None) -> None:
        """Send one frame; its body is all the bodies (bytes-like) in a row. Raises GoneError and LateError."""
        text = json.dumps(head).encode()
        views = [memoryview(body) for body in bodies]
        self.end.settimeout(seconds)
        try:
            self.end.sendall(_LENGTHS.pack(len(text), sum(view.nbytes for view in views)) + text)
            for view in views:
                self.end.sendall(view)
        except TimeoutError:
            raise LateError from None
        except OSError as error:
            raise GoneError from error

    def receive(self, most: int, seconds: float | None = None) -> tuple[dict[str, Any], bytearray]:
        """Wait for one frame, of at most so many bytes. Raises GoneError, LateError, and ValueError for nonsense."""
        until = None if seconds is None else time.monotonic() + seconds
        head, body = _LENGTHS.unpack(self._exactly(_LENGTHS.size, until))
        if head > _HEAD or body > most:
            raise ValueError(f"expected a frame of at most {_HEAD} + {most} bytes; got {head} + {body}")
        return json.loads(self._exactly(head, until)), self._exactly(body, until)

    def close(self) -> None:
        self.end.close()

    def _exactly(self, size: int, until: float | None) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            if until is not None:
                self.end.settimeout(max(until - time.monotonic(), 1e-3))
            try:
                got = self.end.recv_into(view)
            except TimeoutError:
                raise LateError from None
            except OSError as error:
                raise GoneError from error
            if not got:
                raise GoneError
            view = view[got:]
        return data
