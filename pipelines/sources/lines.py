"""Lines: text files of one document a line, indexed by byte ranges."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, BinaryIO

import pyarrow as pa

from pipelines.contents import Content
from pipelines.items import InputError, Item, list_items, member_id, open_item
from pipelines.limits import Limits
from pipelines.sources import Opened, SourceError, check_size, faulty, place

_CHUNK = 1 << 20
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Lines:
    """A line is an item, empty ones too; its member is its number, from 0."""

    uris: tuple[str, ...]
    content: Content
    limits: Limits

    @property
    def kept(self) -> pa.Schema:
        return pa.schema([])

    def files(self) -> Iterator[Item]:
        return list_items(self.uris, self.content.suffixes)

    def items(self, files: Iterable[Item] | None = None) -> Iterator[Item]:
        some = False
        for file in self.files() if files is None else files:
            for item in span_items(file, line_spans):
                some = True
                yield item
        if not some:
            raise InputError(f"No lines in {', '.join(self.uris)}: all files there are empty.")

    def reader(self) -> "LinesReader":
        return LinesReader(self.content, self.limits)


class LinesReader:
    """Opens lines, which are few enough bytes to be held."""

    def __init__(self, content: Content, limits: Limits) -> None:
        self.content, self.limits = content, limits
        self.spans = Spans()

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        at = place(item)
        check_size(self.content, at["size"], self.limits)
        line = self.spans.read(item["uri"], at["offset"], at["size"])
        yield Opened({self.content.name: io.BytesIO(line.removesuffix(b"\r"))}, {})

    def close(self) -> None:
        self.spans.close()


class Spans:
    """Reads byte ranges, and keeps the file that it read last open: it reads ahead, and ranges are neighbours."""

    def __init__(self) -> None:
        self.lock = Lock()  # probes share a reader
        self.uri = ""
        self.file: BinaryIO | None = None

    def read(self, uri: str, offset: int, size: int) -> bytes:
        with self.lock:
            if uri != self.uri or self.file is None:
                self.close()
                self.file = open_item(uri)
                self.uri = uri
            self.file.seek(offset)
            data = self.file.read(size)
        if len(data) != size:
            raise SourceError(
                f"expected {size} bytes at {offset}, got {len(data)}: the file has changed since the run was planned."
            )
        return data

    def close(self) -> None:
        if self.file:
            self.file.close()
        self.uri, self.file = "", None


def span_items(file: Item, spans: Any) -> Iterator[Item]:
    """A file's items, by a function that gives their offsets and sizes; what can't be read any more is one bad item."""
    row = after = 0
    try:
        with open_item(file.uri) as source:
            for offset, size in spans(source):
                member = str(row)
                at = json.dumps({"offset": offset, "size": size})
                yield replace(file, item_id=member_id(file, member), member=member, at=at, size=size)
                row, after = row + 1, offset + size
    except (OSError, ValueError) as error:
        yield faulty(file, f"it can't be read after byte {after}: {error}", f"after row {row - 1}")


def line_spans(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where each line of a file is, without its newline and a byte order mark; holds a chunk at a time."""
    start = position = 0
    if file.read(len(BOM)) == BOM:
        start = position = len(BOM)
    file.seek(position)
    while chunk := file.read(_CHUNK):
        found = chunk.find(b"\n")
        while found >= 0:
            yield start, position + found - start
            start = position + found + 1
            found = chunk.find(b"\n", found + 1)
        position += len(chunk)
    if start < position:
        yield start, position - start
