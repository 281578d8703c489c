"""The command on the head: in its folder, 0 for all that means done, and stopped in order."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def driver(folder: Path, code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster.kuberay.driver", str(folder), sys.executable, "-u", "-c", code]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 0), (2, 2), (4, 4), (5, 5), (130, 130)])
def test_what_is_done_is_no_failure(code: int, expected: int, tmp_path: Path) -> None:
    process = driver(tmp_path, f"import os; print(os.getcwd()); raise SystemExit({code})")
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said.strip()) == (expected, str(tmp_path))


def test_a_command_that_is_killed_says_so(tmp_path: Path) -> None:
    process = driver(tmp_path, "import os; os.kill(os.getpid(), 9)")
    process.communicate(timeout=20)
    assert process.returncode == 128 + 9


def test_it_hands_on_what_asks_it_to_stop(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
        "print('ready')\ntime.sleep(20)"
    )
    process = driver(tmp_path, code)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert time.monotonic() - began < 10
