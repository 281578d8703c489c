"""A check: one thing that was looked at, and what was found."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from perceiver_core.errors import PerceiverError

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing; where it isn't well, what to do next."""

    name: str
    state: State
    found: str  #: one sentence
    advice: str = ""  #: empty where there is nothing to do
    seconds: float = 0.0


@dataclass(frozen=True)
class Probe:
    """Checks that are made in one process, which is ended where they take too long."""

    name: str  #: of the check that says so, or that the process died
    look: Callable[..., Iterable[Check]]  #: a function of a module
    advice: str  #: where it hangs or dies
    limit_s: float = 60.0
    given: tuple[Any, ...] = field(default=(), repr=False)


def looked(name: str, look: Callable[[], Check], advice: str) -> Check:
    """What a look finds; where it raises, that is what was found."""
    try:
        return look()
    except Exception as error:
        return Check(name, "failed", told(error), advice)


def told(error: BaseException) -> str:
    """What an error says: of our own its text alone, of others their class too, and of libraries the first line."""
    if isinstance(error, PerceiverError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."


def in_bytes(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit in ("bytes", "KiB") else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
