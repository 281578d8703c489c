"""The sources: where items lie. One file each; no source knows who wants its bytes, no task knows where they lay."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from perceiver_core.errors import PerceiverError
from pipelines.addresses import legible
from pipelines.contents import Content
from pipelines.items import Item, member_id
from pipelines.limits import Limits


class SourceError(PerceiverError, ValueError):
    """An item isn't in its table, tar or folder as it should be."""


@dataclass(frozen=True)
class Opened:
    """An item's contents, by name, seekable; and its values of the columns that are kept, tensors as bytes."""

    files: Mapping[str, BinaryIO]
    kept: Mapping[str, pa.Scalar]


def faulty(item: Item, message: str, member: str | None = None) -> Item:
    """An item that is known to be bad when it is listed: opening it raises a SourceError that says so."""
    at = json.dumps({"error": message})
    if member is None:
        return replace(item, at=at)
    return replace(item, item_id=member_id(item, member), member=legible(member), at=at)


def place(item: Mapping[str, Any]) -> dict[str, Any]:
    """Where an item is within its file; SourceError if it was found to be bad when it was listed."""
    at: dict[str, Any] = json.loads(item["at"])
    if "error" in at:
        raise SourceError(at["error"])
    return at


def check_size(content: Content, size: int, limits: Limits) -> None:
    """Raise LimitError if a content is larger than the job allows."""
    limits.check("text" if content.kind == "text" else "bytes", size, f"bytes of the {content.name}")


class Reader(Protocol):
    """Opens a source's items; a worker has one, which may hold on to what it has read last."""

    def open(self, item: Mapping[str, Any]) -> AbstractContextManager[Opened]:
        """One item, as a row of the plan: its uri, member and `at`. Raises what the item's quarantine row will say."""

    def close(self) -> None: ...


class Source(Protocol):
    """A frozen dataclass: an input of one kind, and what is wanted of it. It travels to the workers."""

    def files(self) -> Iterator[Item]:
        """List the input's files, names only, in an order that depends on them alone. Raises InputError."""

    def items(self, files: Iterable[Item] | None = None) -> Iterator[Item]:
        """The items in these files, or in all, headers only, in an order that depends on content alone."""

    @property
    def kept(self) -> pa.Schema:
        """The columns that are passed through."""

    def reader(self) -> Reader: ...
