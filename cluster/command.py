"""A command run to its end by a process that stands for it: what asks that one to stop asks the command."""

import signal
import subprocess
from collections.abc import Callable
from types import FrameType

STOPPED = 130  #: the exit code of a command that was to stop before it began


def run_to_end(command: list[str], folder: str, ready: Callable[[], None] = lambda: None) -> int:
    """Run a command in a folder and hand on SIGTERM to it; its exit code, 128 and more of a signal's, as shells say it.

    `ready` is called once SIGTERM is handed on. Raises OSError where the command can't be started.
    """
    child: subprocess.Popen[bytes] | None = None
    asked = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child is not None:
            child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    ready()
    if asked:
        return STOPPED
    child = subprocess.Popen(command, cwd=folder)
    if asked:  # between the two lines before
        child.send_signal(signal.SIGTERM)
    code = child.wait()
    return 128 - code if code < 0 else code
