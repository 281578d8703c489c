"""What is new in an input since its table was made, for `input.select: new`: snapshots are compared, no clock."""

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.fingerprint import LIMIT, recipe
from jobs.records import Record, read_record, read_table
from jobs.resolve import Resolved
from jobs.spec import SpecError
from pipelines.errors import PASSING, READ
from pipelines.index import read_index, read_quarantine
from pipelines.listing import Changes, compare, of_files, only
from pipelines.manifest import Manifest
from pipelines.sink import file_schema, schema_of
from pipelines.storage import Storage
from pipelines.supersede import replaced_table
from pipelines.tensors import is_tensor

_NAMED = 20  # deleted files that an event names


@dataclass(frozen=True)
class News:
    """What a run of what is new does, beside the table that is there."""

    files: pa.Table  #: of the listing: all items in them are done
    again: frozenset[str]  #: items of other files that are done again: what kept them out may have passed
    again_in: pa.Table  #: of the listing: the files that these are in
    replaced: pa.Table  #: of the table before
    listing: pa.Table  #: the files that the table has the items of, once the run is closed
    added: int  #: files
    changed: int  #: files
    stale: int  #: files that another recipe made rows of
    deleted: tuple[str, ...]  #: files of the table that are not there any more
    deleted_kept: bool  #: whether their rows stay

    def __bool__(self) -> bool:
        return bool(self.files.num_rows or self.again or self.replaced.num_rows)

    def told(self) -> dict[str, Any]:
        """As an event's fields."""
        return {
            "added": self.added,
            "changed": self.changed,
            "stale": self.stale,
            "retried": len(self.again),
            "deleted": len(self.deleted),
            "deleted_kept": self.deleted_kept,
            "deleted_uris": list(self.deleted[:_NAMED]),
        }


def news_since(
    table: Manifest,
    record: Record,
    what: dict[str, Any],
    resolved: Resolved,
    listing: pa.Table,
    storage: Storage,
) -> News:
    """What `listing` has that the table hasn't, or not so; `record` is of the run that made it, `what` the job's.

    Raises SpecError where the table is another task's, or rows that stay would not have the job's columns.
    """
    input = resolved.job.input
    if record.fingerprint["task"] != resolved.job.task:
        raise SpecError(
            f"output: {storage.uri} holds a table of {record.fingerprint['task']}, and this job is of "
            f"{resolved.job.task}: with input.select: new, a job goes on with a table of its own. Choose another "
            "output.uri, or replace the table with input.select: all and --supersede."
        )
    index = read_index(table.index, storage, ["item_id", "uri", "run_id", "error"])
    then = read_table(storage, record, "inputs")
    between = compare_inputs(then, listing, index, LIMIT in what or LIMIT in record.fingerprint)
    # Of an input with a limit, nobody has looked whether the other files are there.
    gone = only(then, between.gone) if input.limit is None else then.slice(0, 0)
    dropped = between.gone if input.deleted == "drop" else frozenset[str]()
    changed = between.changed
    stale = _stale(then, index, what, storage)
    redone = stale - changed - between.gone if input.stale == "redo" else frozenset[str]()
    if stale - changed - redone - dropped:
        _check_columns(table, resolved, storage)
    replaced = of_files(index, only(then, changed | redone | dropped)["uri"])
    elsewhere = only(then, changed | redone | between.gone)
    bad = _retryable(table, record, what, index, elsewhere, storage)
    again = frozenset(bad["item_id"].to_pylist())
    return News(
        files=only(listing, between.added | changed | redone),
        again=again,
        again_in=of_files(listing, bad["uri"].unique()),
        replaced=replaced_table([*replaced["item_id"].unique().to_pylist(), *sorted(again)], []),
        listing=listing if input.deleted == "drop" else pa.concat_tables([listing, only(then, between.gone)]),
        added=len(between.added),
        changed=len(changed),
        stale=len(redone),
        deleted=tuple(gone["uri"].to_pylist()),
        deleted_kept=input.deleted == "keep",
    )


def compare_inputs(then: pa.Table, now: pa.Table, index: pa.Table, limited: bool) -> Changes:
    """What differs between a table's input and one of today; `limited`: one of them may end in the midst of a file.

    Of such a file's items the table may have too few, or too many: it counts as changed.
    """
    between = compare(then, now)
    if not limited:
        return between
    last = {file for listing in (then, now) for file in listing["item_id"][-1:].to_pylist()}
    whole = {*index.filter(pc.is_in(index["item_id"], value_set=pa.array(last)))["item_id"].to_pylist()}
    return replace(between, changed=between.changed | (last - whole - between.added - between.gone))


def _stale(then: pa.Table, index: pa.Table, what: dict[str, Any], storage: Storage) -> frozenset[str]:
    """The files with rows that were made by another recipe, whichever run that was."""
    runs = []
    for run_id in index["run_id"].unique().to_pylist():
        record = read_record(storage, run_id)
        if record is None or recipe(record.fingerprint) != recipe(what):
            runs.append(run_id)
    rows = index.filter(pc.is_in(index["run_id"], value_set=pa.array(runs, pa.string())))
    return frozenset(of_files(then, rows["uri"].unique())["item_id"].to_pylist())


def _check_columns(table: Manifest, resolved: Resolved, storage: Storage) -> None:
    """Refuse to put rows beside others of other columns."""
    job, part = resolved.job, table.parts[0].path
    if job.options.staged:
        fields = [field for field in file_schema(resolved.columns, "arrow") if not is_tensor(field.type)]
        wanted = pa.schema(fields)
    else:
        wanted = file_schema(resolved.columns, job.format)
    there = schema_of(storage, part)
    if not part.endswith(f".{job.format}"):
        differs = f"the format is {job.format}"
    elif not there.equals(wanted):
        differs = f"columns are others: {', '.join(sorted({field.name for field in {*there} ^ {*wanted}}))}"
    else:
        return
    raise SpecError(
        f"output: rows that stay in {storage.uri} don't fit to this job's, of which {differs}. Set input.stale to redo "
        "(and input.deleted to drop, where it is rows of deleted files that stay), or choose another output.uri."
    )


def _retryable(
    table: Manifest,
    record: Record,
    what: dict[str, Any],
    index: pa.Table,
    elsewhere: pa.Table,
    storage: Storage,
) -> pa.Table:
    """What is in quarantine by what may have passed, or by limits that are others now; not of files `elsewhere`."""
    bad = index.filter(pc.is_valid(index["error"]))
    bad = bad.filter(pc.invert(pc.is_in(bad["uri"], value_set=elsewhere["uri"].combine_chunks())))
    if not bad.num_rows or record.fingerprint["limits"] != what["limits"]:
        return bad
    rows = read_quarantine(storage, table.quarantine)
    rows = rows.filter(
        pc.or_(
            pc.equal(rows["stage"], READ), pc.is_in(rows["error"], value_set=pa.array(PASSING, pa.string()))
        )
    )
    return bad.filter(pc.is_in(bad["item_id"], value_set=pa.array(rows["item_id"].to_pylist(), pa.string())))
