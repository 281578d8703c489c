"""Files: a file, a folder, a glob or a list of them, local or of any fsspec store; one item each."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.contents import Content
from pipelines.items import Item, list_items, open_item
from pipelines.sources import Opened


@dataclass(frozen=True)
class Files:
    """Media, texts or tensors, a file each."""

    uris: tuple[str, ...]
    content: Content

    def items(self) -> Iterator[Item]:
        yield from list_items(self.uris, self.content.suffixes)

    @property
    def kept(self) -> pa.Schema:
        return pa.schema([])

    def reader(self) -> "FilesReader":
        return FilesReader(self.content)


class FilesReader:
    """Opens a file at a time."""

    def __init__(self, content: Content) -> None:
        self.content = content

    @contextmanager
    def open(self, item: Mapping[str, Any]) -> Iterator[Opened]:
        with open_item(item["uri"]) as file:
            yield Opened({self.content.name: file}, {})

    def close(self) -> None:
        pass
