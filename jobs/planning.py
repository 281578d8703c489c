"""What a run is to do: its input listed, probed and cut into shards, and what of the table before that supersedes."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.local import cores
from jobs.budget import over
from jobs.fingerprint import LIMIT
from jobs.news import News, compare_inputs
from jobs.records import Record, read_record, read_table
from jobs.resolve import Resolved
from jobs.spec import Job, SpecError
from pipelines.decoding import Decoder
from pipelines.index import read_index
from pipelines.items import InputError, Item
from pipelines.listing import items_of, list_files, of_files, only
from pipelines.manifest import Manifest, numbered
from pipelines.meter import Progress
from pipelines.plan import PLAN, Probed, cut_shards, list_and_probe
from pipelines.sink import Sink
from pipelines.sources import Source
from pipelines.storage import Storage
from pipelines.supersede import REPLACED, replaced_table
from pipelines.tensors import is_tensor

_SHARD_BYTES = 128 << 20  # of decoded windows: what a worker holds twice, and what a crash costs at most
_SHARD_WINDOWS = 64


@dataclass(frozen=True)
class Planned:
    """What a run does, fixed before it begins."""

    plan: pa.Table
    listing: pa.Table  #: the files that the table has the items of, once the run is closed
    replaced: pa.Table  #: of the table before


def listed(source: Source, progress: Progress, limit: int | None = None) -> pa.Table:
    """The input's files, or those that its first `limit` items are in. Raises SpecError."""
    progress.stage("files listed", None)
    try:
        listing = list_files(source, progress.at, limit)
    except InputError as error:
        raise SpecError(f"input: {error}") from error
    progress.total(listing.num_rows)
    return listing


def plan_of(
    record: Record,
    resolved: Resolved,
    storage: Storage,
    listing: pa.Table,
    news: News | None,
    progress: Progress,
) -> Planned | None:
    """What a new run does; None of one that has begun, whose record says it."""
    if record.planned:
        return None
    if record.kind == "incremental":
        assert news  # what it is the record of
        return plan_news(resolved, news, progress)
    if record.base is None or record.kind == "all":
        return plan_all(resolved, listing, progress)
    base = numbered(storage, record.base)
    table = read_record(storage, base.run_id)
    assert table  # what is gone on from has a record
    limited = LIMIT in record.fingerprint or LIMIT in table.fingerprint
    then = read_table(storage, table, "inputs")
    return plan_changed(resolved, listing, base, then, limited, storage, progress)


def sink_of(storage: Storage, record: Record, resolved: Resolved, attempt: int) -> Sink:
    """Where an attempt's parts go."""
    job = resolved.job
    return Sink(
        storage=storage,
        run_id=record.run_id,
        attempt=attempt,
        format="arrow" if job.options.staged else job.format,
        columns=resolved.columns,
        about=json.dumps({"job": job.name, "run_id": record.run_id, **record.fingerprint}),
        staged=job.options.staged,
        again=record.kind != "first",
    )


def windows_of(plan: pa.Table, done: np.ndarray) -> int:
    """How many windows these shards have."""
    spans = done[plan["shard"].to_numpy()]
    return int((plan["stop"].to_numpy() - plan["first"].to_numpy())[spans].sum())


def plan_all(resolved: Resolved, listing: pa.Table, progress: Progress) -> Planned:
    """The whole input."""
    plan = _cut(resolved, _items(resolved, listing, listing), progress)
    return Planned(plan, listing, REPLACED.empty_table())


def plan_changed(
    resolved: Resolved,
    listing: pa.Table,
    base: Manifest,
    then: pa.Table,
    limited: bool,
    storage: Storage,
    progress: Progress,
) -> Planned:
    """The files that the table doesn't have yet, or not as they are now; items of files that are gone go.

    `then`: the input when the table was made. `limited`: this run has a limit, or the table was made with one.
    """
    index = read_index(base.index, storage, ["item_id", "uri"])
    between = compare_inputs(then, listing, index, limited)
    files = only(listing, between.added | between.changed)
    before = only(then, between.changed | between.gone)
    replaced = of_files(index, before["uri"])["item_id"].unique().to_pylist()
    plan = (
        _cut(resolved, _items(resolved, listing, files), progress) if files.num_rows else PLAN.empty_table()
    )
    return Planned(plan, listing, replaced_table(replaced, []))


def plan_news(resolved: Resolved, news: News, progress: Progress) -> Planned:
    """The items of files that are new, and some of others."""
    items = itertools.chain(
        _items(resolved, news.listing, news.files),
        (item for item in _items(resolved, news.listing, news.again_in) if item.item_id in news.again),
    )
    return Planned(_cut(resolved, items, progress), news.listing, news.replaced)


def _items(resolved: Resolved, listing: pa.Table, files: pa.Table) -> Iterator[Item]:
    return items_of(resolved.source, listing, resolved.job.input.limit, files)


def plan_retry(
    resolved: Resolved, listing: pa.Table, before: pa.Table, bad: pa.Table, progress: Progress
) -> Planned | None:
    """Rows of the quarantine table again, with what their files are now; None if none of them can be.

    `listing` is the input as it is, `before` as the table has it. Of a table or a tar that has changed, nothing is
    retried: its other rows are another version's, or not known. Of an item whose files are made of all its windows, and
    of one that has changed, all windows are done again.
    """
    now = {row["uri"]: row for row in of_files(listing, bad["uri"].unique()).to_pylist()}
    then = {row["uri"]: row["version"] for row in of_files(before, bad["uri"].unique()).to_pylist()}
    failed: dict[str, list[tuple[int, int]]] = {}
    taken: dict[str, Item] = {}
    for row in bad.select(["item_id", "uri", "member", "first", "stop"]).to_pylist():
        file = now.get(row["uri"])
        if file is None or (row["member"] is not None and file["version"] != then.get(row["uri"])):
            continue
        taken[row["uri"]] = Item(**file)
        failed.setdefault(row["item_id"], []).append((row["first"], row["stop"]))
    if not failed:
        return None
    items = (item for item in resolved.source.items(iter(taken.values())) if item.item_id in failed)
    plan = _cut(resolved, items, progress)
    assembly = resolved.job.options.assembly
    whole: list[str] = []
    spans: list[tuple[str, int]] = []
    rows = plan.select(["item_id", "uri", "version", "first", "stop"]).to_pylist()
    planned: dict[str, set[tuple[int, int]]] = {}
    for row in rows:
        planned.setdefault(row["item_id"], set()).add((row["first"], row["stop"]))
    versions = {row["item_id"]: (row["uri"], row["version"]) for row in rows}
    for item, cut in planned.items():
        uri, version = versions[item]
        if (assembly and assembly.whole_items) or version != then.get(uri) or not set(failed[item]) <= cut:
            whole.append(item)
        else:
            spans += [(item, first) for first, _ in failed[item]]
    all_of, some_of = set(whole), set(spans)
    keep = [row["item_id"] in all_of or (row["item_id"], row["first"]) in some_of for row in rows]
    plan = _renumbered(plan.filter(pa.array(keep, pa.bool_())))
    if not plan.num_rows:  # of a table that could not be read and now can, the items are its rows
        return None
    done = [taken[uri] for uri in {uri for uri, _ in versions.values()}]
    return Planned(plan, _updated(before, done), replaced_table(whole, spans))


def _renumbered(plan: pa.Table) -> pa.Table:
    """The plan with its shards counted from 0 again, each with the rows that are left of it."""
    numbers = plan["shard"].to_numpy()
    new = pa.array((numbers[1:] != numbers[:-1]).cumsum() if len(numbers) else [], pa.int32())
    first = pa.array([0] if len(numbers) else [], pa.int32())
    return plan.set_column(0, PLAN.field(0), pa.chunked_array([first, new])).combine_chunks()


def _updated(before: pa.Table, files: list[Item]) -> pa.Table:
    """A listing with the files as they are now."""
    versions = {file.uri: (file.version, file.size) for file in files}
    rows = [
        row
        | dict(zip(("version", "size"), versions.get(row["uri"], (row["version"], row["size"])), strict=True))
        for row in before.to_pylist()
    ]
    return pa.Table.from_pylist(rows, before.schema)


def _cut(resolved: Resolved, items: Iterable[Item], progress: Progress) -> pa.Table:
    """The items probed, and cut into shards."""
    job, config = resolved.job, resolved.config
    progress.stage("items planned", None)
    decoders = [Decoder(job.options, config, job.limits) for _ in range(cores())]
    asked = job.compute.shard_windows
    size = asked or _shard_windows(job.options.input_schema(config))
    try:
        probed = _watched(list_and_probe(resolved.source, decoders, items, _said(progress)), job, progress)
        return cut_shards(probed, size, None if asked else _SHARD_BYTES)
    except InputError as error:
        raise SpecError(f"input: {error}") from error
    finally:
        for decoder in decoders:
            decoder.close()


def _said(progress: Progress) -> Callable[..., None]:
    """What is retried while there is no run yet whose event that could be."""

    def say(kind: str, **fields: Any) -> None:
        progress.say(f"{kind}: {fields['uri']} ({fields['error']}), again in {fields['wait_s']:.0f} s")

    return say


def _watched(probed: Iterable[Probed], job: Job, progress: Progress) -> Iterator[Probed]:
    done = 0
    for done, one in enumerate(probed, 1):
        if one.error and job.on_error == "fail":
            raise over(job, done, 1, one.item.uri, one.error.stage, one.error.message)
        yield one
        progress.at(done)
    progress.total(done)


def _shard_windows(columns: pa.Schema) -> int:
    window = sum(
        field.type.storage_type.list_size * field.type.value_type.bit_width // 8
        for field in columns
        if is_tensor(field.type)
    )
    return max(1, min(_SHARD_WINDOWS, _SHARD_BYTES // max(1, window)))
