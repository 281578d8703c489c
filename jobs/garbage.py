"""Garbage: what neither the table nor a run that goes on needs. Collected when it is asked for, after a grace period.

Drafts and probes of killed writers; parts and quarantine files that the newest manifest doesn't name; staged parts of
closed runs; plans of runs that were killed before they had a record; files beside the table that none of its rows
names; signs of life of old leases.
"""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from jobs.lease import last
from jobs.records import Record, current, read_record
from jobs.spec import SpecError
from pipelines.ahead import in_order
from pipelines.describing import names_files
from pipelines.manifest import Manifest, newest
from pipelines.meter import Progress
from pipelines.reader import dataset_of
from pipelines.storage import Storage, Stored, open_storage


@dataclass(frozen=True)
class Collected:
    """What was garbage."""

    files: tuple[str, ...]  #: that were deleted, or would be
    bytes: int
    kept: int  #: garbage too young to be deleted


def collect(out: str, grace_s: float, dry_run: bool, progress: Progress) -> Collected:
    """Delete an output's garbage that is older than the grace; with `dry_run`, say what that is."""
    storage = open_storage(out)
    table, run = newest(storage), current(storage)
    if run is None:
        raise SpecError(
            f"No run in {storage.uri}: expected runs/leases there. Name an output's folder or URI."
        )
    going_on = run if table is None or table.run_id != run.run_id else None
    now = time.time()
    young = table is not None and now - datetime.fromisoformat(table.closed).timestamp() < grace_s
    progress.stage("files of no use", None)
    candidates = _garbage(storage, table, going_on)
    files, size, kept = [], 0, 0
    for found in in_order(lambda name: _stat(storage, name), candidates):
        if found is None:
            continue
        # Those who opened the table before read its parts still, however old these are.
        superseded = young and not found.name.startswith("runs/tmp/")
        if superseded or now - found.modified < grace_s:
            kept += 1
            continue
        files.append(found.name)
        size += found.size
        progress.at(len(files))
    progress.total(len(files))
    if not dry_run:
        for _ in in_order(storage.delete, files):
            pass
    return Collected(tuple(files), size, kept)


def _garbage(storage: Storage, table: Manifest | None, going_on: Record | None) -> Iterator[str]:
    yield from storage.names("runs/tmp")
    lease = last(storage)
    for name in storage.names("runs/leases"):
        if lease and not name.endswith(".json") and name < f"runs/leases/{lease.number:06d}":
            yield name
    live = {part.path for part in table.parts} | {*table.quarantine} if table else set()
    mine = going_on.run_id if going_on else None

    @functools.cache
    def planned(run_id: str) -> str:
        record = read_record(storage, run_id)
        return record.planned if record else ""

    for folder in ("data", "quarantine"):
        for name in storage.names(folder):
            if name not in live and not (mine and name.startswith(f"{folder}/{mine}-")):
                yield name
    for name in storage.names("runs"):
        run, _, rest = name.removeprefix("runs/").partition("/")
        if rest.startswith("parts/") and run != mine:
            yield name
        other = rest.startswith("planned-") and rest.partition("/")[0] != planned(run)
        # The last run may be about to have a record.
        if other and (planned(run) or lease is None or run != lease.run_id):
            yield name
    if going_on is None or going_on.kind != "first":  # whose files beside the table no row names yet
        named = _named(storage, table) if table else set()
        for name in _beside(storage):
            if name not in named and not (mine and name.split("/")[1] == mine):
                yield name


def _beside(storage: Storage) -> Iterator[str]:
    """The files that tasks made beside the table, each in a folder of its task's."""
    for folder in ("video", "flow"):
        yield from storage.names(folder)


def _named(storage: Storage, table: Manifest) -> set[str]:
    """The files that the table's rows name."""
    rows = dataset_of(storage, [part.path for part in table.parts])
    columns = [field.name for field in rows.schema if names_files(field)]
    named: set[str] = set()
    for batch in rows.to_batches(columns=columns) if columns else ():
        for name in columns:
            named.update(value for value in batch[name].to_pylist() if value)
    return named


def _stat(storage: Storage, name: str) -> Stored | None:
    try:
        return storage.stat(name)
    except FileNotFoundError:
        return None
