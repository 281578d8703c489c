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
import shutil
import statistics
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow as pa

from jobs.records import read_record, read_table
from jobs.spec import Job, parse_job
from pipelines.index import index_of, write_index
from pipelines.manifest import close
from pipelines.plan import count_shards
from pipelines.publish import empty_part
from pipelines.sink import COMMIT, Sink
from tests.bench.until_work import apart, until_work
from tests.pipelines.staging import save_head


def main() -> None:
    """Generates, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.news", description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        print(json.dumps(until_work(_job(asked.once))))
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-news-"))
    try:
        began = time.monotonic()
        _generate(folder, asked.files)
        print(f"{asked.files:,} files generated in {time.monotonic() - began:.0f} s", flush=True)
        for new in (0, 1):
            for number in range(new):
                (folder / "in" / f"new{number}.txt").write_text("new")
            nights = [apart("news", folder) for _ in range(asked.turns)]
            assert {night["shards"] for night in nights} == {new}, nights
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

    def close_run(rows: pa.Table, sink: Sink) -> None:
        record = read_record(sink.storage, sink.run_id)
        assert record
        plan = read_table(sink.storage, record, "plan")
        part = empty_part(sink, "arrow")
        held = pa.array([part.path] * count_shards(plan), pa.string())
        name = f"runs/{sink.run_id}/index.parquet"
        index = index_of(plan, sink, held, COMMIT.empty_table())
        write_index(name, index, sink.storage)
        close(sink, None, index, name, [part], ())

    assert until_work(_job(folder), close_run)["shards"]


if __name__ == "__main__":
    main()
