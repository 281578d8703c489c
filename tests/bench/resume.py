"""What a resume costs before work starts, over as many committed shards as it is told to: python -m tests.bench.resume

    python -m tests.bench.resume [--shards 1000000] [--missing 50] [--turns 3]

The output is generated: a line of text is a shard, and all but a few are committed, most of them in the snapshot, 2%
only in the listing after it, as a driver that is killed leaves them. Then `run_job` is called in a process of its
own, up to where the first shard would be given to Ray: seconds, and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.spec import parse_job
from pipelines.sink import COMMIT, Sink
from tests.bench.until_work import apart, until_work
from tests.pipelines.staging import save_head


def main() -> None:
    """Generates, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.resume", description=__doc__)
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--missing", type=int, default=50)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        print(json.dumps(until_work(_job(asked.once))))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-resume-"))
    try:
        began = time.monotonic()
        _generate(folder, asked.shards, asked.missing)
        print(f"{asked.shards:,} shards generated in {time.monotonic() - began:.0f} s", flush=True)
        took, peak = [], []
        for _ in range(asked.turns):
            found = apart("resume", folder)
            assert found["shards"] == asked.missing, found
            took.append(found["seconds"])
            peak.append(found["peak"])
            print(f"{took[-1]:.1f} s until work starts, {peak[-1] / 2**20:,.0f} MiB at most", flush=True)
        print(
            f"resuming over {asked.shards:,} shards: {statistics.median(took):.1f} s ({min(took):.1f} to "
            f"{max(took):.1f}), {statistics.median(peak) / 2**20:,.0f} MiB"
        )
    finally:
        shutil.rmtree(folder)


def _job(folder: Path) -> Any:
    return parse_job(
        {
            "name": "resume",
            "task": "latents",
            "model": {"checkpoint": str(folder / "model")},
            "input": {"uri": str(folder / "in/texts.txt"), "format": "lines"},
            "output": {"uri": str(folder / "out")},
            "options": {"overlap": 4},
            "compute": {"shard_windows": 1, "batch": 1},
        }
    )


def _generate(folder: Path, shards: int, missing: int) -> None:
    save_head(folder / "model", "PerceiverForMaskedLM")
    (folder / "in").mkdir()
    with (folder / "in/texts.txt").open("w") as file:
        file.writelines(f"text {i}\n" for i in range(shards))
    held: list[Sink] = []

    def begun(rows: pa.Table, sink: Sink) -> None:
        assert rows.num_rows == shards
        held.append(sink)

    until_work(_job(folder), begun)
    sink = held[0]
    data = folder / "out/data"
    data.mkdir()
    dice = np.random.default_rng(0)
    # The last ones, and a few before them that were still being worked on when their successors were done.
    late = set(dice.integers(shards - 20 * missing, shards - missing // 2, missing // 2).tolist())
    gone = sorted(late | {*range(shards - (missing - len(late)), shards)})
    done = np.setdiff1d(np.arange(shards), gone)
    for shard in done.tolist():
        os.close(os.open(data / sink.part(shard).rpartition("/")[2], os.O_CREAT | os.O_WRONLY))
    known = done[: int(len(done) * 0.98)]
    columns = {
        "run_id": pa.repeat(sink.run_id, len(known)),
        "shard": pa.array(known, pa.int32()),
        "attempt": pa.repeat(pa.scalar(1, pa.int32()), len(known)),
        "rows": pa.repeat(pa.scalar(1, pa.int64()), len(known)),
        "spans": pa.repeat(pa.scalar(1, pa.int64()), len(known)),
        "quarantined": pa.repeat(pa.scalar(0, pa.int64()), len(known)),
        "quarantine": pa.nulls(len(known), pa.string()),
        "notes": pa.repeat('{"decode_s": 0.002, "predict_s": 0.115}', len(known)),
    }
    table = pa.table([columns[field.name] for field in COMMIT], schema=COMMIT)
    pq.write_table(table, folder / "out/runs" / sink.run_id / "commits.parquet", compression="zstd")


if __name__ == "__main__":
    main()
