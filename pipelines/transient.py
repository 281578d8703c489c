"""Which errors pass by themselves, and how long a store is asked again. No client is imported: any may be missing."""

import errno
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tenacity

from perceiver_core.errors import PerceiverError

PATIENCE_S = 120.0

#: Of a client that is installed, by its top-level module: what it raises where the connection or the answer broke.
_BROKEN = {
    "aiohttp": {"ClientConnectionError", "ClientPayloadError"},
    "azure": {"IncompleteReadError", "ServiceRequestError", "ServiceResponseError"},
    "botocore": {
        "ConnectionClosedError", "ConnectionError", "FlexibleChecksumError", "HTTPClientError", "IncompleteReadError",
        "ResponseParserError", "ResponseStreamingError",
    },
    "gcsfs": {"ChecksumError"},
    "google": {"RetryError", "TransportError"},
    "http": {"BadStatusLine", "IncompleteRead"},
    "httpx": {"TransportError"},
    "requests": {"ChunkedEncodingError", "ConnectionError", "ContentDecodingError", "Timeout"},
    "urllib": {"ContentTooShortError"},
    "urllib3": {"HTTPError"},
}  # fmt: skip
#: Connecting again won't help: the store's certificate is no good, or there are no credentials.
_SETTLED = {
    "aiohttp": {"ClientConnectorCertificateError"},
    "azure": {"ClientAuthenticationError", "ResourceExistsError", "ResourceNotFoundError"},
    "botocore": {"CredentialRetrievalError", "NoCredentialsError"},
}
_CODES = {
    "BadDigest", "IncompleteBody", "InternalError", "OperationAborted", "RequestLimitExceeded", "RequestTimeout",
    "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_STATUSES = {408, 409, 425, 429}
_NOT_IMPLEMENTED = {501, 505}
#: s3fs's for 503 and 500. Its EIO is a local disk's as well: that one is told by the answer it came from.
_ERRNOS = {
    errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EBUSY), errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
    errno.ENETRESET, errno.ENETUNREACH,
}  # fmt: skip
_LOCAL = {errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS}
_CUT_SHORT = "The answer was cut short"  # as pipelines.items says it


class UnavailableError(PerceiverError, OSError):
    """The storage did not answer, however often it was asked: no item's fault; the attempt can be resumed."""


_FINAL = (
    FileExistsError, FileNotFoundError, PermissionError, UnavailableError, ssl.SSLCertVerificationError,
)  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later, by the error or by what it came from."""
    return next((verdict for one in _chain(error) if (verdict := _verdict(one)) is not None), False)


def retrying(
    seconds: float = PATIENCE_S, tell: Callable[[BaseException, float], None] | None = None
) -> tenacity.Retrying:
    """Try again what fails in passing, after longer and longer pauses, for so many seconds; then raise the error.

    `tell` is called with the error and the seconds of the pause, before it.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if tell and error:
            tell(error, state.next_action.sleep if state.next_action else 0.0)

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_random_exponential(multiplier=0.2, min=0.2, max=15),
        stop=tenacity.stop_after_delay(seconds),
        before_sleep=before_sleep,
        reraise=True,
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from. A ValueError is its own where it doesn't say what it came from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        hidden = one.__suppress_context__ or isinstance(one, (ValueError, TypeError, LookupError))
        one = one.__cause__ or (None if hidden else one.__context__)


def _verdict(error: BaseException) -> bool | None:
    """Whether this error passes; None where it doesn't say."""
    if not isinstance(error, Exception) or isinstance(error, _FINAL) or _is_one_of(error, _SETTLED):
        return False
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)):
        return True
    if (status := _status(error)) is not None:
        passing = status in _STATUSES or (status >= 500 and status not in _NOT_IMPLEMENTED)
        return passing or _code(error) in _CODES
    if _is_one_of(error, _BROKEN) or getattr(error, "retryable", None) is True:
        return True
    return _of_errno(error) if isinstance(error, OSError) else None


def _of_errno(error: OSError) -> bool | None:
    if error.errno is None:
        return True if _CUT_SHORT in str(error) else None
    if error.errno in _LOCAL or error.filename is not None:
        return False
    return True if error.errno in _ERRNOS else None


def _is_one_of(error: BaseException, names: Mapping[str, set[str]]) -> bool:
    return any(kind.__name__ in names.get(kind.__module__.split(".")[0], ()) for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client's error carries."""
    if type(error).__module__ == "builtins":
        return None
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, Mapping):  # botocore's
        numbers = iter([answer.get("ResponseMetadata", {}).get("HTTPStatusCode")])
    else:  # in this order: aiohttp warns where its `code` is asked for
        places = [(error, "status"), (error, "status_code"), (error, "code"), (answer, "status_code")]
        numbers = (getattr(place, name, None) for place, name in places)
    texts = (str(number) for number in numbers if isinstance(number, (int, str)))
    return next((int(text) for text in texts if re.fullmatch(r"[1-5]\d\d", text)), None)


def _code(error: BaseException) -> str | None:
    """What S3 calls the error."""
    answer: Any = getattr(error, "response", None)
    return answer.get("Error", {}).get("Code") if isinstance(answer, Mapping) else None
