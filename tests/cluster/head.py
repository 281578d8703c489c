"""A real Ray head on 127.0.0.1, with its job API and a token, in a process tree of its own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.command import kill_tree

_RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class Head:
    """A head node; `start` again after `kill` is another cluster at the same address."""

    cpus: int = 4
    gpus: int = 0
    token: str = field(default_factory=lambda: os.environ["RAY_AUTH_TOKEN"])  # this process's clients have it
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[str] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What its clients need."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="head", dir="/tmp")
        self.control_store = free_port()
        ports = {
            "port": self.control_store,
            "dashboard-agent-listen-port": free_port(),
            "dashboard-agent-grpc-port": free_port(),
            "metrics-export-port": free_port(),
            "ray-client-server-port": free_port(),
        }
        command = [
            *(_RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={self.port}", f"--temp-dir={self.folder}"),
            *(f"--num-cpus={self.cpus}", f"--num-gpus={self.gpus}", f"--object-store-memory={512 << 20}"),
            *(f"--{name}={port}" for name, port in ports.items()),
        ]
        self.said = Path(self.folder, "said")
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                text=True,
                start_new_session=True,
                env=os.environ
                | self.environment
                | {
                    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                    # An image's python is the one that has what is needed; so is this one.
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                },
            )
        self._wait_until_it_answers()

    def kill(self) -> None:
        """SIGKILL all of it, and whatever runs on it."""
        if self.process is not None:
            kill_tree(self.process)
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 60
        request = urllib.request.Request(  # its own loopback address, and no proxy between
            f"{self.address}/api/v0/nodes", headers={"Authorization": f"Bearer {self.token}"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < deadline, self.said.read_text()
            try:
                with opener.open(request, timeout=5) as answer:
                    if b'"ALIVE"' in answer.read():
                        return
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                pass
            time.sleep(0.2)
