"""A folder of texts that changes, a job over it, and what its table must be."""

import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from jobs.attempt import RunResult, run_job
from jobs.quarantine import retry_errors
from jobs.spec import Job, parse_job
from pipelines import reader
from pipelines.addresses import path_of
from tests.faults.ledger import balance
from tests.pipelines.committing import NoProgress

OPTIONS = {"top_k": 2, "overlap": 4}
BAD = b"\xff\xfe not UTF-8"


class Bucket:
    """A folder of texts, and a job over it."""

    def __init__(self, folder: Path, model: Path, task: str = "text-classification", **changes: Any) -> None:
        self.folder, self.out = folder / "in", str(folder / "out")
        self.folder.mkdir(parents=True)
        options = OPTIONS if task == "text-classification" else {"overlap": 4}
        self.document = {
            "name": "texts", "task": task, "model": {"checkpoint": str(model)}, "input": {"uri": str(self.folder)},
            "output": {"uri": self.out}, "options": options, "compute": {"batch": 2, "shard_windows": 2},
        } | changes  # fmt: skip
        self.times = 0

    @property
    def job(self) -> Job:
        return parse_job(self.document)

    def put(self, name: str, text: bytes) -> None:
        path = self.folder / f"{name}.txt"
        path.write_bytes(text)
        self.times += 1
        os.utime(path, (self.times, self.times))

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.txt").unlink()

    @property
    def files(self) -> dict[str, tuple[bytes, int]]:
        """Contents and versions, by name."""
        return {path.stem: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.folder.iterdir()}

    def run(self, supersede: bool = False, fire: str = "", **changes: Any) -> RunResult:
        return run_job(parse_job(self.document | changes), NoProgress(), supersede, fire=fire)

    def retry(self, error: str | None = None, *overrides: str) -> RunResult | None:
        return retry_errors(self.out, error, overrides, NoProgress())

    def check(self, files: dict[str, tuple[bytes, int]]) -> None:
        """The table is that of these files, the ledger balances, and after gc plain globs are exact as well."""
        ledger = balance(self.out)
        assert not ledger.wrong, ledger.wrong
        table = reader.dataset(self.out).to_table()
        good = sorted(name for name, (text, _) in files.items() if text != BAD)
        assert sorted(Path(path_of(uri)).stem for uri in table["uri"].to_pylist()) == good
        if "bytes" in table.column_names:
            lengths = dict(zip(table["uri"].to_pylist(), table["bytes"].to_pylist(), strict=True))
            assert {Path(path_of(uri)).stem: length for uri, length in lengths.items()} == {
                name: len(files[name][0]) for name in good
            }
        bad = reader.quarantine(self.out)
        assert sorted(Path(path_of(uri)).stem for uri in bad["uri"].to_pylist()) == sorted(
            files.keys() - {*good}
        )
        assert reader.manifest(self.out).items == len(files)


def fill(bucket: Bucket, names: Sequence[str] = "abcdefg", bad: Container[str] = "") -> None:
    for n, name in enumerate(names):
        bucket.put(name, BAD if name in bad else bytes([65 + n]) * (n + 3))
