"""Tables whose footers say what they hold: Parquet by row groups, Arrow IPC (Feather) by record batches."""

import json
import posixpath
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.addresses import legible, path_of
from pipelines.items import InputError, Item, list_items, member_id, open_item
from pipelines.limits import Limits
from pipelines.sources import Opened, SourceError, faulty, place
from pipelines.sources.cells import Cells, kept_field, kept_value

PARQUET = (".parquet",)
ARROW = (".arrow", ".feather")

_AT_ONCE = 8  # footers that are read at once: from afar each takes two answers


class Groups(Protocol):
    """One table file: its schema, and the groups of rows that are read at once."""

    schema: pa.Schema

    @property
    def rows(self) -> int:
        """How many there are, by the whole file's account."""

    def sizes(self) -> Iterator[tuple[int, int]]:
        """For each group its rows and about how many bytes one of them has; reads no values that it needn't."""

    def read(self, group: int, columns: Sequence[str]) -> pa.Table: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Tables:
    """A row of a Parquet or Arrow file is an item; a row's media are read to probe them, where a task probes."""

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
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            ahead: deque[tuple[Item, Future[list[tuple[int, int]]]]] = deque()
            for file in self.files() if files is None else files:
                ahead.append((file, pool.submit(self._index, file.uri)))
                if len(ahead) > _AT_ONCE:
                    for item in _rows(*ahead.popleft()):
                        some = True
                        yield item
            for one in ahead:
                for item in _rows(*one):
                    some = True
                    yield item
        if not some:
            raise InputError(f"No rows in {', '.join(self.uris)}: all tables there are empty.")

    def reader(self) -> "TablesReader":
        return TablesReader(self)

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        wanted = [*(cells.column for cells in self.cells), *self.kept.names]
        return [name for name in dict.fromkeys(wanted) if name not in self.partitions]

    def _index(self, uri: str) -> list[tuple[int, int]]:
        groups = open_groups(uri)
        try:
            for cells in self.cells:
                cells.check(groups.schema, "the table")
            for name in self.kept.names:
                if name in self.partitions:
                    partition(uri, name)
                elif name not in groups.schema.names:
                    raise InputError(f"the table has no column {name}, which input.keep asks for")
            sizes = list(groups.sizes())
            rows = sum(rows for rows, _ in sizes)
            if rows != groups.rows or any(rows < 0 for rows, _ in sizes):
                raise InputError("its footer contradicts itself")
            self.limits.check("members", rows, "rows of the table")  # a footer may claim any number
            return sizes
        finally:
            groups.close()


def _rows(file: Item, index: Future[list[tuple[int, int]]]) -> Iterator[Item]:
    """A table's rows, when its footer has been read."""
    try:
        sizes = index.result()
    # One file that can't be read is one quarantine row, whatever a stranger's file raises.
    except Exception as error:
        yield faulty(file, f"its rows can't be listed: {error}")
        return
    row = 0
    for group, (rows, size) in enumerate(sizes):
        for i in range(rows):
            member = str(row + i)
            at = json.dumps({"group": group, "row": i})
            yield replace(file, item_id=member_id(file, member), member=member, at=at, size=size or file.size)
        row += rows


def kept_schema(uri: str, schema: pa.Schema, keep: Sequence[str]) -> tuple[pa.Schema, frozenset[str]]:
    """What the output has of a table's columns and of its folders' key=value, and which of it is of the latter.

    InputError names what there is neither as a column nor as a folder.
    """
    fields = []
    partitions = set()
    for name in keep:
        if name in schema.names:
            if pa.types.is_null(schema.field(name).type):
                raise InputError(
                    f"input.keep asks for {name}, whose values are of several kinds or all null in {uri}. "
                    "Write the table as Parquet, which has types, or leave it out."
                )
            fields.append(kept_field(schema, name))
        elif name in (found := dict(_partitions(uri))):
            partitions.add(name)
            fields.append(pa.field(name, pa.string()))
        else:
            known = ", ".join([*schema.names, *found])
            raise InputError(f"input.keep asks for {name}, which {uri} doesn't have. It has: {known}.")
    return pa.schema(fields), frozenset(partitions)


class TablesReader:
    """Opens rows; holds the group that it read last, with the columns that are wanted alone."""

    def __init__(self, source: Tables) -> None:
        self.source = source
        self.lock = Lock()  # probes share a reader
        self.uri, self.group = "", -1
        self.groups: Groups | None = None
        self.table: pa.Table | None = None

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        at = place(item)
        row = self._row(item["uri"], at["group"], at["row"])
        folder = posixpath.dirname(path_of(item["uri"]))
        source = self.source
        kept = {}
        for field in source.kept:
            if field.name in source.partitions:
                kept[field.name] = pa.scalar(partition(item["uri"], field.name), pa.string())
            else:
                kept[field.name] = _kept(row, field)
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for cells in source.cells:
                field = row.schema.field(cells.column)
                file = cells.open(row[cells.column][0], field, folder)
                files[cells.content.name] = stack.enter_context(file)
            yield Opened(files, kept)

    def close(self) -> None:
        if self.groups:
            self.groups.close()
        self.uri, self.group, self.groups, self.table = "", -1, None, None

    def _row(self, uri: str, group: int, row: int) -> pa.Table:
        with self.lock:
            if uri != self.uri:
                self.close()
                self.groups = open_groups(uri)
                self.uri = uri
            if group != self.group or self.table is None:
                assert self.groups is not None
                self.group, self.table = -1, None  # before the next is read: one is held, not two
                self.table = self.groups.read(group, self.source.columns)
                self.group = group
            if row >= self.table.num_rows:
                raise SourceError("the row is gone: the table has changed since the run was planned.")
            return self.table.slice(row, 1)


def open_groups(uri: str) -> Groups:
    """A table file by its name's suffix; reads its footer."""
    groups = _Arrow(uri) if uri.lower().endswith(ARROW) else _Parquet(uri)
    try:
        _ = groups.schema.names
    except UnicodeDecodeError as error:
        groups.close()
        raise InputError(f"{uri} is damaged: a column's name is not UTF-8") from error
    return groups


class _Parquet:
    def __init__(self, uri: str) -> None:
        self.source = open_item(uri)
        try:
            self.file = pq.ParquetFile(self.source)
            self.schema: pa.Schema = self.file.schema_arrow
        except BaseException:
            self.source.close()
            raise

    @property
    def rows(self) -> int:
        return int(self.file.metadata.num_rows)

    def sizes(self) -> Iterator[tuple[int, int]]:
        # Of all columns: a damaged footer, asked for one column's sizes, aborts the process (pyarrow 26).
        for group in range(self.file.num_row_groups):
            about = self.file.metadata.row_group(group)
            yield about.num_rows, max(0, about.total_byte_size) // max(1, about.num_rows)

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        if group >= self.file.num_row_groups:
            raise SourceError("the row is gone: the table has changed since the run was planned.")
        return self.file.read_row_group(group, columns=list(columns), use_threads=False)

    def close(self) -> None:
        self.file.close()
        self.source.close()


class _Arrow:
    def __init__(self, uri: str) -> None:
        self.source = open_item(uri)
        try:
            if self.source.read(6) != b"ARROW1":
                raise InputError(
                    f"{uri} is no Arrow IPC file (Feather version 2). A stream becomes one by pyarrow.ipc.new_file; "
                    "or write it as Parquet."
                )
            self.size = self.source.seek(0, 2)
            self.schema: pa.Schema = self._reader(()).schema
        except BaseException:
            self.source.close()
            raise

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.sizes())  # a footer here has no such account

    def sizes(self) -> Iterator[tuple[int, int]]:
        # A batch's rows are in its header, which comes with a column at least: the narrowest.
        narrow = min(self.schema.names, key=lambda name: _width(self.schema.field(name).type), default=None)
        batches = self._reader((narrow,) if narrow else ())
        rows = [batches.get_batch(i).num_rows for i in range(batches.num_record_batches)]
        for count in rows:
            yield count, self.size // max(1, sum(rows))

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        batches = self._reader(columns)
        if group >= batches.num_record_batches:
            raise SourceError("the row is gone: the table has changed since the run was planned.")
        batch = batches.get_batch(group)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                _unnamed(column).validate(full=True)  # offsets that lie would crash the process
            except pa.ArrowInvalid as error:
                raise SourceError(f"column {name} is damaged: {error}.") from error
        return pa.Table.from_batches([batch])

    def close(self) -> None:
        self.source.close()

    def _reader(self, columns: Sequence[str]) -> pa.ipc.RecordBatchFileReader:
        options = pa.ipc.IpcReadOptions(
            use_threads=False, included_fields=sorted(self.schema.get_field_index(name) for name in columns)
        )
        return pa.ipc.open_file(pa.PythonFile(self.source, "r"), options=options)


def partition(uri: str, name: str) -> str | None:
    """The value that a file's folders give a hive partition (name=value); InputError if they don't."""
    for key, value in _partitions(uri):
        if key == name:
            if value is not None and legible(value) != value:
                raise InputError(
                    f"its folder {name}={legible(value)} is not named in UTF-8. Rename it, or leave {name} out of "
                    "input.keep"
                )
            return value
    raise InputError(f"it lies in no folder {name}=..., which input.keep asks for")


def _partitions(uri: str) -> Iterator[tuple[str, str | None]]:
    for folder in posixpath.dirname(path_of(uri)).split("/"):
        key, equals, value = folder.partition("=")
        if equals and re.fullmatch(r"\w[\w.-]*", key):
            yield key, None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)


def _kept(row: pa.Table, field: pa.Field) -> pa.Scalar:
    cell = row[field.name][0]
    try:
        value = kept_value(cell, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(
            f"column {field.name}: expected {field.type}, as the first table has it; got {cell.type}."
        ) from error
    try:
        value.validate(full=True)
    except pa.ArrowInvalid as error:
        raise SourceError(f"column {field.name} is damaged, or not UTF-8: {error}.") from error
    return value


def _width(type: pa.DataType) -> int:
    try:
        return type.bit_width
    except ValueError:  # of any length
        return 1 << 20 if pa.types.is_nested(type) else 1 << 16


def _unnamed(column: pa.Array) -> pa.Array:
    """Strings as binary: whether they are UTF-8 is the task's affair."""
    if pa.types.is_string(column.type):
        return column.view(pa.binary())
    return column.view(pa.large_binary()) if pa.types.is_large_string(column.type) else column
