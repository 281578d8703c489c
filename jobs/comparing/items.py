"""Which items two tables share, and which of their files hold the same windows; by their indexes, no row is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.comparing.comparison import Failed, Few, Items
from pipelines.manifest import Part

_BITS = 32  # of a window's number, beside its item's


@dataclass(frozen=True)
class Pair:
    """A file of A's, and those of B's that hold some of the same windows."""

    a: str
    b: tuple[str, ...]
    items: pa.Array  #: ids of the items that are compared, of those in A's


def matched(a: pa.Table, b: pa.Table, limit: int | None, examples: int) -> tuple[Items, pa.Array]:
    """What two indexes say of their items, and the ids of those to compare: of the same version, with rows in both."""
    own, other = _by_item(a), _by_item(b)
    at = pc.index_in(own["item_id"], value_set=_array(other["item_id"]))
    found = own.filter(pc.is_valid(at))
    there = other.take(at.drop_null())
    missing = pc.invert(pc.is_in(other["item_id"], value_set=_array(own["item_id"])))
    alike = pc.equal(found["version"], there["version"])
    changed = found.filter(pc.invert(alike))
    found, there = found.filter(alike), there.filter(alike)
    bad, bad_there = pc.is_valid(found["error"]), pc.is_valid(there["error"])
    rows = pc.and_(pc.greater(found["parts"], 0), pc.greater(there["parts"], 0))
    chosen = _array(found.filter(rows)["item_id"])
    compared = chosen if limit is None else chosen[:limit]
    items = Items(
        both=found.num_rows,
        compared=len(compared),
        only_a=_few(own.filter(pc.is_null(at)), examples),
        only_b=_few(other.filter(missing), examples),
        other_version=_few(changed, examples),
        quarantined_a=_failed(found.filter(pc.and_(bad, pc.invert(bad_there))), examples),
        quarantined_b=_failed(there.filter(pc.and_(bad_there, pc.invert(bad))), examples),
        quarantined_both=_few(found.filter(pc.and_(bad, bad_there)), examples),
        beyond_limit=len(chosen) - len(compared),
    )
    return items, compared


def pairs(a: pa.Table, b: pa.Table, items: pa.Array) -> Iterator[Pair]:
    """A's files in the order of its table, each with those of B's that hold windows of the same spans."""
    own, other = _spans(a, items), _spans(b, items)
    # Spans of an item don't overlap: those of B that a span of A overlaps are neighbours in their order.
    begin = np.searchsorted(other.stops, own.starts, "right")
    end = np.searchsorted(other.starts, own.stops, "left")
    held = own.parts.dictionary_encode()
    codes = held.indices.to_numpy()
    order = np.argsort(codes, kind="stable")  # in the order in which files come up
    edges = np.searchsorted(codes[order], np.arange(len(held.dictionary) + 1))
    for number, name in enumerate(held.dictionary.to_pylist()):
        spans = order[edges[number] : edges[number + 1]]
        places = np.concatenate([np.arange(begin[span], end[span]) for span in spans])
        files = other.parts.take(pa.array(places.astype(np.int64))).unique().to_pylist()
        if files:
            chosen = items.take(pa.array(np.unique(own.items[spans])))
            yield Pair(name, tuple(files), chosen)


def files_with(
    index: pa.Table, parts: Sequence[Part], items: pa.Array
) -> Iterator[tuple[Part, pa.Array | None]]:
    """The files that hold rows of these items, with the ids of those that do; None where all of its items do."""
    good = index.filter(pc.is_valid(index["part"]))
    wanted = pc.is_in(good["item_id"], value_set=items)
    some = set(good.filter(wanted)["part"].unique().to_pylist())
    others = set(good.filter(pc.invert(wanted))["part"].unique().to_pylist())
    for part in parts:
        if part.path in some:
            yield part, items if part.path in others else None


@dataclass(frozen=True)
class _Spans:
    """The spans of some items, in the order of the items and their windows."""

    items: np.ndarray  #: which of the items
    starts: np.ndarray  #: the item's number and its first window, as one number
    stops: np.ndarray
    parts: pa.Array


def _spans(index: pa.Table, items: pa.Array) -> _Spans:
    good = index.filter(pc.is_valid(index["part"]))
    at = pc.index_in(good["item_id"], value_set=items)
    good = good.filter(pc.is_valid(at))
    number = at.drop_null().to_numpy().astype(np.int64)
    starts = (number << _BITS) + good["first"].to_numpy()
    order = np.argsort(starts, kind="stable")
    return _Spans(
        items=number[order],
        starts=starts[order],
        stops=((number << _BITS) + good["stop"].to_numpy())[order],
        parts=_array(good["part"].take(pa.array(order))),
    )


def _by_item(index: pa.Table) -> pa.Table:
    """An index's items in its order: where they are, how many spans have rows, and the class of an error, if any."""
    one = index.group_by("item_id", use_threads=False).aggregate(
        [("version", "first"), ("uri", "first"), ("member", "first"), ("part", "count"), ("error", "first")]
    )
    return one.select(
        ["item_id", "version_first", "uri_first", "member_first", "part_count", "error_first"]
    ).rename_columns(["item_id", "version", "uri", "member", "parts", "error"])


def _few(items: pa.Table, examples: int) -> Few:
    rows = items.slice(0, examples).select(["uri", "member"]).to_pylist()
    named = (row["uri"] + ("" if row["member"] is None else f" [{row['member']}]") for row in rows)
    return Few(items.num_rows, tuple(named))


def _failed(items: pa.Table, examples: int) -> tuple[Failed, ...]:
    """By class, the most frequent first."""
    kinds = items["error"].unique().to_pylist()
    groups = [Failed(kind, _few(items.filter(pc.equal(items["error"], kind)), examples)) for kind in kinds]
    return tuple(sorted(groups, key=lambda group: (-group.items.count, group.error)))


def _array(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
