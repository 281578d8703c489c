"""The process of one look: it is given a Probe on stdin, and answers with a line of JSON for each check."""

import faulthandler
import json
import os
import pickle
import sys
import threading
import time
from dataclasses import asdict, replace

from jobs.doctor.check import Check, Probe, told


def main() -> None:
    """Answer one probe, and null when that was all."""
    faulthandler.enable(all_threads=False)  # a crash says where, on the stderr that the parent keeps
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    probe: Probe = pickle.load(sys.stdin.buffer)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(check: Check | None) -> None:
        print(json.dumps(check and asdict(check)), file=answers, flush=True)

    began = time.monotonic()
    try:
        for check in probe.look(*probe.given):
            answer(replace(check, seconds=round(time.monotonic() - began, 2)))
            began = time.monotonic()
    except Exception as error:
        answer(Check(probe.name, "failed", told(error), probe.advice, round(time.monotonic() - began, 2)))
    answer(None)


def _die_with(parent: int) -> None:
    """A parent that was killed can end nobody: then this process goes by itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
