"""Spans of time, as people write and read them."""

import re
from datetime import timedelta

_WRITTEN = re.compile(r"([0-9]{1,6}) ?([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> timedelta:
    """90s, 30m, 2h or 1d as a span of time. Raises ValueError."""
    found = _WRITTEN.fullmatch(text.strip())
    if not found:
        raise ValueError(f"expected a span of time such as 90s, 30m, 2h or 1d; got {text!r}.")
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def spoken(seconds: float) -> str:
    """Such as 45 s, 12 min, 3.5 h or 2.1 days."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            count = seconds / size
            return f"{round(count, 1) if count < 10 else round(count):g} {unit}"
    return f"{seconds:.0f} s"
