"""A look in a process of its own: cut off in time, and ended with all that it started."""

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Queue
from typing import IO

import psutil

from jobs.doctor.check import Check, Probe

_ENDING_S = 5.0  # that a process may take to go once it has answered


def run_apart(probe: Probe, folder: str | None) -> Iterator[Check]:
    """The checks of a probe as they are made; one more, failed, where it takes too long or its process dies."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    if folder:
        environment["TMPDIR"] = folder
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.doctor.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for its parent, which then ends it
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    lines: Queue[bytes] = Queue()
    said: deque[bytes] = deque(maxlen=200)
    threads = [
        threading.Thread(target=_pass_on, args=(file, take), daemon=True)
        for file, take in ((process.stdout, lines.put), (process.stderr, said.append))
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + probe.limit_s
    try:
        with suppress(BrokenPipeError), process.stdin:  # one that died at its start is told of below
            process.stdin.write(pickle.dumps(probe))
        while line := lines.get(timeout=max(0.0, deadline - time.monotonic())):
            answer = json.loads(line)
            if answer is None:  # that was all
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_ENDING_S)
                return
            yield Check(**answer)
        process.wait(_ENDING_S)
        threads[1].join(1)
        yield Check(probe.name, "failed", f"Its process {_end(process.returncode, said)}", probe.advice)
    except Empty:
        found = f"It took more than {probe.limit_s:g} s, and was stopped."
        yield Check(probe.name, "failed", found, probe.advice, probe.limit_s)
    finally:
        _end_all(process)
        for thread in threads:
            thread.join(1)
        for file, thread in zip((process.stdout, process.stderr), threads, strict=True):
            if not thread.is_alive():
                file.close()


def _pass_on(file: IO[bytes], take: Callable[[bytes], object]) -> None:
    """Every line of a file as it comes; in the end an empty one."""
    for line in file:
        take(line)
    take(b"")


def _end(code: int, said: deque[bytes]) -> str:
    lines = [line.decode(errors="replace").strip() for line in said if line.strip()]
    places = [line for line in lines if line.startswith("File ")]
    if code < 0:  # then faulthandler says where, the innermost first
        return f"was killed by signal {-code}{f', at {places[0]}' if places else ''}."
    return f"exited with code {code}; it said: {' | '.join(lines[-3:]) or 'nothing'}."


def _end_all(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that descend from it, Ray's daemons included."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        tree = [parent, *parent.children(recursive=True)]
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(tree[1:], timeout=_ENDING_S)
    process.wait()
