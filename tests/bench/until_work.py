"""A run up to where its work would start, in a process of its own, for what is measured of what comes before."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import attempt
from jobs.spec import Job
from pipelines.sink import Sink
from tests.pipelines.committing import NoProgress


class _ReachedError(Exception):
    """Work would start here."""


def until_work(
    job: Job, look: Callable[[pa.Table, Sink], None] = lambda rows, sink: None
) -> dict[str, float]:
    """Run a job up to there, and `look` at its shards; seconds, shards, and the peak of memory in bytes."""
    shards = 0

    def execute(resolved: Any, rows: pa.Table, sink: Sink, *_: Any) -> None:
        nonlocal shards
        shards = rows.num_rows
        look(rows, sink)
        raise _ReachedError

    attempt.execute = execute
    began = time.monotonic()
    try:
        attempt.run_job(job, NoProgress())
    except _ReachedError:
        pass
    else:
        assert not shards  # with nothing to do it comes to its end
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": time.monotonic() - began, "shards": shards, "peak": peak}


def apart(bench: str, folder: Path) -> dict[str, float]:
    """What `python -m tests.bench.<bench> --once FOLDER` prints."""
    command = [sys.executable, "-m", f"tests.bench.{bench}", "--once", str(folder)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found
