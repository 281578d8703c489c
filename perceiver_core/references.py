"""${env:NAME} in a checkpoint's web address: a secret that stays in the environment until the address is opened."""

import os
import re
from urllib.parse import quote

from perceiver_core.errors import PerceiverError

_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
SHORTEST = 8  #: characters of a secret: a shorter one can't be told from words when it is hidden in messages


class UnresolvedError(PerceiverError, ValueError):
    """A variable that an address refers to is not as it must be; the message names it."""


def names_in(text: str) -> list[str]:
    """The variables that a text refers to."""
    return _REFERENCE.findall(text)


def without_references(text: str) -> str:
    """The text with nothing in the references' places."""
    return _REFERENCE.sub("", text)


def resolved(address: str) -> str:
    """The address with values for its references: before the host percent-encoded, in the query as they are.

    Raises UnresolvedError.
    """
    for name in names_in(address):
        value = os.environ.get(name)
        if value is None:
            raise UnresolvedError(
                f"{address} refers to the environment variable {name}, which is not set here. Set it where the job "
                "is run."
            )
        if len(value) < SHORTEST:
            raise UnresolvedError(
                f"{address} refers to the environment variable {name}: expected a secret of at least {SHORTEST} "
                f"characters, got {len(value)}. What is shorter can't be hidden in messages."
            )
    before, query, after = address.partition("?")
    before = _REFERENCE.sub(lambda match: quote(os.environ[match[1]], safe=""), before)
    return before + query + _REFERENCE.sub(lambda match: os.environ[match[1]], after)


def as_written(said: str, address: str) -> str:
    """What a driver said of a resolved address, with nothing in it of what the references stood for."""
    names = names_in(address)
    if not names:
        return said
    for name in names:
        value = os.environ.get(name, "")
        for form in (value, quote(value, safe="")):
            said = said.replace(form, f"${{env:{name}}}") if len(form) >= SHORTEST else said
    # Clients encode addresses in ways of their own: of all that are told, users and queries go.
    said = re.sub(r"(\w+://)[^\s/'\"]*@", r"\1", said)
    return re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1", said)
