"""Secrets stay out of job files, and out of all that is stored, printed and shared. The environment holds them."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from perceiver_core.errors import PerceiverError
from perceiver_core.references import SHORTEST, names_in, without_references

_SECRET = re.compile(
    r"signature|credential|token|secret|passw|access.?key|api.?key|^(key|sig|pwd|auth)$", re.IGNORECASE
)
#: Of environment variables: what names a secret, not where one is (_FILE, _PATH, _URI, ...) or how it is used.
_SECRET_NAME = re.compile(
    r"(SECRET|TOKEN|PASSW\w*|CREDENTIALS?|API_?KEY|ACCOUNT_?KEY|ACCESS_?KEY|ACCESS_KEY_ID|CONNECTION_STRING|PRIVATE_KEY)$",
    re.IGNORECASE,
)
_HIDDEN = "[hidden]"
#: A field that is called so has no place in a job, whatever is in it.
_SECRET_FIELD = re.compile(
    r"signature|credential|token|secret|passw|(access|api|account|private).?key", re.IGNORECASE
)
_BEFORE, _AFTER = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9])"
#: What keys look like, each by its issuer's mark: hashes, revisions and names have none of these.
_KEYS = (
    ("an AWS access key id", rf"{_BEFORE}(?:AKIA|ASIA)[A-Z0-9]{{16}}{_AFTER}"),
    ("a Hugging Face token", rf"{_BEFORE}hf_[A-Za-z0-9]{{34,}}{_AFTER}"),
    ("a GitHub token", rf"{_BEFORE}(?:gh[pousr]_[A-Za-z0-9]{{36,}}|github_pat_[A-Za-z0-9_]{{22,}}){_AFTER}"),
    ("a Google API key", rf"{_BEFORE}AIza[A-Za-z0-9_-]{{35}}(?![A-Za-z0-9_-])"),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY|[\"']private_key[\"']\s*:"),
    (
        "a signed token (JWT)",
        rf"{_BEFORE}eyJ[A-Za-z0-9_-]{{10,}}\.eyJ[A-Za-z0-9_-]{{10,}}\.[A-Za-z0-9_-]{{10,}}",
    ),
    ("an Azure account key", r"AccountKey=[A-Za-z0-9+/]{60,}"),
    ("an Azure shared access signature", rf"{_BEFORE}sig=[A-Za-z0-9%+/]{{40,}}"),
)
_LOOKS = tuple((name, re.compile(pattern)) for name, pattern in _KEYS)
_IN_NETLOC = re.compile(r"(\w+://[^\s/:@]+:)[^\s/@]+@")
_IN_QUERY = re.compile(
    r"([?&][\w.-]*(?:signature|credential|token|secret|passw\w*|access.?key|api.?key|key|sig|pwd|auth)=)[^\s&\"'<>]+",
    re.IGNORECASE,
)
_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    "hf": "HF_TOKEN",
}
_SAME = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az"}


class SecretError(PerceiverError, ValueError):
    """A URI holds a secret; the message doesn't."""


def check_no_secrets(uri: str, may_refer: bool = False) -> None:
    """Raise SecretError, naming what to use instead, if a URI holds a password or a key.

    With `may_refer` a web address can have ${env:NAME} in its place; else there are the drivers' environment variables.
    """
    if "://" not in uri:
        return
    parts = urlsplit(without_references(uri))
    user, at, _ = parts.netloc.rpartition("@")
    blank = bool(names_in(uri))  # a reference left nothing there, and that is as it should be
    keys = [name for name, _ in parse_qsl(parts.query, keep_blank_values=not blank) if _SECRET.search(name)]
    if at and (user.partition(":")[2] or (":" in user and not blank)):
        found = "a password (user:password@)"
    elif keys:
        found = f"a key ({', '.join(keys)}=...)"
    else:
        return
    refer = may_refer and parts.scheme in ("http", "https")
    instead = f"give credentials by the environment{_by_environment(parts.scheme)}"
    raise SecretError(
        f"a {parts.scheme}:// address here holds {found}, and a job file is stored and shown in many places. Take it "
        f"out, and {'refer to an environment variable that holds it: ${env:NAME}' if refer else instead}."
    )


def names_secret(variable: str) -> bool:
    """Whether an environment variable is called as secrets are."""
    return bool(_SECRET_NAME.search(variable))


def check_variable(name: str) -> None:
    """Raise SecretError if a variable that is to go along to a target is called as secrets are."""
    if names_secret(name):
        raise SecretError(
            f"--env {name}: what is called so is a secret, and a target shows its submissions' variables to all who "
            "may look. Give it to the target's own processes."
        )


def _by_environment(scheme: str) -> str:
    """Which variables hold a scheme's credentials; of others, all there are."""
    known = _ENVIRONMENT.get(_SAME.get(scheme, scheme))
    return f": {known}" if known else f" ({'; '.join(f'{s}://: {e}' for s, e in _ENVIRONMENT.items())})"


def check_references(address: str) -> None:
    """Raise SecretError unless the ${env:NAME} in a checkpoint's address stand where secrets are, and name some."""
    if "${env:" not in address:
        return
    names, parts = names_in(address), urlsplit(address)
    where = f"{parts.netloc.rpartition('@')[0]}?{parts.query}"
    if address.count("${env:") != len(names):
        raise SecretError("a reference is written ${env:NAME}, NAME being an environment variable's.")
    if parts.scheme not in ("http", "https"):
        raise SecretError(
            "${env:...} is for web addresses alone (https://). Leave it out, and give credentials by the environment"
            f"{_by_environment(parts.scheme)}."
        )
    if len(names_in(where)) != len(names):
        raise SecretError(
            "${env:...} is for secrets: expected it as the password (https://user:${env:NAME}@host/...) or in the "
            "query (https://host/...?token=${env:NAME}), got it elsewhere. Write out what is no secret."
        )
    for name in names:
        if not _SECRET_NAME.search(name):
            raise SecretError(
                f"${{env:{name}}}: expected a variable that is called like a secret, so that its value is hidden in "
                f"all that is told: name it such as {name.upper()}_TOKEN."
            )


def found_in(document: Any, naming: Collection[str] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where a document's values look like keys, and what to do; never the value.

    In the sections `naming` a field may be called like a secret: what it says is where that is.
    """
    for place, value in strings(document):
        parent = place[-1] if place else ""
        looks = next(
            (name for name, look in _LOOKS if look.search(value) or look.search(unquote(value))), None
        )
        if looks:
            yield (
                _hidden(place),
                (
                    f"holds what looks like {looks}, and a job is stored and shown in many places. Take it out, "
                    "revoke it if it was shared, and give credentials by the environment."
                ),
            )
        elif value and _SECRET_FIELD.search(parent) and place[0] not in naming:
            yield (
                _hidden(place),
                (
                    "no such option, and by its name a secret. Take it out, and give credentials by the environment"
                    f"{_by_environment('')}."
                ),
            )


def strings(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in a document, its keys too, with its place; what an anchor repeats comes once."""
    seen: set[int] = set()

    def walk(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, Mapping | Sequence) and not isinstance(value, bytes) and id(value) not in seen:
            seen.add(id(value))
            for key, below in value.items() if isinstance(value, Mapping) else enumerate(value):
                if isinstance(key, str):
                    yield place, key
                yield from walk(below, (*place, str(key)))

    return walk(value, place)


def _hidden(place: tuple[str, ...]) -> tuple[str, ...]:
    """A place, less the keys of mappings that look like keys of the other kind."""
    return tuple(_HIDDEN if any(look.search(name) for _, look in _LOOKS) else name for name in place)


def redacted(text: str) -> str:
    """The text without secrets: values of this environment's variables that are called so, and what addresses carry."""
    for value in _known_secrets():
        text = text.replace(value, _HIDDEN)
    return _IN_QUERY.sub(rf"\1{_HIDDEN}", _IN_NETLOC.sub(rf"\1{_HIDDEN}@", text))


def _known_secrets() -> list[str]:
    """The longest first: one may be part of another."""
    named = (
        value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= SHORTEST
    )
    values = {form for value in named for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    return sorted(values, key=len, reverse=True)
