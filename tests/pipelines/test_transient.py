"""What is tried again and what isn't, as the clients raise it."""

import asyncio
import errno
import os
import pickle
import socket
import ssl
from http.client import IncompleteRead
from typing import Any

import aiohttp
import azure.core.exceptions as azure_errors
import botocore.exceptions as boto
import google.auth.exceptions as google_auth
import pytest
import requests
from botocore.parsers import ResponseParserError
from gcsfs.retry import ChecksumError, HttpError
from s3fs.errors import translate_boto_error

from pipelines.items import InputError, _cut_short
from pipelines.storage import OutputError
from pipelines.storage.objects import _is_taken
from pipelines.transient import UnavailableError, is_transient, retrying


def of_s3(code: str, status: int, **more: str) -> Exception:
    """As s3fs raises it."""
    answer = {
        "Error": {"Code": code, "Message": "As told", **more}, "ResponseMetadata": {"HTTPStatusCode": status},
    }  # fmt: skip
    return translate_boto_error(boto.ClientError(answer, "PutObject"))


def of_azure(status: int, kind: type[Exception] = azure_errors.HttpResponseError) -> Exception:
    error = kind("As told")
    error.status_code = status  # type: ignore[attr-defined]
    return error


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def during(error: Exception, context: Exception) -> Exception:
    error.__context__ = context
    return error


def disk(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/data/x")


def of_auth(retryable: bool) -> Exception:
    return google_auth.RefreshError("invalid_grant", retryable=retryable)


PASSING = [
    ConnectionResetError(), BrokenPipeError(), ConnectionRefusedError(), TimeoutError(),
    socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), ssl.SSLError("EOF occurred"), IncompleteRead(b""),
    OSError(errno.ENETUNREACH, "Network is unreachable"), OSError(errno.EBUSY, "s3fs's, its cause lost on the way"),
    of_s3("SlowDown", 503), of_s3("InternalError", 500), of_s3("503", 503), of_s3("RequestTimeout", 400),
    of_s3("ConditionalRequestConflict", 409), of_s3("OperationAborted", 409), of_s3("Unheard", 502),
    of_s3("TooManyRequests", 429), of_s3("IncompleteBody", 400),
    boto.EndpointConnectionError(endpoint_url="x"), boto.ReadTimeoutError(endpoint_url="x"),
    boto.ConnectionClosedError(endpoint_url="x"), boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    boto.FlexibleChecksumError(error_msg="x"), ResponseParserError("no XML"),
    aiohttp.ServerDisconnectedError(), aiohttp.ClientPayloadError(), aiohttp.ClientOSError(errno.ECONNRESET, "x"),
    aiohttp.ClientResponseError(None, (), status=500),  # type: ignore[arg-type]
    HttpError({"code": 503}), HttpError({"code": "429"}), HttpError({"code": 409}), ChecksumError(),
    requests.exceptions.ProxyError(), requests.exceptions.ConnectionError(), of_auth(True),
    google_auth.TransportError("x"),
    azure_errors.ServiceRequestError("x"), azure_errors.ServiceResponseError("x"), of_azure(503), of_azure(409),
    azure_errors.IncompleteReadError("x"),
    _cut_short("s3://b/k", 10, 0, 5),
    caused(OSError("s3://b/k can't be read"), aiohttp.ClientPayloadError()),
    caused(InputError("s3://b can't be listed"), of_s3("SlowDown", 503)),
    caused(ValueError("Failed to fetch container properties"), of_azure(503)),
    caused(OutputError("s3://b/k can't be created"), ConnectionResetError()),
    during(RuntimeError("while it was cleaned up"), ConnectionResetError()),
]  # fmt: skip

STAYING = [
    FileNotFoundError(), FileExistsError(), PermissionError(), ValueError(), KeyError(), RuntimeError(), OSError("x"),
    KeyboardInterrupt(), asyncio.CancelledError(), IsADirectoryError(errno.EISDIR, "Is a directory"),
    disk(errno.ENOSPC), disk(errno.EROFS), disk(errno.EIO), disk(errno.EBUSY), OSError(errno.EIO, "Input/output error"),
    OSError(errno.EDQUOT, "Disk quota exceeded"), OSError(errno.EMFILE, "Too many open files"),
    ssl.SSLCertVerificationError("self-signed"),
    of_s3("AccessDenied", 403), of_s3("NoSuchKey", 404), of_s3("InvalidAccessKeyId", 403), of_s3("ExpiredToken", 400),
    of_s3("PreconditionFailed", 412), of_s3("PreconditionFailed", 412, Condition="If-None-Match"),
    of_s3("NotImplemented", 501), of_s3("InvalidArgument", 400), of_s3("Unheard", 400),
    boto.NoCredentialsError(), boto.ParamValidationError(report="x"),
    HttpError({"code": 401}), HttpError({"code": 400}), OSError("Forbidden: b/o"), of_auth(False),
    of_azure(403), of_azure(404, azure_errors.ResourceNotFoundError), of_azure(409, azure_errors.ResourceExistsError),
    of_azure(401, azure_errors.ClientAuthenticationError),
    UnavailableError("asked again and again"), caused(UnavailableError("asked"), ConnectionResetError()),
    caused(FileNotFoundError(), ConnectionResetError()), during(ValueError("no number"), ConnectionResetError()),
    caused(InputError("s3://b can't be listed"), FileNotFoundError()),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", STAYING, ids=repr)
def test_what_stays(error: BaseException) -> None:
    assert not is_transient(error)


def test_circles_end() -> None:
    error, other = RuntimeError(), RuntimeError()
    error.__cause__, other.__cause__ = other, error
    assert not is_transient(error)


def test_s3fs_errors_that_travelled_are_known() -> None:
    """What an exception came from is lost on its way between processes."""
    assert is_transient(pickle.loads(pickle.dumps(of_s3("SlowDown", 503))))
    assert is_transient(pickle.loads(pickle.dumps(of_s3("InternalError", 500))))


def test_refusals_are_known_however_they_are_dressed() -> None:
    named, unnamed = (
        of_s3("PreconditionFailed", 412, Condition="If-None-Match"),
        of_s3("PreconditionFailed", 412),
    )
    assert isinstance(named, FileExistsError)
    assert unnamed.errno == errno.EINVAL  # type: ignore[attr-defined]
    for error in (
        named,
        unnamed,
        of_azure(412),
        FileExistsError(),
        during(FileNotFoundError(), FileExistsError()),
    ):
        assert _is_taken(error), error
    for error in (of_s3("SlowDown", 503), of_azure(404), FileNotFoundError(), OSError(errno.EINVAL, "x")):
        assert not _is_taken(error), error


def test_it_is_tried_again_until_it_answers() -> None:
    told: list[tuple[BaseException, float]] = []
    errors: list[Any] = [ConnectionResetError("1"), TimeoutError("2")]

    def ask() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    assert retrying(10, lambda error, wait: told.append((error, wait)))(ask) == "answer"
    assert [str(error) for error, _ in told] == ["1", "2"]
    assert all(0.2 <= wait <= 0.4 for _, wait in told)


def test_what_stays_is_raised_at_once() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        retrying(10)(ask)
    assert asked == [1]


def test_when_patience_ends_the_error_is_raised() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise ConnectionResetError("reset")

    with pytest.raises(ConnectionResetError, match="reset"):
        retrying(0.3)(ask)
    assert 2 <= len(asked) <= 4
