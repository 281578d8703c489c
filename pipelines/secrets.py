"""Secrets stay out of job files, and out of all that is stored, printed and shared. The environment holds them."""

import json
import os
import re
from urllib.parse import parse_qsl, quote, urlsplit

from perceiver_core.errors import PerceiverError

_SECRET = re.compile(
    r"signature|credential|token|secret|passw|access.?key|api.?key|^(key|sig|pwd|auth)$", re.IGNORECASE
)
#: Of environment variables: what names a secret, not where one is (_FILE, _PATH, _URI, ...) or how it is used.
_SECRET_NAME = re.compile(
    r"(SECRET|TOKEN|PASSW\w*|CREDENTIALS?|API_?KEY|ACCOUNT_?KEY|ACCESS_?KEY|ACCESS_KEY_ID|CONNECTION_STRING|PRIVATE_KEY)$",
    re.IGNORECASE,
)
_SHORTEST = 8  # characters of a secret: what is shorter is a word that texts may have
_HIDDEN = "[hidden]"
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


def check_no_secrets(uri: str) -> None:
    """Raise SecretError, naming the environment variables to use instead, if a URI holds a password or a key."""
    if "://" not in uri:
        return
    parts = urlsplit(uri)
    user, at, _ = parts.netloc.rpartition("@")
    keys = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET.search(name)]
    if at and ":" in user:
        found = "a password (user:password@)"
    elif keys:
        found = f"a key ({', '.join(keys)}=...)"
    else:
        return
    scheme = _SAME.get(parts.scheme, parts.scheme)
    instead = _ENVIRONMENT.get(scheme)
    raise SecretError(
        f"a {parts.scheme}:// address here holds {found}, and a job file is stored and shown in many places. Take it "
        f"out, and give credentials by the environment"
        + (
            f": {instead}."
            if instead
            else f" ({'; '.join(f'{s}://: {e}' for s, e in _ENVIRONMENT.items())})."
        )
    )


def names_secret(variable: str) -> bool:
    """Whether an environment variable is called as secrets are."""
    return bool(_SECRET_NAME.search(variable))


def redacted(text: str) -> str:
    """The text without secrets: values of this environment's variables that are called so, and what addresses carry."""
    for value in _known_secrets():
        text = text.replace(value, _HIDDEN)
    return _IN_QUERY.sub(rf"\1{_HIDDEN}", _IN_NETLOC.sub(rf"\1{_HIDDEN}@", text))


def _known_secrets() -> list[str]:
    """The longest first: one may be part of another."""
    named = (
        value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST
    )
    values = {form for value in named for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    return sorted(values, key=len, reverse=True)
