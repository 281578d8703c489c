"""Looks that go wrong, and looks on a machine that lacks something: each is run in a process of its own."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from jobs.doctor import media
from jobs.doctor.check import Check


def hangs(started: str) -> Iterator[Check]:
    """With something that it started itself, whose number it leaves in a file."""
    yield Check("first", "ok", "This was seen before.")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(started, "w") as file:
        file.write(str(sleeper.pid))
    time.sleep(600)


def crashes() -> Iterator[Check]:
    yield Check("first", "ok", "This was seen before.")
    os.abort()


def exits() -> Iterator[Check]:
    print("what a library has to say", file=sys.stderr, flush=True)
    os._exit(3)
    yield Check("never", "ok", "Never.")


def raises() -> Iterator[Check]:
    print("what a library prints is no answer", flush=True)
    yield Check("first", "ok", "This was seen before.")
    raise LookupError("no such thing\nand much more")


def codecs_without_room() -> Iterator[Check]:
    """No file may have more than a thousand bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    return media.codecs()
