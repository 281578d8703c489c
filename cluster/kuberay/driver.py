"""python -m cluster.kuberay.driver FOLDER COMMAND...: runs a command there, with exit code 0 for all that means done.

To the operator whatever isn't 0 is a failure, which it would try again, on a new cluster.
"""

import signal
import subprocess
import sys
from types import FrameType

from cluster.target import DONE


def drive(folder: str, command: list[str]) -> int:
    """Run the command to its end, hand on what asks it to stop, and return 0 if it did what it was to do."""
    child: subprocess.Popen[bytes] | None = None
    asked = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child is not None:
            child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    child = subprocess.Popen(command, cwd=folder)
    if asked:
        child.send_signal(signal.SIGTERM)
    code = child.wait()
    if code in DONE:
        return 0
    return 128 - code if code < 0 else code  # as shells say it


if __name__ == "__main__":
    sys.exit(drive(sys.argv[1], sys.argv[2:]))
