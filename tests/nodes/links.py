"""A Ray cluster of machines that are namespaces of this one, on a switch whose links can be cut and healed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.nodes.work import Run, Work, clear, perceive_run

_RAY = str(Path(sys.executable).parent / "ray")
#: What finds a lost node soon, and gives up calls to it: on all nodes, and in the run's own process.
PROFILE = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
}


def why_not() -> str:
    """Why there can be no such cluster here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"network namespaces need {program}"
    name = f"pn{os.getpid()}try"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"this kernel lets nobody make network namespaces here: {done.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass
class Machine:
    """Its own network, processes, /tmp/ray and /dev/shm; the disk is everybody's."""

    name: str
    address: str
    process: "subprocess.Popen[str]"
    said: Path

    @property
    def init(self) -> int:
        """Its first process, whose death is the machine's."""
        [child] = psutil.Process(self.process.pid).children()
        return child.pid


@dataclass
class Switch:
    """The machines, the first of which is the head."""

    work: Work
    environment: dict[str, str] = field(default_factory=dict)  #: of every machine and run
    machines: list[Machine] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = f"pn{os.getpid()}"
        _ip("netns", "add", f"{self.name}s")
        self._in_switch("link", "add", "br0", "type", "bridge")
        self._in_switch("link", "set", "br0", "up")
        self._environment = {
            **os.environ,
            **self.work.environment,
            **self.environment,
            # Nothing but these machines is on that network; on it they listen on their own addresses.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def add(self, cpus: int) -> Machine:
        """One more machine, as a node of the cluster."""
        number = len(self.machines)
        name, address = f"{self.name}m{number}", f"10.77.0.{number + 1}"
        _ip("netns", "add", name)
        self._in_switch("link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        self._in_switch("link", "set", f"p{number}", "master", "br0", "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        at = (
            ["--head", "--port=6379", "--include-dashboard=false"]
            if not number
            else ["--address=10.77.0.1:6379"]
        )
        start = [
            *(_RAY, "start", *at, f"--node-ip-address={address}", f"--num-cpus={cpus}", "--block"),
            *(f"--object-store-memory={128 << 20}", "--disable-usage-stats"),
        ]
        mounts = "mkdir -p /tmp/ray && mount -t tmpfs t /tmp/ray && mount -t tmpfs t /dev/shm"
        said = self.work.folder / f"machine-{number}"
        with said.open("w") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, "unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child",
                 "sh", "-c", f'{mounts} && exec "$@"', "sh", *start],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True, start_new_session=True,
                env=self._environment,
            )  # fmt: skip
        self.machines.append(Machine(name, address, process, said))
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in said.read_text():
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        return self.machines[-1]

    def start(self, out: str, **compute: int) -> Run:
        """A run of the job into this output, in a process of the head's machine."""
        inside = ["nsenter", f"--target={self.machines[0].init}", "--mount", "--pid", "--net", "--"]
        command = perceive_run(self.work.job(out, **compute), "10.77.0.1:6379")
        self.runs.append(Run(self.work, [*inside, *command], self._environment))
        return self.runs[-1]

    def cut(self, machine: Machine) -> None:
        """Packets to and from it go nowhere; nobody is told."""
        self._in_switch("link", "set", f"p{self.machines.index(machine)}", "down")

    def heal(self, machine: Machine) -> None:
        self._in_switch("link", "set", f"p{self.machines.index(machine)}", "up")

    def close(self) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()
        for machine in self.machines:
            if machine.process.poll() is None:
                os.kill(machine.init, signal.SIGKILL)
                machine.process.wait(20)
        clear(self.work)
        for name in (*(machine.name for machine in self.machines), f"{self.name}s"):
            _ip("netns", "del", name)

    def _in_switch(self, *arguments: str) -> None:
        _ip("-n", f"{self.name}s", *arguments)
