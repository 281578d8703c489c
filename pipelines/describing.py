"""What options and columns mean, said once, where they are defined: a column's meaning is in the output's files too."""

import dataclasses
import json
import types
from dataclasses import Field, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

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


def type_in_words(kind: Any) -> str:
    """A type as a job file's reader would say it."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Literal, Union, types.UnionType):
        return " | ".join(str(one) if origin is Literal else type_in_words(one) for one in inner)
    if origin in (tuple, list):
        every = (*inner, ...) if origin is list else inner
        return f"[{', '.join('...' if one is ... else type_in_words(one) for one in every)}]"
    if origin is dict:
        return f"{{{': '.join(map(type_in_words, inner))}}}"
    if fields := getattr(kind, "__dataclass_fields__", None) or getattr(
        kind, "model_fields", None
    ):  # pydantic's
        return f"{{{', '.join(fields)}}}"
    return "null" if kind is type(None) else str(kind.__name__)


def plain_default(field: Field[Any]) -> Any:
    """An option's default as JSON has it."""
    if field.default is dataclasses.MISSING:
        return None
    return json.loads(
        json.dumps(field.default, default=lambda value: dataclasses.asdict(value))  # noqa: PLW0108  # typed
    )
