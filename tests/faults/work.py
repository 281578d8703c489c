"""A job, what its output holds when nothing disturbs it, and what is held against an output that was disturbed."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from cluster.local import cores
from jobs import events
from pipelines import reader
from pipelines.pools import Node, fit_pools
from pipelines.storage import open_storage
from tests.e2e.command import write_job
from tests.faults.ledger import balance
from tests.faults.processes import Bench
from tests.faults.store import Store


class Work:
    """One job over one input."""

    def __init__(
        self, folder: Path, model: Path, task: str, options: dict[str, Any], shard_windows: int, uri: str = ""
    ) -> None:
        self.folder, self.model = folder, model
        self.document = {
            "task": task,
            "options": options,
            "input": {"uri": uri or str(folder / "in")},
            "compute": {"batch": 2, "shard_windows": shard_windows},
        }
        self.table = self.quarantine = pa.table({})
        self.points: set[str] = set()
        self.seconds = 0.0

    def calm(self) -> "Work":
        """Run it undisturbed, and keep what comes of it."""
        bench, began = Bench(), time.monotonic()
        try:
            attempt = bench.run("run", self.job(str(self.folder / "calm")))
            assert attempt.process.returncode == 3, attempt.said
            self.points = {line[1] for line in attempt.log if line[0] in ("driver", "worker")}
        finally:
            bench.close()
        self.seconds = time.monotonic() - began
        self.table, self.quarantine = _contents(str(self.folder / "calm"))
        assert self.table.num_rows > 0
        assert self.quarantine.num_rows > 0
        return self

    def job(self, out: str, **changes: Any) -> Path:
        """The job's file, for an output."""
        folder = self.folder / "jobs" / out.replace("/", "_")
        return write_job(folder, Path(), self.model, output={"uri": out}, **(self.document | changes))

    def check(self, out: str, store: Store | None = None, again: Any = None) -> None:
        """The table is the undisturbed one, bit by bit and in its order, and the ledger balances."""
        wrong = balance(out.removeprefix("s3://"), store and beside(store)).wrong
        assert not wrong, (wrong, again)
        table, quarantine = _contents(out)
        assert table.equals(self.table), again
        assert quarantine.equals(self.quarantine), again

    def check_redone(self, out: str, bench: Bench) -> None:
        """Nobody began a shard that was committed before, and no attempt lost more shards than may be in flight.

        By the harness's logs of what was begun, the commits' own fields, and the events.
        """
        made, job = commits(out), self.job(out)
        assert sorted(made) == list(range(self.shards))
        numbers = {event["pid"]: event["attempt"] for event in told(out, "attempt_started")}
        for attempt in bench.attempts:
            begun = set(attempt.shards("decode begun"))
            if attempt.arguments[1] != job or not begun:
                continue
            number = numbers[attempt.process.pid]
            early = {shard: made[shard] for shard in begun if made[shard] < number}
            assert not early, f"Attempt {number} began shards anew that earlier ones had committed: {early}"
            lost = [shard for shard in begun if made[shard] > number]
            assert len(lost) <= in_flight(), f"Attempt {number} lost {lost}; {in_flight()} may be in flight"

    @property
    def shards(self) -> int:
        """How many there are."""
        [plan] = (self.folder / "calm/runs").glob("*/planned-*/plan.parquet")
        return len({*pq.read_table(plan)["shard"].to_pylist()})


def in_flight() -> int:
    """The shards that a crash may cost: those of which some work is done, and no part is there.

    Of each stage's workers Ray gives each two shards, of which it is at one; before each stage 4 shards a worker wait
    (pipelines/feeding.py), and writing is one task at a time for each share of CPU that is left.
    """
    pools = fit_pools([Node(cores())], None, None)
    left = cores() - pools.decode_workers * pools.decode_cpus - pools.predict_workers * pools.predict_cpus
    writers = max(1, int((left - pools.feed_cpus) / pools.write_cpus))
    return 2 * pools.decode_workers + (4 + 2) * pools.predict_workers + 4 + writers


def commits(out: str) -> dict[int, int]:
    """Which attempt committed each shard, by what the table's files say of themselves."""
    storage = open_storage(out)
    found: dict[int, int] = {}
    for part in reader.manifest(out).parts:
        with storage.open(part.path) as file:
            parquet = part.path.endswith(".parquet")
            schema = pq.read_schema(file) if parquet else pa.ipc.open_file(file).schema
        for commit in json.loads(schema.metadata[b"perceive"])["commits"]:
            assert commit["shard"] not in found
            found[commit["shard"]] = commit["attempt"]
    return found


def told(out: str, kind: str) -> list[dict[str, Any]]:
    """The events of a kind, of the run that closed the output."""
    run_id = reader.manifest(out).run_id
    return [event for event in events.read(open_storage(out), run_id) if event["event"] == kind]


def beside(store: Store) -> pyarrow.fs.S3FileSystem:
    """pyarrow's own way to a store, past the proxy."""
    return pyarrow.fs.S3FileSystem(
        access_key="testing", secret_key="testing", endpoint_override=store.upstream, region="us-east-1"
    )


def keys(store: Store, folder: str) -> list[str]:
    """The names of all that is in a folder of the bucket."""
    selector = pyarrow.fs.FileSelector(f"bucket/{folder}", recursive=True, allow_not_found=True)
    return [info.path for info in beside(store).get_file_info(selector) if info.is_file]


def _contents(out: str) -> tuple[pa.Table, pa.Table]:
    return reader.dataset(out).to_table(), reader.quarantine(out).drop_columns(["attempt"])
