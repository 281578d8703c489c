"""A run's record in its output, from which it is resumed: what it is, its plan, its input, and what it supersedes.

runs/<run-id>/planned-<token>/spec.yaml         the job
runs/<run-id>/planned-<token>/plan.parquet      items and shards
runs/<run-id>/planned-<token>/inputs.parquet    the files of the input, as they were listed
runs/<run-id>/planned-<token>/replaced.parquet  what of the table before is done again
runs/<run-id>/run.json                          the fingerprint, and the token; written last

A fire that was killed here is begun again with the same run id, when the input may be another: had both one folder, the
run's plan could be of the one and its input of the other.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jobs.lease import earlier, last
from jobs.spec import Job
from pipelines.storage import OutputError, Storage, create_text, created

_VERSION = 2

#: What a run does: all of the input into a new output; all of it again; what has changed of it; what failed; what is
#: new, also by `input.select`'s other meanings.
Kind = Literal["first", "all", "changed", "retry", "incremental"]


@dataclass(frozen=True)
class Record:
    """What a run is."""

    run_id: str
    kind: Kind
    base: int | None  #: the manifest whose table it goes on from or takes the place of
    fingerprint: dict[str, Any]
    errors: str | None = None  #: of a retry: the class that is tried again; None is all
    news: dict[str, Any] | None = (
        None  #: of an incremental run: what it was that was new, as an event's fields
    )
    fire: str = ""  #: the time that a schedule meant
    planned: str = ""  #: the folder, in the run's, of its other files; empty until it is written


def write_record(
    storage: Storage, record: Record, job: Job, plan: pa.Table, listing: pa.Table, replaced: pa.Table
) -> None:
    """Keep it, unless the run has one."""
    record = replace(record, planned=f"planned-{uuid.uuid4().hex[:8]}")
    folder = _folder(record)
    create_text(storage, f"{folder}/spec.yaml", yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))
    for name, table in (("plan", plan), ("inputs", listing), ("replaced", replaced)):
        with created(storage, f"{folder}/{name}.parquet") as draft:
            pq.write_table(table, draft, compression="zstd")
    text = json.dumps({"version": _VERSION, **asdict(record)}, indent=1)
    create_text(storage, f"runs/{record.run_id}/run.json", text)


def read_record(storage: Storage, run_id: str) -> Record | None:
    """A run's record; None if it was killed before it had one."""
    name = f"runs/{run_id}/run.json"
    try:
        found: dict[str, Any] = json.loads(storage.read(name))
    except FileNotFoundError:
        return None
    if found.pop("version", None) != _VERSION:
        raise OutputError(
            f"{storage.where(name)} was written by another perceiver-batch. Go on with that one, or choose another "
            "output."
        )
    return Record(**found)


def read_table(storage: Storage, record: Record, name: Literal["plan", "inputs", "replaced"]) -> pa.Table:
    """One of a run's tables; `record` is as it was read."""
    with open_table(storage, record, name) as file:
        return pq.read_table(file)


def open_table(
    storage: Storage, record: Record, name: Literal["plan", "inputs", "replaced"]
) -> pa.NativeFile:
    """The same as the file that it is, for whoever reads it in parts; the caller closes it."""
    return storage.open(f"{_folder(record)}/{name}.parquet")


def read_spec(storage: Storage, record: Record) -> dict[str, Any]:
    """A run's job, as a document; `record` is as it was read."""
    document: dict[str, Any] = yaml.safe_load(storage.read(f"{_folder(record)}/spec.yaml"))
    return document


def current(storage: Storage) -> Record | None:
    """The run that an output was last worked on by; None in a new one."""
    return next(filter(None, (read_record(storage, run_id) for run_id in _latest_first(storage))), None)


def _folder(record: Record) -> str:
    assert record.planned  # else it was not read
    return f"runs/{record.run_id}/{record.planned}"


def _latest_first(storage: Storage) -> Iterator[str]:
    lease = last(storage)
    if lease is None:
        return
    yield lease.run_id
    for before in earlier(storage, lease):  # that one may have been killed before it had a record
        yield before.run_id
