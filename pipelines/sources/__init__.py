"""The sources: where items lie. One file each; no source knows who wants its bytes, no task knows where they lay."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from pipelines.items import Item


@dataclass(frozen=True)
class Opened:
    """An item's contents, by name, seekable; and its values of the columns that are kept."""

    files: Mapping[str, BinaryIO]
    kept: Mapping[str, Any]


class Reader(Protocol):
    """Opens a source's items; a worker has one, which may hold on to what it has read last."""

    def open(self, item: Mapping[str, Any]) -> AbstractContextManager[Opened]:
        """One item, as a row of the plan: its uri, member and `at`. Raises what the item's quarantine row will say."""

    def close(self) -> None: ...


class Source(Protocol):
    """A frozen dataclass: an input of one kind, and what is wanted of it. It travels to the workers."""

    def items(self) -> Iterator[Item]:
        """List the input, headers only, in an order that depends on its content alone. Raises InputError."""

    @property
    def kept(self) -> pa.Schema:
        """The columns that are passed through."""

    def reader(self) -> Reader: ...
