"""What a night with nothing new costs, over a table of as many files as it is told: python -m tests.bench.news

    python -m tests.bench.news [--files 200000] [--turns 3]

Files of a line each are generated, and a table that has them all. Then, in processes of their own, a job with
`input.select: new` is called where nothing is new, to its end, and where one file is, up to where its shard would be
given to Ray: seconds, and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow as pa

from jobs import attempt
from jobs.records import read_record, read_table
from jobs.spec import Job, parse_job
from pipelines.index import index_of, write_index
from pipelines.manifest import close
from pipelines.plan import count_shards
from pipelines.publish import _empty
from pipelines.sink import COMMIT, Sink
from tests.pipelines.committing import NoProgress
from tests.pipelines.staging import save_head


class _ReachedError(Exception):
    """Work would start here."""


def main() -> None:
    """Generates, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.news", description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--night", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.night:
        print(json.dumps(_night(asked.night)))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-news-"))
    try:
        began = time.monotonic()
        _generate(folder, asked.files)
        print(f"{asked.files:,} files generated in {time.monotonic() - began:.0f} s", flush=True)
        for new in (0, 1):
            for number in range(new):
                (folder / "in" / f"new{number}.txt").write_text("new")
            nights = [_measured(folder) for _ in range(asked.turns)]
            assert {night["new"] for night in nights} == {new}, nights
            took = [night["seconds"] for night in nights]
            peak = max(night["peak"] for night in nights) / 2**20
            print(
                f"{new} new of {asked.files:,} files: {statistics.median(took):.1f} s ({min(took):.1f} to "
                f"{max(took):.1f}), {peak:,.0f} MiB",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)


def _job(folder: Path) -> Job:
    return parse_job(
        {
            "name": "news",
            "task": "latents",
            "model": {"checkpoint": str(folder / "model")},
            "input": {"uri": str(folder / "in"), "select": "new"},
            "output": {"uri": str(folder / "out")},
            "options": {"overlap": 4},
        }
    )


def _generate(folder: Path, files: int) -> None:
    """The files, and a table that says of each that it has it; of its rows there is but the schema."""
    save_head(folder / "model", "PerceiverForMaskedLM")
    (folder / "in").mkdir()
    for number in range(files):
        (folder / "in" / f"{number:07d}.txt").write_text(f"text {number}")

    def execute(resolved: Any, rows: pa.Table, sink: Sink, *_: Any) -> None:
        record = read_record(sink.storage, sink.run_id)
        assert record
        plan = read_table(sink.storage, record, "plan")
        part = _empty(sink, "arrow")
        held = pa.array([part.path] * count_shards(plan), pa.string())
        name = f"runs/{sink.run_id}/index.parquet"
        index = index_of(plan, sink, held, COMMIT.empty_table())
        write_index(name, index, sink.storage)
        close(sink, None, index, name, [part], ())
        raise _ReachedError

    attempt.execute = execute
    try:
        attempt.run_job(_job(folder), NoProgress())
    except _ReachedError:
        return
    raise AssertionError("the run did not come to its work")


def _measured(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.news", "--night", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _night(folder: Path) -> dict[str, float]:
    new = 0

    def execute(resolved: Any, rows: pa.Table, *_: Any) -> None:
        nonlocal new
        new = rows.num_rows
        raise _ReachedError

    attempt.execute = execute
    began = time.monotonic()
    with suppress(_ReachedError):
        attempt.run_job(_job(folder), NoProgress())
    seconds = time.monotonic() - began
    return {"seconds": seconds, "new": new, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


if __name__ == "__main__":
    main()
