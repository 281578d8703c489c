"""Is perceive plan's time the run's? Decoding limits one job, the model another, the third is the demo with its MP4s.

    python -m tests.bench.plan [--turns 5] [--jobs decode predict demo]

Each turn plans a job and runs it into a new output, by the command. A ratio is the plan's seconds by the run's.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.bound import decode_bound, device_bound
from tests.e2e.command import PERCEIVE

EXAMPLE = Path(__file__).parents[2] / "examples/reconstruct.yaml"
JOBS: dict[str, Callable[[Path], Path]] = {
    "decode": lambda folder: decode_bound(folder, clips=60),
    "predict": lambda folder: device_bound(folder, clips=30),
    "demo": lambda folder: EXAMPLE,
}


def main() -> None:
    """Measures and prints the medians, their ratio and the spread."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plan", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=[*JOBS])
    asked = parser.parse_args()
    print("| job | plan, s | run, s | plan by run | of each turn | within the plan's range |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in asked.jobs:
        with tempfile.TemporaryDirectory() as temporary:
            _compare(name, Path(temporary), asked.turns)


def _compare(name: str, folder: Path, turns: int) -> None:
    job = JOBS[name](folder / "job")
    planned, ran, within = [], [], 0
    for turn in range(turns):
        out = folder / f"out{turn}"
        plan = _perceive("plan", job, out)
        run = _perceive("run", job, out)
        shutil.rmtree(out)
        planned.append(plan["seconds"]["likely"])
        ran.append(run["seconds"])
        within += plan["seconds"]["low"] <= run["seconds"] <= plan["seconds"]["high"]
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        _tell(f"{name}: planned {planned[-1]:.1f} s, ran {ran[-1]:.1f} s{load}; {plan['measured']}")
    each = " ".join(f"{one / other:.2f}" for one, other in zip(planned, ran, strict=True))
    ratio = statistics.median(planned) / statistics.median(ran)
    print(
        f"| {name} | {_spread(planned)} | {_spread(ran)} | {ratio:.2f} | {each} | {within} of {turns} |",
        flush=True,
    )


def _perceive(verb: str, job: Path, out: Path) -> dict[str, Any]:
    done = subprocess.run(
        [PERCEIVE, verb, str(job), "--json", "-o", f"output.uri={out}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"


def _tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
