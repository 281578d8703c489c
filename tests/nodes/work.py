"""What runs on these tests' clusters: a job over texts, slowed so that something can happen to it, and its account."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import yaml

from pipelines import reader
from tests.e2e.command import PERCEIVE, kill_tree
from tests.faults.ledger import balance

INSIDE = Path(__file__).parent.parent / "faults/inside"
ROOT = Path(__file__).parent.parent.parent


class Work:
    """One job over so many texts, a shard each, of which one is none."""

    def __init__(self, folder: Path, model: Path, texts: int) -> None:
        self.folder, self.model = folder, model
        (folder / "in").mkdir(parents=True)
        for n in range(texts):
            (folder / f"in/{n:03}.txt").write_bytes(b"\xff\xfe" if n == 2 else b"text %03d" % n * (1 + n % 3))
        self.set_pace(0.4)

    def set_pace(self, seconds: float) -> None:
        """What predicting a shard takes, of workers that begin from now on."""
        paces = [{"point": "predict begun", "seconds": seconds}]
        orders = {"log": str(self.folder / "log"), "stops": [], "paces": paces}
        (self.folder / "orders.json").write_text(json.dumps(orders))

    def predictors(self) -> list[str]:
        """The processes that have begun to predict a shard, in order."""
        with suppress(FileNotFoundError):
            lines = [line.split("\t") for line in (self.folder / "log").read_text().splitlines()]
            return list(dict.fromkeys(line[3] for line in lines if line[:2] == ["shard", "predict begun"]))
        return []

    @property
    def environment(self) -> dict[str, str]:
        """Of nodes and drivers."""
        return {
            "PYTHONPATH": os.pathsep.join([str(INSIDE), str(ROOT)]),
            "PERCEIVE_FAULTS": str(self.folder / "orders.json"),
            "PERCEIVER_STATE": str(self.folder / "state"),
            # Else each node starts as many idle processes as it has CPUs: on two cores they are most of the work.
            "RAY_enable_worker_prestart": "0",
            "RAY_prestart_worker_first_driver": "0",
        }

    def job(self, out: str, **compute: Any) -> Path:
        """The job's file, for an output of this name."""
        document = {
            "name": out,
            "task": "text-classification",
            "model": {"checkpoint": str(self.model)},
            "input": {"uri": str(self.folder / "in")},
            "output": {"uri": str(self.folder / out)},
            "options": {"top_k": 2, "overlap": 4},
            "compute": {"batch": 2, "shard_windows": 1, **compute},
        }
        path = self.folder / f"{out}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def table(self, out: str) -> pa.Table:
        """What came of it; the ledger balances."""
        wrong = balance(str(self.folder / out)).wrong
        assert not wrong, wrong
        return reader.dataset(str(self.folder / out)).to_table()

    def quarantine(self, out: str) -> pa.Table:
        return reader.quarantine(str(self.folder / out)).drop_columns(["attempt"])

    def events(self, out: str, kind: str) -> list[dict[str, Any]]:
        """What was told of a kind, in order."""
        found = []
        for path in sorted((self.folder / out).glob("runs/*/events.jsonl")):
            for line in path.read_text().splitlines():
                with suppress(ValueError):  # one that is just being written
                    found.append(json.loads(line))
        return [event for event in found if event["event"] == kind]

    def committed(self, out: str) -> list[float]:
        """When each shard was, in order."""
        return [
            datetime.fromisoformat(one["time"]).timestamp() for one in self.events(out, "shard_committed")
        ]

    def gap(self, out: str, since: float) -> float:
        """The longest time after a moment in which nothing was committed."""
        times = [since, *(one for one in self.committed(out) if one > since)]
        return max(after - before for before, after in pairwise(times))


class Run:
    """A `perceive run` on a cluster's head."""

    def __init__(self, work: Work, command: Sequence[str], environment: dict[str, str]) -> None:
        self.said_in = Path(tempfile.mkdtemp(dir=work.folder))
        with (self.said_in / "out").open("w") as out, (self.said_in / "err").open("w") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, start_new_session=True,
                env=os.environ | environment,
            )  # fmt: skip
        self.began = time.time()

    @property
    def said(self) -> str:
        return (self.said_in / "err").read_text() + (self.said_in / "out").read_text()

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def end(self, code: int = 3, timeout_s: float = 200) -> float:
        """How many seconds it took, once it has ended with that code."""
        try:
            got = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"It did not end: {self.said}") from None
        assert got == code, (got, self.said)
        return time.time() - self.began

    def kill(self) -> None:
        kill_tree(self.process)


def perceive_run(job: Path, address: str) -> list[str]:
    """The command."""
    return [PERCEIVE, "run", str(job), "--ray-address", address]


def left_of(work: Work) -> list[psutil.Process]:
    """All processes that were started for this work and are still there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PERCEIVE_FAULTS") == str(work.folder / "orders.json"):
                found.append(process)
    return found


def clear(work: Work) -> None:
    """Nothing is left of it but its files."""
    left = left_of(work)
    for process in left:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(left, timeout=10)


def clear_folder(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
