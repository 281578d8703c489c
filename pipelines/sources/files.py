"""Files: a file, a folder, a glob or a list of them, local or of any fsspec store; one item each."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.contents import Content
from pipelines.items import Item, list_items, open_item
from pipelines.limits import Limits
from pipelines.sources import Opened, check_size


@dataclass(frozen=True)
class Files:
    """Media, texts or tensors, a file each."""

    uris: tuple[str, ...]
    content: Content
    limits: Limits = field(default_factory=Limits)
    others: tuple[str, ...] = ()  #: of files that may not lie beside them

    def files(self) -> Iterator[Item]:
        return list_items(self.uris, self.content.suffixes, self.others)

    def items(self, files: Iterable[Item] | None = None) -> Iterator[Item]:
        yield from self.files() if files is None else files

    @property
    def kept(self) -> pa.Schema:
        return pa.schema([])

    def reader(self) -> "FilesReader":
        return FilesReader(self.content, self.limits)


class FilesReader:
    """Opens a file at a time."""

    def __init__(self, content: Content, limits: Limits) -> None:
        self.content, self.limits = content, limits

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        check_size(self.content, item["size"], self.limits)
        with open_item(item["uri"]) as file:
            yield Opened({self.content.name: file}, {})

    def close(self) -> None:
        pass
