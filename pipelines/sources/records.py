"""CSV and JSON Lines: tables without footers, indexed by the byte range of every record."""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from pipelines.addresses import legible, path_of
from pipelines.items import InputError, Item, list_items, open_item
from pipelines.limits import Limits
from pipelines.sources import Opened, SourceError, place
from pipelines.sources.cells import Cells
from pipelines.sources.lines import BOM, Spans, line_spans, span_items
from pipelines.sources.tables import partition

CSV = (".csv",)
JSONL = (".jsonl", ".ndjson")

_SAMPLE = 1000  # records from which types are inferred
_NULLS = frozenset(
    ("", "NA", "N/A", "NULL", "NaN", "nan", "null", "n/a", "#N/A")
)  # of columns that aren't text
_CSV_TYPES = (
    pa.types.is_int64,
    pa.types.is_float64,
    pa.types.is_boolean,
    pa.types.is_date32,
    pa.types.is_timestamp,
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Records:
    """A record of a CSV or JSON Lines file is an item; the whole file is read once to find where they are."""

    uris: tuple[str, ...]
    suffixes: tuple[str, ...]
    others: tuple[str, ...]  #: of files that may not lie beside them
    cells: tuple[Cells, ...]
    kept: pa.Schema
    partitions: frozenset[str]  #: of what is kept, what is in the names of folders (key=value)
    limits: Limits

    def files(self) -> Iterator[Item]:
        return list_items(self.uris, self.suffixes, self.others)

    def items(self, files: Iterable[Item] | None = None) -> Iterator[Item]:
        some = False
        for file in self.files() if files is None else files:
            for item in span_items(file, _spans(file.uri, self.limits.text)):
                some = True
                yield item
        if not some:
            raise InputError(f"No rows in {', '.join(self.uris)}: all tables there are empty.")

    def reader(self) -> "RecordsReader":
        return RecordsReader(self)


class RecordsReader:
    """Opens records, each parsed by itself: a bad one spoils no other."""

    def __init__(self, source: Records) -> None:
        self.source = source
        self.spans = Spans()
        self.headers: dict[str, list[str]] = {}
        _allow(source.limits.text)

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        at = place(item)
        uri = item["uri"]
        self.source.limits.check("text", at["size"], "bytes of the record")
        data = self.spans.read(uri, at["offset"], at["size"])
        row = _json(data) if uri.lower().endswith(JSONL) else _csv(data, self._header(uri))
        kept = {}
        for field in self.source.kept:
            if field.name in self.source.partitions:
                kept[field.name] = pa.scalar(partition(uri, field.name), field.type)
            else:
                kept[field.name] = _typed(row.get(field.name), field)
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for cells in self.source.cells:
                if cells.column not in row and uri.lower().endswith(CSV):
                    cells.check(pa.schema([(legible(name), pa.string()) for name in row]), "the table")
                value = row.get(cells.column)
                if not isinstance(value, str | None):
                    raise SourceError(
                        f"column {cells.column}: expected a string; got {json.dumps(value)[:80]}."
                    )
                # What wasn't UTF-8 becomes its bytes again: that is the task's affair.
                cell = None if value is None else value.encode(errors="surrogateescape")
                file = cells.open_string(cell, posixpath.dirname(path_of(uri)))
                files[cells.content.name] = stack.enter_context(file)
            yield Opened(files, kept)

    def close(self) -> None:
        self.spans.close()
        self.headers.clear()

    def _header(self, uri: str) -> list[str]:
        if uri not in self.headers:
            self.headers = {uri: read_header(uri, self.source.limits)}
        return self.headers[uri]


def read_schema(uri: str, limits: Limits) -> pa.Schema:
    """The columns of a CSV or JSON Lines file, their types as its first records have them. Raises InputError."""
    rows = []
    try:
        with open_item(uri) as file:
            spans = []
            with suppress(ValueError):  # what can't be read further is listed as a bad item
                for span in islice(_spans(uri, limits.text)(file), _SAMPLE):
                    spans.append(span)
            for offset, size in spans:
                file.seek(offset)
                rows.append(file.read(size))
    except OSError as error:
        raise InputError(f"{uri} can't be read: {error}") from error
    if uri.lower().endswith(CSV):
        header = read_header(uri, limits)
        if odd := [legible(name) for name in header if legible(name) != name]:
            raise InputError(
                f"{uri}: its header is not UTF-8, in {', '.join(odd)}. Write the table in UTF-8, by iconv for example."
            )
        return _csv_schema(header, rows)
    columns: dict[str, list[Any]] = {}
    for data in rows:
        try:
            row = _json(data)
            json.dumps(row, ensure_ascii=False).encode()  # half characters (\ud800) are of no type
        except (SourceError, UnicodeEncodeError):
            continue  # it will be a quarantine row, or its other columns do
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    fields = []
    for name, values in columns.items():
        try:
            type = pa.array(values).type
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            type = pa.null()  # values of several kinds: refused where the column is to be kept
        fields.append(pa.field(name, type))
    return pa.schema(fields)


def read_header(uri: str, limits: Limits) -> list[str]:
    """The names in a CSV file's first record."""
    with open_item(uri) as file:
        for offset, size in _csv_spans(file, limits.text, header=True):
            file.seek(offset)
            names = _cells(file.read(size))
            if len(set(names)) < len(names):
                raise InputError(f"{uri} names a column twice: {', '.join(map(legible, names))}.")
            return names
    return []


def strings(schema: pa.Schema) -> pa.Schema:
    """A schema whose columns without a type may hold strings: a record that has none says so itself."""
    null = pa.types.is_null
    return pa.schema([(field.name, pa.string() if null(field.type) else field.type) for field in schema])


def _csv_schema(names: list[str], rows: Sequence[bytes]) -> pa.Schema:
    fields = []
    table = [_cells(data) for data in rows]
    for i, name in enumerate(names):
        found = [row[i] for row in table if len(row) == len(names)]
        fields.append(pa.field(name, _csv_type(found)))
    return pa.schema(fields)


def _csv_type(values: Sequence[str]) -> pa.DataType:
    """The narrowest type that Arrow's CSV reader would give these cells, of those that a cell can be cast to."""
    column = io.StringIO(newline="")
    csv.writer(column, quoting=csv.QUOTE_ALL).writerows([["x"], *([value] for value in values)])
    options = pa.csv.ConvertOptions(null_values=list(_NULLS))
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    data = io.BytesIO(column.getvalue().encode(errors="replace"))
    type = pa.csv.read_csv(data, convert_options=options, parse_options=parse).schema.field("x").type
    return type if any(is_it(type) for is_it in _CSV_TYPES) else pa.string()


def _typed(value: Any, field: pa.Field) -> pa.Scalar:
    """A record's value under the column's type."""
    try:
        if isinstance(value, str) and not pa.types.is_string(field.type):
            if value in _NULLS:
                return pa.scalar(None, field.type)
            return pa.scalar(value).cast(field.type)
        return pa.scalar(value, field.type)
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        UnicodeError,
        OverflowError,
    ) as error:
        raise SourceError(
            f"column {field.name}: expected {field.type}, as the first table's first rows have it; got "
            f"{str(value)[:80]!r}. Mend the cell, or write the table as Parquet, which has types."
        ) from error


def _spans(uri: str, limit: int) -> Callable[[BinaryIO], Iterator[tuple[int, int]]]:
    return partial(_csv_spans, limit=limit) if uri.lower().endswith(CSV) else _jsonl_spans


def _jsonl_spans(file: BinaryIO) -> Iterator[tuple[int, int]]:
    yield from (span for span in line_spans(file) if span[1])


def _csv_spans(file: BinaryIO, limit: int, header: bool = False) -> Iterator[tuple[int, int]]:
    """Where a CSV file's records are, those of several lines too, as newlines may be quoted; or where its header is."""
    _allow(limit)
    end = len(BOM) if file.read(len(BOM)) == BOM else 0
    file.seek(end)

    def lines() -> Iterator[str]:
        nonlocal end
        while line := file.readline(limit + 1):
            if len(line) > limit:
                raise ValueError(f"a line has more than the {limit:,} bytes that limits.text allows")
            end += len(line)
            yield line.decode(errors="surrogateescape")

    records = csv.reader(lines(), strict=True)
    wanted = header
    while True:
        start = end
        try:
            if not next(records):
                continue  # an empty line
        except StopIteration:
            return
        except csv.Error:
            pass  # its reader will say what is wrong with it
        if wanted:
            yield start, end - start
        if header:
            return
        wanted = True


def _allow(limit: int) -> None:
    """The csv module's own limit is one for all the process; ours is checked beside it."""
    csv.field_size_limit(max(limit, csv.field_size_limit()))


def _json(data: bytes) -> Row:
    try:
        row = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"expected a JSON object on its line; got {data[:80]!r}: {error}.") from error
    if not isinstance(row, dict):
        raise SourceError(f"expected a JSON object on its line; got {data[:80]!r}.")
    return row


def _csv(data: bytes, header: Sequence[str]) -> Row:
    try:
        cells = _cells(data)
    except csv.Error as error:
        raise SourceError(f"expected a CSV record; got {data[:80]!r}: {error}.") from error
    if len(cells) != len(header):
        raise SourceError(
            f"expected {len(header)} cells ({', '.join(header)}), got {len(cells)}: {data[:80]!r}. "
            "A cell that holds commas or newlines needs quotes."
        )
    return dict(zip(header, cells, strict=True))


def _cells(data: bytes) -> list[str]:
    text = io.StringIO(data.decode(errors="surrogateescape"), newline="")
    return next(csv.reader(text, strict=True), [])
