"""`perceive` in processes of its own, slowed, stopped and killed where a test says."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from tests.e2e.command import PERCEIVE, kill_tree

_INSIDE = Path(__file__).parent / "inside"
_ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Stop:
    """At the n-th passing of a point, by all processes of a role, that process is killed, or stops and waits."""

    role: Literal["driver", "worker"]
    point: str  #: of commit_points.POINTS, or "decode begun", "predict begun"
    nth: int = 1
    how: Literal["kill", "stop"] = "stop"


@dataclass(frozen=True)
class Pace:
    """So many seconds more at every passing of a point: what is slow with real models is slow with tiny ones, too."""

    point: str
    seconds: float


class Attempt:
    """One `perceive` and all that it starts."""

    def __init__(
        self, folder: Path, process: "subprocess.Popen[str]", arguments: Sequence[str | Path]
    ) -> None:
        self.folder, self.process, self.arguments = folder, process, arguments

    @property
    def log(self) -> list[tuple[str, ...]]:
        """What was passed: role, point, process; "shard", point, shard, process; "stopped", "woke" and these."""
        with suppress(FileNotFoundError):
            lines = (self.folder / "log").read_text().splitlines(keepends=True)
            return [tuple(line[:-1].split("\t")) for line in lines if line.endswith("\n")]
        return []

    def passed(self, point: str, role: str | None = None) -> int:
        """How often a point was passed."""
        return sum(
            line[1] == point and line[0] in ([role] if role else ("driver", "worker")) for line in self.log
        )

    def shards(self, point: str) -> list[int]:
        """The shards that passed a point, as they did."""
        return [int(line[2]) for line in self.log if line[:2] == ("shard", point)]

    @property
    def stopped(self) -> list[int]:
        """The processes that stopped, as they did."""
        return [int(line[3]) for line in self.log if line[0] == "stopped"]

    @property
    def killed(self) -> set[str]:
        """The points at which processes killed themselves."""
        return {line[2] for line in self.log if line[0] == "killed"}

    @property
    def said(self) -> str:
        """All that it wrote to stderr."""
        return (self.folder / "stderr").read_text()

    @property
    def printed(self) -> str:
        """All that it wrote to stdout."""
        return (self.folder / "stdout").read_text()

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 120, ends: bool = False) -> None:
        """Wait until the condition holds; fail if the process ends before, unless it may."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            code = None if ends else self.process.poll()
            assert code is None, f"It ended with {code}, and {self.log[-5:]}: {self.said[-2000:]}"
            assert time.monotonic() < deadline, f"Waited too long: {self.log[-5:]}, {self.said[-2000:]}"
            time.sleep(0.02)

    def wait_until_stopped(self, times: int = 1) -> psutil.Process:
        """The process that stopped as the n-th, once it has."""
        self.wait_for(lambda: len(self.stopped) >= times)
        process = psutil.Process(self.stopped[times - 1])
        self.wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
        return process

    def kill(self) -> None:
        """SIGKILL all of it."""
        kill_tree(self.process)

    def freeze(self) -> None:
        """Stop all of it, as a machine that is paused."""
        driver = psutil.Process(self.process.pid)
        driver.suspend()
        for process in driver.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Let all of it go on."""
        driver = psutil.Process(self.process.pid)
        for process in [*driver.children(recursive=True), driver]:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def kill_driver(self) -> None:
        """SIGKILL the process alone that was started."""
        self.process.kill()
        self.process.wait(10)

    def end(self, timeout_s: float = 150) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"It did not end: {self.log[-5:]}, {self.said[-2000:]}") from None

    def named(self, name: str) -> list[psutil.Process]:
        """Its processes of a name, or with a word in their command line or title that contains it."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if process.name() == name or any(f":{name}" in word for word in process.cmdline()):
                    found.append(process)
        return found


class Bench:
    """Where attempts are made: a folder for temporary files of their own, and for what they say."""

    def __init__(self) -> None:
        # Short, for Ray's sockets; and no other run's drafts and logs are in it.
        self.temporary = Path(tempfile.mkdtemp(prefix="pf", dir="/tmp"))
        self.attempts: list[Attempt] = []

    def start(
        self,
        *arguments: str | Path,
        stops: Sequence[Stop] = (),
        paces: Sequence[Pace] = (),
        elsewhere: bool = False,
        **environment: str,
    ) -> Attempt:
        """Start `perceive` under these orders; `elsewhere` is another host, to all that processes know of theirs."""
        before = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"] if elsewhere else []
        temporary = self.temporary / "b" if elsewhere else self.temporary
        temporary.mkdir(exist_ok=True)
        folder = self.temporary / f"said-{len(self.attempts)}"
        folder.mkdir()
        orders = {
            "log": str(folder / "log"),
            "stops": [asdict(stop) for stop in stops],
            "paces": [asdict(pace) for pace in paces],
        }
        (folder / "orders.json").write_text(json.dumps(orders))
        variables = {
            **os.environ,
            "TMPDIR": str(temporary),
            "PYTHONPATH": os.pathsep.join([str(_INSIDE), str(_ROOT)]),
            "PERCEIVE_FAULTS": str(folder / "orders.json"),
            **environment,
        }
        with (folder / "stdout").open("w") as stdout, (folder / "stderr").open("w") as stderr:
            process = subprocess.Popen(
                [*before, PERCEIVE, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                text=True,
                start_new_session=True,
                env=variables,
            )
        self.attempts.append(Attempt(folder, process, arguments))
        return self.attempts[-1]

    def run(self, *arguments: str | Path, **environment: str) -> Attempt:
        """`perceive` to its end, undisturbed."""
        attempt = self.start(*arguments, **environment)
        attempt.end()
        return attempt

    def left(self) -> list[psutil.Process]:
        """All processes of all attempts that are still there, and no other's."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("PERCEIVE_FAULTS", "").startswith(f"{self.temporary}/"):
                    found.append(process)
        return found

    def close(self) -> None:
        """Nothing is left of it."""
        for attempt in self.attempts:
            if attempt.process.poll() is None:
                attempt.kill()
        left = self.left()
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, timeout=10)
        shutil.rmtree(self.temporary, ignore_errors=True)
