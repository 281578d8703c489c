"""The local target: a process of this machine that outlives whoever started it.

<folder>/<id>/            made by whoever is first; that is what an id is unique by
<folder>/<id>/process     the supervisor's number, and when it started
<folder>/<id>/log         stdout and stderr
<folder>/<id>/exit_code   written last
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.command import run_to_end
from cluster.errors import ClusterError
from cluster.local import Node, cores, gpu_type
from cluster.target import DONE, ENDED, Sent, Submission

_STARTING_S = 30.0  # from the folder to the process: then whoever made it was killed in between


@dataclass(frozen=True)
class LocalTarget:
    """Processes of this machine."""

    folder: Path  #: what is known of them

    @property
    def name(self) -> str:
        return "local"

    def nodes(self) -> tuple[Node, ...]:
        gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        return ((float(cores()), float(gpus), gpu_type()),)

    def submit(self, submission: Submission) -> bool:
        folder = self.folder / submission.id
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        (folder / "command").write_text(json.dumps([str(submission.folder), *submission.command]))
        path = os.pathsep.join([*{str(package.parent) for package in submission.packages}])
        before = os.environ.get("PYTHONPATH")
        environment = os.environ | dict(submission.environment)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (path, before)))
        with (folder / "log").open("ab") as log:
            started = subprocess.run(
                [sys.executable, "-m", "cluster.processes", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
                cwd=_root(),
                check=False,
            )
        if started.returncode:
            raise ClusterError(f"{submission.id} could not be started: {(folder / 'log').read_text()[-500:]}")
        return True

    def look(self, id: str) -> Sent | None:
        folder = self.folder / id
        if not folder.is_dir():
            return None
        process = _supervisor(folder)
        # The code is looked for after the process: it is there before that ends.
        code = _exit_code(folder)
        if code is not None:
            return _ended(id, code, (folder / "stop").exists())
        if process is not None:
            return Sent(id, "running")
        if (folder / "process").exists():
            return Sent(id, "failed", "It was killed, or this machine started anew.")
        if time.time() - folder.stat().st_mtime < _STARTING_S:
            return Sent(id, "pending")
        return Sent(id, "failed", "It was killed before it had started.")

    def logs(self, id: str, follow: bool = False) -> Iterator[str]:
        path = self.folder / id / "log"
        if not path.exists():
            raise ClusterError(f"There is no submission {id} on this machine, so no log of it.")
        with path.open(errors="replace") as file:
            while True:
                sent = self.look(id)  # before the read: what it wrote until then is read
                while text := file.read(1 << 16):
                    yield text
                if not follow or sent is None or sent.state in ENDED:
                    return
                time.sleep(0.2)

    def stop(self, id: str) -> None:
        process = _supervisor(self.folder / id)
        if process is not None:
            (self.folder / id / "stop").touch()
            with suppress(psutil.NoSuchProcess):
                process.terminate()


def _root() -> Path:
    """Where `-m cluster.processes` is found, whatever the caller's folder is."""
    return Path(__file__).parent.parent


def _supervisor(folder: Path) -> psutil.Process | None:
    try:
        pid, started = json.loads((folder / "process").read_text())
        process = psutil.Process(pid)
        if process.create_time() == started and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        pass
    return None


def _exit_code(folder: Path) -> int | None:
    try:
        return int((folder / "exit_code").read_text())
    except FileNotFoundError:
        return None


def _ended(id: str, code: int, stopped: bool) -> Sent:
    if code in DONE:
        return Sent(id, "succeeded", exit_code=code)
    if stopped:
        return Sent(id, "stopped", "It was stopped.", code)
    return Sent(id, "failed", f"It ended with exit code {code}.", code)


def _supervise(folder: Path) -> int:
    """Run a submission's command, hand on what asks it to stop, and keep its exit code."""
    cwd, *command = json.loads((folder / "command").read_text())
    code = 127  # as of shells that can't start it

    def ready() -> None:
        _put(folder / "process", json.dumps([os.getpid(), psutil.Process().create_time()]))

    try:
        code = run_to_end(command, cwd, ready)
    except OSError as error:
        print(f"{command[0]} could not be started: {error}.", flush=True)
    finally:
        _put(folder / "exit_code", str(code))
    return code


def _put(path: Path, text: str) -> None:
    """A file that is there whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


if __name__ == "__main__":
    if os.fork() == 0:  # nobody's child: whoever asked for it may go, and has nothing to wait for
        sys.exit(_supervise(Path(sys.argv[1])))
