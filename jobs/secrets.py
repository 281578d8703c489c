"""Secrets stay out of job files: they are stored, printed and shared. The environment holds them."""

import re
from urllib.parse import parse_qsl, urlsplit

_SECRET = re.compile(
    r"signature|credential|token|secret|passw|access.?key|api.?key|^(key|sig|pwd|auth)$", re.IGNORECASE
)
_ENVIRONMENT = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    "hf": "HF_TOKEN",
}
_SAME = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az"}


class SecretError(ValueError):
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
