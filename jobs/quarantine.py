"""What could not be processed: listed, grouped, and tried again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from jobs.attempt import RunResult, go_on
from jobs.fingerprint import INPUT, changes, fingerprint, recipe, run_id
from jobs.lease import wait_until_free
from jobs.planning import listed, plan_retry
from jobs.records import Record, current, read_record, read_spec, read_table
from jobs.resolve import resolve
from jobs.spec import SpecError, overridden, parse_job
from pipelines.commits import Commits
from pipelines.index import read_quarantine
from pipelines.listing import digest_of
from pipelines.manifest import Manifest, newest, numbered
from pipelines.meter import Progress
from pipelines.plan import count_shards
from pipelines.sink import Sink
from pipelines.storage import Storage, open_storage
from pipelines.tensors import Format


@dataclass(frozen=True)
class Group:
    """Failures of one class at one stage, from one place in the code."""

    error: str
    stage: str
    traceback_digest: str
    rows: int
    items: int
    example_uri: str
    example_member: str | None
    example_message: str


def table_of(out: str) -> tuple[Storage, Manifest]:
    """An output and its table, by its folder or URI or that of one of its runs. Raises SpecError."""
    storage = _storage(out)
    found = newest(storage)
    if found is None:
        raise SpecError(
            f"No finished run in {storage.uri}: expected manifests/<n>.json there. Name an output's folder or URI; of "
            "a run that is not done, run its job to its end first."
        )
    return storage, found


def _storage(out: str) -> Storage:
    root, runs, _ = out.rstrip("/").rpartition("/runs/")
    return open_storage(root if runs else out)


def errors(out: str, error: str | None = None) -> pa.Table:
    """The rows of an output's quarantine table, of one class if named; of a run that is not done, those so far."""
    storage = _storage(out)
    known = current(storage)
    table = newest(storage)
    if known and (table is None or table.run_id != known.run_id):
        rows = quarantined(storage, known, None)
    else:
        rows = read_quarantine(storage, table_of(out)[1].quarantine)
    return rows if error is None else rows.filter(pc.equal(rows["error"], error))


def quarantined(storage: Storage, record: Record, manifest: int | None) -> pa.Table:
    """The rows of a run's quarantine table: of the table that it published, else those committed so far."""
    if manifest is not None:
        return read_quarantine(storage, numbered(storage, manifest).quarantine)
    job = parse_job(read_spec(storage, record))
    format: Format = "arrow" if job.options.staged else job.format
    sink = Sink(storage, record.run_id, 0, format, pa.schema([]), "{}", job.options.staged)
    commits = Commits(sink, count_shards(read_table(storage, record, "plan")))
    return read_quarantine(
        storage, [commit.quarantine for commit in commits.quarantined() if commit.quarantine]
    )


def grouped(rows: pa.Table) -> list[Group]:
    """The rows by class, stage and place in the code, the most frequent first."""
    keys = ["error", "stage", "traceback_digest"]
    counted = rows.group_by(keys, use_threads=False).aggregate(
        [
            ([], "count_all"),
            ("item_id", "count_distinct"),
            ("uri", "first"),
            ("member", "first"),
            ("message", "first"),
        ]
    )
    groups = [
        Group(
            error=row["error"],
            stage=row["stage"],
            traceback_digest=row["traceback_digest"],
            rows=row["count_all"],
            items=row["item_id_count_distinct"],
            example_uri=row["uri_first"],
            example_member=row["member_first"],
            example_message=row["message_first"],
        )
        for row in counted.to_pylist()
    ]
    return sorted(groups, key=lambda group: (-group.rows, group.error, group.stage, group.traceback_digest))


def retry_errors(
    out: str, error: str | None, overrides: Sequence[str], progress: Progress
) -> RunResult | None:
    """Try again what is in quarantine, of one class if it is named; None if there is nothing that can be.

    What succeeds is in the next manifest's table, what fails again stays in quarantine. The job is that of the run that
    made the table; `overrides` may change what rows don't depend on, such as limits. Raises what `run_job` does.
    """
    began = time.monotonic()
    storage, manifest = table_of(out)
    bad = read_quarantine(storage, manifest.quarantine)
    if error is not None and error not in (known := sorted(set(bad["error"].to_pylist()))):
        raise SpecError(
            f"Nothing in quarantine is of the class {error}. There is: {', '.join(known) or 'nothing'}."
        )
    base = read_record(storage, manifest.run_id)
    assert base  # a closed run has one
    document = read_spec(storage, base)
    document["output"]["uri"] = storage.uri  # it may have been moved
    job = parse_job(overridden(document, overrides), f"The job of run {manifest.run_id}")
    resolved = resolve(job, progress)
    before = read_table(storage, base, "inputs")
    listing = listed(resolved.source, progress)
    what = fingerprint(job, resolved.checkpoint, resolved.model, listing)
    if recipe(what) != recipe(base.fingerprint):
        differs = changes(recipe(base.fingerprint), recipe(what), before, listing)
        raise SpecError(
            f"{storage.uri} can't be retried as it was made: {'; '.join(differs)}. Retry with what made it, or run the "
            "job with --supersede."
        )
    lease = wait_until_free(storage, progress.say)
    begun = current(storage)
    if begun and (begun.kind, begun.base, begun.errors) == ("retry", manifest.number, error):
        return go_on(begun, None, resolved, lease, progress, began)
    if begun and begun.run_id != manifest.run_id:
        raise SpecError(
            f"Run {begun.run_id} in {storage.uri} is not done: run its job to its end first, or supersede it."
        )
    chosen = bad if error is None else bad.filter(pc.equal(bad["error"], error))
    planned = plan_retry(resolved, listing, before, chosen, progress)
    if planned is None:
        return None
    # The job as it was is this table's still: other limits are only for what is tried again.
    what |= {INPUT: digest_of(planned.listing), "limits": base.fingerprint["limits"]}
    record = Record(
        run_id(storage.uri, what, manifest.number, "retry", error), "retry", manifest.number, what, error
    )
    return go_on(record, planned, resolved, lease, progress, began)
