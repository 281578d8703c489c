"""Which run a job is in its output: one that is there, or a new one; refused where that is another job's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.fingerprint import INPUT, changes, fingerprint, recipe, run_id
from jobs.lease import attempts
from jobs.news import News, news_since
from jobs.planning import listed, sink_of
from jobs.records import Kind, Record, current, read_record, read_table
from jobs.resolve import Resolved, resolve
from jobs.spec import Job, SpecError
from pipelines.listing import digest_of
from pipelines.manifest import Manifest, closed, newest, numbered
from pipelines.meter import Progress
from pipelines.pools import NOTHING, Node
from pipelines.storage import Storage, open_storage


@dataclass(frozen=True)
class Found:
    """Which run a job is."""

    resolved: Resolved
    listing: pa.Table  #: of the input as it is
    record: Record  #: the run's, in the output or to be
    table: Manifest | None  #: where nothing is left to do: the one that is there
    news: News | None = None  #: of `input.select: new`, where a table is there
    before: Record | None = None  #: a run of the same recipe that is not done: it is gone on with first


def which(
    job: Job,
    progress: Progress,
    supersede: bool = False,
    nodes: Sequence[Node] | None = None,
    fire: str = "",
    held: Node = NOTHING,
) -> Found:
    """Which run the job is in its output; nothing is written. Raises SpecError, also where that is another's.

    With `fire`, the time that a schedule means, it is that fire's run: one, however often it is tried. `held`: what of
    the nodes others have.
    """
    resolved = resolve(job, progress, nodes, held)
    storage = open_storage(job.output.uri)
    listing = listed(resolved.source, progress, job.input.limit)
    what = fingerprint(job, resolved.checkpoint, resolved.model, listing)
    known = current(storage)
    id = run_id(storage.uri, recipe(what), fire) if fire else None
    begun = read_record(storage, id) if id else None
    if begun:
        return Found(resolved, listing, begun, _closed(storage, begun, resolved))
    if known and job.input.select == "new":
        return _of_news(known, what, resolved, listing, storage, fire, id)
    if known and known.fingerprint == what and not fire:
        return Found(resolved, listing, known, _closed(storage, known, resolved))
    if known and not (supersede or fire):
        raise _refusal(storage, known, what, listing)
    return Found(resolved, listing, _new_record(known is None, storage, what, fire, id), None)


def _closed(storage: Storage, record: Record, resolved: Resolved) -> Manifest | None:
    """The table that a run closed: the newest, if that is its own and its files are there, or one since superseded."""
    found = closed(sink_of(storage, record, resolved, attempts(storage, record.run_id)))
    last = newest(storage)
    number = (record.base or 0) + 1
    if found or last is None or last.number <= number:
        return found
    own = numbered(storage, number)
    return own if own.run_id == record.run_id else None


def _of_news(
    known: Record,
    what: dict[str, Any],
    resolved: Resolved,
    listing: pa.Table,
    storage: Storage,
    fire: str,
    id: str | None,
) -> Found:
    """The run of what is new since the table was made."""
    same = recipe(known.fingerprint) == recipe(what)
    if same and _closed(storage, known, resolved) is None:
        record = _new_record(False, storage, what, fire, id) if fire else known
        return Found(resolved, listing, record, None, before=known)
    table = newest(storage)
    if table is None:
        return Found(resolved, listing, _new_record(True, storage, what, fire, id), None)
    made = read_record(storage, table.run_id)
    assert made  # a closed run has one
    news = news_since(table, made, what, resolved, listing, storage)
    if not news:
        return Found(resolved, listing, made, table, news)
    what = what | {INPUT: digest_of(news.listing)}
    id = id or run_id(storage.uri, what, table.number, "incremental")
    record = Record(id, "incremental", table.number, what, news=news.told(), fire=fire)
    return Found(resolved, listing, read_record(storage, id) or record, None, news)


def _new_record(first: bool, storage: Storage, what: dict[str, Any], fire: str, id: str | None) -> Record:
    """What a new run is, `first` of a new output or superseding what is there."""
    base = None if first else newest(storage)
    table = base and read_record(storage, base.run_id)
    kind: Kind = "first" if first else "all"
    if table and recipe(table.fingerprint) == recipe(what) and not fire:
        kind = "changed"
    number = base.number if base else None
    id = id or run_id(storage.uri, what, *([number, kind] if base else []))
    # It may have begun, and been superseded before it was done, by one that wasn't done either.
    return read_record(storage, id) or Record(id, kind, number, what, fire=fire)


def _refusal(storage: Storage, known: Record, what: dict[str, Any], listing: pa.Table) -> SpecError:
    """Why a job is not run into an output that holds another run's, and what to do."""
    then = read_table(storage, known, "inputs")
    named = "; ".join(changes(known.fingerprint, what, then, listing))
    table = newest(storage)
    if table and recipe(known.fingerprint) == recipe(what):
        does = "do what is new or changed, and leave out what is gone"
    else:
        does = "put this job's table in place of that one"
    return SpecError(
        f"output: {storage.uri} already holds run {known.run_id}, which differs from this job: {named}. Choose another "
        f"output.uri, run the job as it was to resume it, or add --supersede to {does}."
    )
