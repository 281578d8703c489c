"""What bad items cost: the CPU of a run in which 1% of the items fail, over that of a run without them.

    python -m tests.bench.quarantine [--items 6000] [--turns 5]

Whole runs of `run_job`, by turns, in processes of their own: texts in a table, of which every hundredth is not UTF-8,
or none. All processes of a run are counted, Ray's too. Then the bad ones are counted in the quarantine table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from pipelines import reader
from tests.bench.of_texts import run_texts, save_model, write_texts
from tests.bench.orchestration import cpu_of

_BAD = b"\xff\xfe no UTF-8"
_EVERY = 100


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quarantine", description=__doc__)
    parser.add_argument("--items", type=int, default=6000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        assert run_texts(asked.run, "quarantine").items
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-quarantine-"))
    try:
        save_model(folder)
        ratios = []
        for turn in range(asked.turns):
            seconds = {}
            for kind in ("good", "bad") if turn % 2 else ("bad", "good"):
                home = folder / f"{kind}{turn}"
                write_texts(home, _texts(asked.items, kind == "bad"))
                command = [sys.executable, "-m", "tests.bench.quarantine", "--run", str(home)]
                seconds[kind] = cpu_of(lambda c=command: subprocess.run(c, check=True))  # type: ignore[misc]
                named = reader.quarantine(str(home / "out")).num_rows
                assert named == (asked.items // _EVERY if kind == "bad" else 0), named
                shutil.rmtree(home)
            ratios.append(seconds["bad"] / seconds["good"])
            print(
                f"{seconds['bad']:.1f} s with, {seconds['good']:.1f} s without: {ratios[-1]:.3f}x", flush=True
            )
        print(
            f"{asked.items} items, {asked.items // _EVERY} bad, all of them named: {statistics.median(ratios):.3f}x "
            f"the CPU ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    finally:
        shutil.rmtree(folder)


def _texts(items: int, bad: bool) -> list[bytes]:
    return [_BAD if bad and i % _EVERY == 0 else b"a text of some length " * 10 for i in range(items)]


if __name__ == "__main__":
    main()
