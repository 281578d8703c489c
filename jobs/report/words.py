"""How a report says instants, sizes and shares, and shows strangers' texts."""

from datetime import datetime
from typing import Any

from markupsafe import Markup

_LONGEST = 600  # characters of a text that is no file's content


def moment(when: str | None) -> str:
    """An instant as people read it, in UTC."""
    return f"{datetime.fromisoformat(when):%Y-%m-%d %H:%M:%S} UTC" if when else ""


def size(count: float | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return ""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.3g} {unit}" if count < 1000 * step else f"{count / step:,.0f} {unit}"
    return f"{count:.0f} B"


def percent(share: float | None) -> str:
    """A share of one."""
    if share is None:
        return ""
    return (
        f"{share:.0%}"
        if share >= 0.01 or not share
        else "less than 0.1%"
        if share < 0.001
        else f"{share:.1%}"
    )


def cut(text: str, most: int = _LONGEST) -> str:
    """The beginning of a text."""
    return text if len(text) <= most else f"{text[:most]}…"


def printable(value: Any) -> Any:
    """Text as it can be shown: characters that are invisible or turn the writing around are seen as such."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in value
    )
