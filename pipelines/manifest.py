"""Manifests: the account of a run, closed when every item is either in a part or in quarantine.

The highest-numbered manifest of an output is its table; a number is claimed by creating its file.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import commit_points
from pipelines.sink import Sink
from pipelines.storage import OutputError, Storage, create_text

_VERSION = 3


@dataclass(frozen=True)
class Part:
    """One file of the table."""

    path: str  #: relative to the output
    rows: int


@dataclass(frozen=True)
class Manifest:
    """The table: which files hold it, and how it adds up."""

    number: int
    run_id: str  #: of the run that closed it
    base: int | None  #: the manifest whose table this run went on from, or took the place of
    items: int
    rows: int
    quarantined: int  #: rows of the quarantine table: spans that the table misses
    items_quarantined: int  #: items that miss at least one span
    parts: tuple[Part, ...]
    quarantine: tuple[str, ...]  #: the files of the quarantine table, relative to the output
    index: str  #: the file that says which part holds an item
    closed: str = field(default="", compare=False)  #: when, in UTC


def newest(storage: Storage) -> Manifest | None:
    """The output's table, or None while no run has been closed in it."""
    names = list(storage.names("manifests"))
    return _read(storage, names[-1]) if names else None


def numbered(storage: Storage, number: int) -> Manifest:
    """An earlier table."""
    return _read(storage, _name(number))


def closed(sink: Sink) -> Manifest | None:
    """The newest manifest, if it is this run's and the table's files are there: then nothing is left to do."""
    found = newest(sink.storage)
    if found is None or found.run_id != sink.run_id:
        return None
    there = set(sink.storage.names("data"))
    return found if all(part.path in there for part in found.parts) else None


def account(plan: pa.Table, commits: pa.Table) -> None:
    """Raise OutputError, naming the shards, unless every span of the plan is in the commits exactly once."""
    size = int(max([*plan["shard"].to_numpy()[-1:], *commits["shard"].to_numpy()[-1:]], default=-1)) + 1
    expected = np.bincount(plan["shard"].to_numpy(), minlength=size)
    found = np.bincount(commits["shard"].to_numpy(), commits["spans"].to_numpy(), minlength=size).astype(int)
    wrong = np.flatnonzero(expected != found).tolist()
    if wrong:
        named = [f"{shard} ({found[shard] or 'none'} of {expected[shard]} spans)" for shard in wrong[:10]]
        raise OutputError(
            f"The output doesn't add up: of {np.count_nonzero(expected)} shards, {len(wrong)} are missing or "
            f"incomplete: {', '.join(named)}. Run the job again to resume; if it stays, report it as a bug."
        )


def close(
    sink: Sink, base: int | None, index: pa.Table, name: str, parts: Sequence[Part], quarantine: Sequence[str]
) -> Manifest:
    """Publish the table; closing a closed run changes nothing. The index's file is there already.

    Raises OutputError where the index has a span twice, or another run has closed a table meanwhile.
    """
    _check_once(index)
    bad = index.filter(pc.is_valid(index["error"]))
    before = newest(sink.storage)
    number = before.number if before and before.run_id == sink.run_id else (base or 0) + 1
    if before and before.run_id != sink.run_id and before.number != base:
        raise OutputError(
            f"{sink.storage.uri} has got another table meanwhile: run {before.run_id} closed manifest {before.number}. "
            f"This run went on from {f'manifest {base}' if base else 'none'}; nothing of it is lost. Run the job "
            "again, which says what it would supersede."
        )
    manifest = Manifest(
        number=number,
        run_id=sink.run_id,
        base=base,
        items=pc.count_distinct(index["item_id"]).as_py(),
        rows=sum(part.rows for part in parts),
        quarantined=bad.num_rows,
        items_quarantined=pc.count_distinct(bad["item_id"]).as_py(),
        parts=tuple(parts),
        quarantine=tuple(quarantine),
        index=name,
        closed=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if before == manifest:
        return before
    if before and before.run_id == sink.run_id:  # some of it was lost and has been done again
        manifest = Manifest(**vars(manifest) | {"number": number + 1})
    text = json.dumps({"version": _VERSION, **asdict(manifest)}, indent=1)
    if not create_text(sink.storage, _name(manifest.number), text):
        raise OutputError(
            f"{sink.storage.where(_name(manifest.number))} has been written by another run meanwhile. Nothing of this "
            "one is lost: run the job again, which says what it would supersede."
        )
    commit_points.passing("manifest published")
    return manifest


def _check_once(index: pa.Table) -> None:
    """Every span of the table is there once."""
    counted = index.group_by(["item_id", "first"]).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    if twice.num_rows:
        raise OutputError(
            f"The output doesn't add up: {twice.num_rows} spans are in the table twice, such as item "
            f"{twice['item_id'][0]} from window {twice['first'][0]}. Report it as a bug."
        )


def _name(number: int) -> str:
    return f"manifests/{number:06d}.json"


def _read(storage: Storage, name: str) -> Manifest:
    text: dict[str, Any] = json.loads(storage.read(name))
    if text.pop("version") != _VERSION:
        raise OutputError(
            f"{storage.where(name)} is not a manifest of version {_VERSION}: it was written by another "
            "perceiver-batch. Read it with that one, or choose another output."
        )
    parts = tuple(Part(**part) for part in text.pop("parts"))
    return Manifest(**text | {"parts": parts, "quarantine": tuple(text["quarantine"])})
