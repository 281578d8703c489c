"""Manifests as they come: what is not of the kind that it should be is as good as not there; the schemas say so."""

from collections.abc import Mapping, Sequence
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> Sequence[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def given(value: Mapping[str, Any], name: str) -> bool:
    """Whether a field is there; null is not."""
    return value.get(name) is not None


def number(value: Mapping[str, Any], name: str, otherwise: int = 0) -> int:
    """A field's whole number."""
    found = value.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else otherwise
