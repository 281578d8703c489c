"""The listing: an input's files and their versions. A run is planned from one; a later one tells what changed."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.items import Item
from pipelines.sources import Source

LISTING = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)
_ROWS = 16_384  # that are Python objects at once


def list_files(
    source: Source, seen: Callable[[int], None] = lambda _: None, limit: int | None = None
) -> pa.Table:
    """List the input's files, or those that its first `limit` items are in; `seen` hears how many there are so far.

    Raises InputError.
    """
    batches, rows, count = [], [], 0
    for file in source.files() if limit is None else _files_of(source, limit):
        rows.append((file.item_id, file.uri, file.version, file.size))
        if len(rows) == _ROWS:
            batches.append(_batch(rows))
            count, rows = count + len(rows), []
            seen(count)
    return pa.Table.from_batches([*batches, _batch(rows)], LISTING)


def _files_of(source: Source, limit: int) -> Iterator[Item]:
    """The files that the first `limit` items are in: those after them are not listed, but for a few by name."""
    listed: list[Item] = []

    def noted() -> Iterator[Item]:
        for file in source.files():
            listed.append(file)
            yield file

    last = None
    for item in islice(source.items(noted()), limit):
        last = item.uri
    for file in listed:  # sources read ahead
        yield file
        if file.uri == last:
            return


def _batch(rows: list[tuple[str, str, str, int]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((),) * len(LISTING)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, LISTING, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=LISTING)


def digest_of(listing: pa.Table) -> str:
    """A hash of what was listed, for the run's fingerprint."""
    sha = hashlib.sha256()
    for batch in listing.to_batches(max_chunksize=_ROWS):
        columns = (batch[name].to_pylist() for name in ("item_id", "uri", "version", "size"))
        text = "".join(
            f"{i}\0{uri}\0{version}\0{size}\n" for i, uri, version, size in zip(*columns, strict=True)
        )
        sha.update(text.encode(errors="surrogatepass"))
    return sha.hexdigest()


def as_items(listing: pa.Table) -> Iterator[Item]:
    """The listed files, as sources take them."""
    for batch in listing.to_batches(max_chunksize=_ROWS):
        for row in batch.to_pylist():
            yield Item(**row)


def items_of(source: Source, listing: pa.Table, limit: int | None, files: pa.Table) -> Iterator[Item]:
    """The items in some of the listed files, of the first `limit` ones in all of them."""
    if limit is None:
        yield from source.items(as_items(files))
        return
    wanted = set(files["uri"].to_pylist())
    yield from (item for item in islice(source.items(as_items(listing)), limit) if item.uri in wanted)


@dataclass(frozen=True)
class Changes:
    """Between two listings, by files' ids. A file that lies elsewhere now has changed: plans say where files are."""

    added: frozenset[str]
    changed: frozenset[str]
    gone: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.gone)

    def __str__(self) -> str:
        return f"{len(self.added)} files added, {len(self.changed)} changed, {len(self.gone)} gone"


def compare(then: pa.Table, now: pa.Table) -> Changes:
    """What a listing has that an earlier one had not, or not so."""
    old, new = _versions(then), _versions(now)
    return Changes(
        frozenset(new.keys() - old.keys()),
        frozenset(file for file in new.keys() & old.keys() if new[file] != old[file]),
        frozenset(old.keys() - new.keys()),
    )


def only(listing: pa.Table, files: Collection[str]) -> pa.Table:
    """The rows of some files."""
    return listing.filter(pc.is_in(listing["item_id"], value_set=pa.array(files, pa.string())))


def of_files(rows: pa.Table, uris: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows, of a listing, an index or the quarantine table, that are of files at these places."""
    return rows.filter(pc.is_in(rows["uri"], value_set=pa.array(uris.to_pylist(), pa.string())))


def _versions(listing: pa.Table) -> dict[str, tuple[str, str, int]]:
    columns = (listing[name].to_pylist() for name in ("uri", "version", "size"))
    return dict(zip(listing["item_id"].to_pylist(), zip(*columns, strict=True), strict=True))
