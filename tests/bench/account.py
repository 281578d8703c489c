"""What a run's account costs: the CPU of its events, progress, summary.json and metrics, of the whole run's.

    python -m tests.bench.account [--items 6000] [--shard 64] [--turns 5]

Whole runs of `run_job`, in processes of their own: texts in a table, in small shards, so that much is committed for
little work. The driver's threads are timed in all that the account does; then, by turns, whole runs with the account
and without it are compared, which has what Ray takes to export the metrics, too. All processes of a run are counted.
The notes that workers make of a shard are timed here, for they can't be left out.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow as pa

from jobs import attempt
from jobs.events import Events
from jobs.pace import Marks
from pipelines.meter import peak_memory
from tests.bench.of_texts import run_texts, save_model, write_texts
from tests.bench.orchestration import cpu_of


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.account", description=__doc__)
    parser.add_argument("--items", type=int, default=6000)
    parser.add_argument("--shard", type=int, default=64, help="windows")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--run", nargs=2, metavar=("FOLDER", "ACCOUNT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        _run(Path(asked.run[0]), asked.shard, asked.run[1] == "with")
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-account-"))
    try:
        save_model(folder)
        shares, ratios, told = [], [], {}
        for turn in range(asked.turns):
            seconds: dict[str, float] = {}
            for kind in ("with", "without") if turn % 2 else ("without", "with"):
                seconds[kind], found = _measured(folder, asked.items, asked.shard, kind)
                told = found if kind == "with" else told
            notes = told["shards"] * _seconds_of_notes()
            shares.append((told["seconds"] + notes) / seconds["with"])
            ratios.append(seconds["with"] / seconds["without"])
            print(
                f"{seconds['with']:.1f} s, of which the account {told['seconds']:.3f} and workers' notes {notes:.3f}: "
                f"{shares[-1]:.2%}; without it {seconds['without']:.1f} s: {ratios[-1]:.3f}x",
                flush=True,
            )
        print(
            f"{asked.items} items, {told['shards']} shards, {told['events']} events: the account is "
            f"{statistics.median(shares):.2%} of the run's CPU ({min(shares):.2%} to {max(shares):.2%}); with it a run "
            f"takes {statistics.median(ratios):.3f}x the CPU ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    finally:
        shutil.rmtree(folder)


def _measured(folder: Path, items: int, shard: int, kind: str) -> tuple[float, dict[str, Any]]:
    """The CPU seconds of a run, and what it says of its account."""
    home = folder / kind
    write_texts(home, [b"a text of some length, number %d " % i * 8 for i in range(items)])
    command = [sys.executable, "-m", "tests.bench.account", "--run", str(home), kind, "--shard", str(shard)]
    said: list[bytes] = []
    seconds = cpu_of(lambda: said.append(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    shutil.rmtree(home)
    found: dict[str, Any] = json.loads(said[0].splitlines()[-1])
    return seconds, found


def _seconds_of_notes() -> float:
    """Of a shard, in its three workers: memory at its peak, bytes of its windows and rows, and JSON there and back."""
    table = pa.table({name: list(range(64)) for name in "abcdefgh"})
    notes = {"decode_s": 0.123, "decoded_bytes": 123_456, "decode_peak": 123_456_789, "predict_s": 0.123}

    def once() -> None:
        for _ in range(3):
            notes["peak"], notes["bytes"] = peak_memory(), table.nbytes
            json.loads(json.dumps(notes))

    return timeit.timeit(once, number=1000) / 1000


def _run(home: Path, shard: int, account: bool) -> None:
    spent = _timed() if account else _left_out()
    result = run_texts(home, "account", shard_windows=shard)
    run = home / "out/runs" / result.run_id
    lines = (run / "events.jsonl").read_text().splitlines()
    assert account == (run / "summary.json").exists()
    assert account == any('"event": "progress"' in line for line in lines)
    shards = sum('"event": "shard_committed"' in line for line in lines)
    print(json.dumps({"seconds": sum(spent), "events": len(lines), "shards": shards}))


def _timed() -> list[float]:
    """Have all that the account does add its thread's CPU seconds to the list."""
    spent: list[float] = []
    inside = threading.local()

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if getattr(inside, "one", False):  # what it calls is in its own time
                return call(*arguments, **named)
            inside.one, began = True, time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                spent.append(time.thread_time() - began)
                inside.one = False

        return wrapped

    for kind, names in ((Events, ("note", "look", "end")), (Marks, ("look", "note"))):
        for name in names:
            setattr(kind, name, timed(getattr(kind, name)))
    attempt.environment = timed(attempt.environment)
    return spent


def _left_out() -> list[float]:
    """Leave summary.json, the metrics and progress out; what happens is still noted, as it was before there was one."""

    class Alone(Events):
        def __init__(self, storage: Any, run_id: str, number: int, *_: Any) -> None:
            super().__init__(storage, run_id, number)

    attempt.Events = Alone  # type: ignore[misc]
    Marks.look = Marks.note = lambda self: None  # type: ignore[method-assign]
    return []


if __name__ == "__main__":
    main()
