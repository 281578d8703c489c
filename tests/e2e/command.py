"""Running `perceive` as a user does, and killing it as a machine does."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

PERCEIVE = str(Path(sys.executable).parent / "perceive")


def write_job(folder: Path, media: Path, checkpoint: Path, **changes: Any) -> Path:
    document = {
        "name": "test",
        "task": "multimodal-autoencoding",
        "model": {"checkpoint": str(checkpoint)},
        "input": {"uri": str(media)},
        "output": {"uri": str(folder / "out")},
        "options": {"top_k": 2},
        "compute": {"batch": 2, "shard_windows": 2},
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    return folder / "job.yaml"


def perceive(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PERCEIVE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=170
    )


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PERCEIVE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill_tree(process: "subprocess.Popen[str]") -> None:
    """SIGKILL the process and all that descend from it, Ray's daemons included."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        parent.suspend()  # nothing new is born while the tree is listed
        tree = [*parent.children(recursive=True), parent]
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(tree[:-1], timeout=10)
    process.communicate(timeout=10)


def wait_for(condition: Any, process: "subprocess.Popen[str]", timeout_s: float = 90) -> None:
    """Wait until the condition holds; fail if the process ends before."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def interrupt(process: "subprocess.Popen[str]") -> None:
    """What a terminal's Ctrl-C does: SIGINT to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)
