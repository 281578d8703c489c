"""What is stored or shown holds no secret of the environment, and none that an address carries."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ItemError
from pipelines.secrets import redacted


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=9, max_size=40))
def test_no_form_of_a_secret_is_left(secret: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
            assert redacted(f"a {form} b") == "a [hidden] b"


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AZURE_STORAGE_ACCOUNT_KEY",
     "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET", "HF_TOKEN", "RAY_AUTH_TOKEN",
     "MY_PASSWORD", "SOME_API_KEY"],
)  # fmt: skip
def test_the_variables_that_hold_secrets_are_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "canary-0123")
    assert redacted("with canary-0123 in it") == "with [hidden] in it"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:pass@host/a", "https://user:[hidden]@host/a"),
        ("GET https://h/k?X-Amz-Signature=ab12&x=1", "GET https://h/k?X-Amz-Signature=[hidden]&x=1"),
        ("https://h/c?sv=2024&sig=a%2Bb%3D&se=9", "https://h/c?sv=2024&sig=[hidden]&se=9"),
        ("s3://bucket/a?versionId=3", "s3://bucket/a?versionId=3"),
        ("no://secret in token=here", "no://secret in token=here"),
        ("10:30 and a@b", "10:30 and a@b"),
    ],
)
def test_what_addresses_carry_is_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_short_words_and_other_variables_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "short")
    monkeypatch.setenv("HOME_FOLDER", "/home/somebody")
    monkeypatch.setenv("TOKEN_FILE", "/var/run/token")
    assert redacted("short /home/somebody /var/run/token") == "short /home/somebody /var/run/token"


def test_a_quarantine_row_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-0123")
    error = ItemError.of(OSError("denied for canary-0123 at https://h/?token=abc"), "read")
    assert error.message == "denied for [hidden] at https://h/?token=[hidden]"
