"""A source as a run uses it: listed, planned, and its items opened."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.contents import IMAGE, Content
from pipelines.items import Item
from pipelines.limits import Limits
from pipelines.sources import Source
from pipelines.sources.choose import choose


def chosen(
    uris: Path | str | Sequence[str],
    *contents: tuple[Content, ...],
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
    limits: Limits | None = None,
    roots: Sequence[str] = (),
) -> Source:
    """The source of an input, as a job would choose it."""
    named = [str(uris)] if isinstance(uris, str | Path) else list(uris)
    return choose(named, format, columns or {}, keep, contents or ((IMAGE,),), limits or Limits(), roots)


def opened(source: Source, items: Sequence[Item] | None = None) -> list[dict[str, Any]]:
    """Every item's contents and kept values, or the error that its quarantine row would have."""
    rows = []
    with closing(source.reader()) as reader:
        for item in source.items() if items is None else items:
            row: dict[str, Any] = {"member": item.member, "id": item.item_id}
            try:
                with reader.open(asdict(item)) as found:
                    row |= {name: file.read() for name, file in found.files.items()}
                    row |= {name: value.as_py() for name, value in found.kept.items()}
            except Exception as error:  # as the stages do
                row["error"] = f"{type(error).__name__}: {error}"
            rows.append(row)
    return rows
