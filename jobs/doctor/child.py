"""The process of one look: it is given a Probe on stdin, and answers with a line of JSON for each check."""

import json
import os
import pickle
import sys
import time
from dataclasses import asdict, replace

from jobs.doctor.check import Check, Probe, told


def main() -> None:
    """Answer one probe, and null when that was all."""
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


if __name__ == "__main__":
    main()
