"""python -m cluster.kuberay.driver FOLDER COMMAND...: runs a command there, with exit code 0 for all that means done.

To the operator whatever isn't 0 is a failure, which it would try again, on a new cluster.
"""

import sys

from cluster.command import run_to_end
from cluster.target import DONE


def drive(folder: str, command: list[str]) -> int:
    """Run the command to its end, hand on what asks it to stop, and return 0 if it did what it was to do."""
    code = run_to_end(command, folder)
    return 0 if code in DONE else code


if __name__ == "__main__":
    sys.exit(drive(sys.argv[1], sys.argv[2:]))
