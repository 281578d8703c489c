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
from jobs.report.context import Page
from jobs.report.words import cut, moment, percent, printable, size
from perceiver_core.errors import PerceiverError

MOST = 5_000_000  #: bytes of a page


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
    data = text.lstrip().encode("utf-8", "backslashreplace")
    if len(data) >= MOST:
        raise PageError(
            f"The report would have {len(data):,} bytes, and may have {MOST - 1:,}. Report it as a bug: what a page "
            "shows is meant to be bounded."
        )
    return data


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
    world.filters |= {"moment": moment, "percent": percent, "size": size, "spoken": spoken, "cut": cut}
    return world.from_string(_trusted("page.html.jinja"))
