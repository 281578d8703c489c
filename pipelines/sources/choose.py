"""Which source an input is, by what the job says of it and what lies there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.contents import Content
from pipelines.items import InputError, list_items, root_of
from pipelines.limits import Limits
from pipelines.sources import Source
from pipelines.sources.cells import Cells
from pipelines.sources.files import Files
from pipelines.sources.lines import Lines
from pipelines.sources.records import CSV, JSONL, Records, read_schema, strings
from pipelines.sources.tables import ARROW, PARQUET, Tables, kept_schema, open_groups
from pipelines.sources.webdataset import PACKED, TAR, WebDataset, has, kept_suffixes, suffixes_of_first

Contents = tuple[Content, ...]

_TABLES = (PARQUET, ARROW, CSV, JSONL)


@dataclass(frozen=True)
class Wanted:
    """What a job says of its input, and what its task can be given."""

    uris: tuple[str, ...]
    format: str
    columns: Mapping[str, str]
    keep: tuple[str, ...]
    contents: tuple[Contents, ...]  #: those that have all that `columns` names
    limits: Limits
    roots: tuple[str, ...]


def choose(
    uris: Sequence[str],
    format: str,
    columns: Mapping[str, str],
    keep: Sequence[str],
    contents: Sequence[Contents],
    limits: Limits,
    roots: Sequence[str] = (),
) -> Source:
    """The source of an input, for a task that can be given one of these sets of contents.

    Links that are found in data are followed within the input's own folders and `roots`. Raises InputError where
    the input has none of the contents, or what the job says doesn't fit it.
    """
    wanted = Wanted(
        tuple(uris), format, dict(columns), tuple(keep), _named(contents, columns), limits, tuple(roots)
    )
    if len(set(keep)) < len(keep):
        raise InputError(f"input.keep names a column twice: {', '.join(keep)}.")
    if format == "lines":
        return _lines(wanted)
    if format == "files":
        return _files(wanted, _media(wanted), ())
    kinds = {
        "table": _TABLES,
        "webdataset": (TAR,),
        "auto": (*_TABLES, TAR, *(content.suffixes for content in _media(wanted))),
    }[format]
    try:
        first = _first(wanted.uris, tuple(suffix for kind in kinds for suffix in kind))
    except InputError as error:
        raise InputError(f"{error}{_hint(wanted)}", error.found) from error
    mine = next((kind for kind in kinds if first.lower().endswith(kind)), None)
    others = tuple(suffix for kind in kinds if kind != mine for suffix in kind)
    if mine is not None and mine in _TABLES:
        return _table(wanted, first, mine, others)
    if mine == TAR or format == "webdataset":
        return _webdataset(wanted, others)
    if format == "table":
        raise InputError(f"{first} is no table: expected {', '.join(s for kind in kinds for s in kind)}.")
    if first.lower().endswith(PACKED):
        raise InputError(
            f"{first} is a compressed tar, which can't be read by index. Decompress it (gunzip, unzstd) and name the "
            ".tar: media don't compress anyway."
        )
    return _files(wanted, [content for content in _media(wanted) if content.suffixes == mine], others)


def _named(contents: Sequence[Contents], columns: Mapping[str, str]) -> tuple[Contents, ...]:
    fitting = tuple(one for one in contents if columns.keys() <= {content.name for content in one})
    if not fitting:
        known = " or ".join(_names(one) for one in contents)
        raise InputError(f"input.columns names {', '.join(columns)}; the task can be given {known}.")
    return fitting


def _names(contents: Contents) -> str:
    return " and ".join(content.name for content in contents)


def _media(wanted: Wanted) -> list[Content]:
    """The contents that can be files."""
    return [one[0] for one in wanted.contents if len(one) == 1]


def _first(uris: tuple[str, ...], suffixes: tuple[str, ...]) -> str:
    for item in list_items(uris, (*suffixes, *PACKED)):
        return item.uri
    raise InputError("The input lists nothing.")


def _hint(wanted: Wanted) -> str:
    """How several contents of one item are given, where a task can be given several."""
    for one in wanted.contents:
        if len(one) > 1:
            names = " ".join(f"7.{content.name}{content.suffixes[0]}" for content in one)
            return (
                f" To give {_names(one)} of each item, put links to them into a table (CSV, JSON Lines, Parquet) with "
                f"columns of these names, or the files into a tar with names such as {names}."
            )
    return ""


def _files(wanted: Wanted, contents: Sequence[Content], others: tuple[str, ...]) -> Files:
    if not _media(wanted):
        raise InputError(f"Files alone don't say which belong together.{_hint(wanted)}")
    for name, value in (("keep", wanted.keep), ("columns", wanted.columns)):
        if value:
            raise InputError(
                f"input.{name} is for tables and tars; this input is read as files. If it is a table, say "
                "input.format: table."
            )
    if len(contents) > 1:  # format: files, or names that say nothing
        first = _first(wanted.uris, tuple(suffix for content in contents for suffix in content.suffixes))
        contents = [content for content in contents if first.lower().endswith(content.suffixes)] or contents
        mine = contents[0]
        others = (*others, *(s for c in _media(wanted) if c != mine for s in c.suffixes))
    content = contents[0] if contents else _media(wanted)[0]
    return Files(wanted.uris, content, wanted.limits, others)


def _lines(wanted: Wanted) -> Lines:
    texts = [content for content in _media(wanted) if content.kind == "text"]
    if not texts:
        raise InputError(
            f"input.format: lines is for texts; the task can be given {_names(wanted.contents[0])}."
        )
    if wanted.keep or wanted.columns:
        raise InputError("input.keep and input.columns are for tables and tars; lines have no columns.")
    return Lines(wanted.uris, texts[0], wanted.limits)


def _table(wanted: Wanted, first: str, suffixes: tuple[str, ...], others: tuple[str, ...]) -> Source:
    footers = suffixes in (PARQUET, ARROW)
    schema = _footer(first) if footers else read_schema(first, wanted.limits)
    roots = tuple(dict.fromkeys([*map(root_of, wanted.uris), *wanted.roots]))
    sets = [
        tuple(
            Cells(content, wanted.columns.get(content.name, content.name), roots, wanted.limits)
            for content in one
        )
        for one in wanted.contents
    ]
    cells = next((one for one in sets if {cell.column for cell in one} <= set(schema.names)), sets[0])
    for cell in cells:
        cell.check(schema if footers else strings(schema), first)
    kept, partitions = kept_schema(first, schema, wanted.keep)
    if footers:
        return Tables(wanted.uris, suffixes, others, cells, kept, partitions, wanted.limits)
    return Records(wanted.uris, suffixes, others, cells, kept, partitions, wanted.limits)


def _footer(uri: str) -> pa.Schema:
    try:
        groups = open_groups(uri)
    # Whatever a stranger's file raises: without a first schema there is no table.
    except Exception as error:
        raise InputError(f"{uri} can't be read as the first table: {error}") from error
    groups.close()
    return groups.schema


def _webdataset(wanted: Wanted, others: tuple[str, ...]) -> WebDataset:
    contents = wanted.contents[0]
    if len(wanted.contents) > 1:
        found = suffixes_of_first(wanted.uris, wanted.limits, others)
        fitting = [one for one in wanted.contents if has(one, found)]
        contents = fitting[0] if fitting else contents
    suffixes = {name: suffix.lower().removeprefix(".") for name, suffix in wanted.columns.items()}
    return WebDataset(wanted.uris, contents, suffixes, kept_suffixes(wanted.keep), wanted.limits, others)
