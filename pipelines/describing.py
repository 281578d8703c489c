"""What options and columns mean, said once, where they are defined: a column's meaning is in the output's files too."""

from dataclasses import Field, field
from typing import Any

import pyarrow as pa

_HELP = "help"
_FILE = b"perceive.file"


def option(default: Any, help: str) -> Any:
    """A field of a task's dataclass: an option of the user's."""
    return field(default=default, metadata={_HELP: help})


def column(name: str, type: pa.DataType, help: str) -> pa.Field:
    """A field of a task's schema."""
    return pa.field(name, type, metadata={_HELP: help})


def file_column(name: str, help: str) -> pa.Field:
    """A field whose values are files beside the table, relative to the output."""
    field = column(name, pa.string(), help)
    return field.with_metadata(field.metadata | {_FILE: b"1"})


def names_files(field: pa.Field) -> bool:
    """Whether a column's values are files beside the table."""
    return _FILE in (field.metadata or {})


def meaning(described: Field[Any] | pa.Field) -> str:
    """What an option or a column means; empty if nobody said."""
    found = (described.metadata or {}).get(_HELP if isinstance(described, Field) else _HELP.encode(), "")
    return found.decode() if isinstance(found, bytes) else found
