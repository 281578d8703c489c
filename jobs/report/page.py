"""The page: one HTML file that asks nobody for anything, whatever is in the names, labels and messages on it."""

import base64
import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from jobs.durations import spoken
from jobs.report.context import Page, moment, percent, size
from perceiver_core.errors import PerceiverError

MOST = 5_000_000  #: bytes of a page
_LONGEST = 600  # characters of a text that is no file's content


class PageError(PerceiverError, ValueError):
    """A report has become larger than a page may be."""


def rendered(page: Page) -> bytes:
    """The page as UTF-8. Raises PageError where it would be 5 MB or more."""
    style, script = (_trusted(name) for name in ("page.css", "page.js"))
    text = _template().render(
        page=page,
        style=style,
        script=script,
        policy=_policy(style, script),
        summary=json.loads(json.dumps(asdict(page.summary), default=str)),
    )
    # A file's name may be bytes that are no UTF-8, which Python keeps as lone surrogates.
    data = text.encode("utf-8", "backslashreplace")
    if len(data) >= MOST:
        raise PageError(
            f"The report would have {len(data):,} bytes, and may have {MOST - 1:,}. Report it as a bug: what a page "
            "shows is meant to be bounded."
        )
    return data


def printable(value: Any) -> Any:
    """Text as it can be shown: characters that are invisible or turn the writing around are seen as such."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in value
    )


def _policy(style: str, script: str) -> str:
    """What the page may do: show what is in it, by the very style and script that are in it, and nothing else."""
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; media-src data:; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _trusted(name: str) -> Markup:
    """A file of this package, as it is."""
    return Markup((files(__package__) / name).read_text("utf-8"))


@cache
def _template() -> Any:
    """The template. Every value is escaped, wherever it stands."""
    world = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=printable, trim_blocks=True, lstrip_blocks=True
    )
    world.filters |= {"moment": moment, "percent": percent, "size": size, "spoken": spoken, "cut": _cut}
    return world.from_string(_trusted("page.html.jinja"))


def _cut(text: str, most: int = _LONGEST) -> str:
    """The beginning of a text."""
    return text if len(text) <= most else f"{text[:most]}…"
