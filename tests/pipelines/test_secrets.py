"""What is stored or shown holds no secret of the environment, and none that an address carries."""

import json
import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.errors import ItemError
from pipelines.secrets import SecretError, check_no_secrets, check_references, found_in, redacted


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


LETTERS = string.ascii_letters + string.digits
#: Made up, in the forms of their issuers; joined here so that no scanner takes this file for a leak.
KEYS = {
    "an AWS access key id": ["AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "IOSFODNN7EXAMPLE"],
    "a Hugging Face token": ["hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"],
    "a GitHub token": ["ghp_" + "a1B2" * 9, "github_pat_" + "11ABCDEFG0" * 3],
    "a Google API key": ["AIza" + "Sy_-a" * 7],
    "a private key": ["-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE", '{"type": "x", "private_key"' + ': "-"}'],
    "a signed token (JWT)": [
        "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkw." + "dozjgNryP4J3jVmNHl0w5N"
    ],
    "an Azure account key": ["DefaultEndpointsProtocol=https;AccountKey=" + "aB3+" * 21 + "aA=="],
    "an Azure shared access signature": ["sv=2024&sig=" + "aB3%2B" * 8 + "%3D"],
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in KEYS.items() for key in keys])
def test_keys_are_known_by_their_looks_wherever_they_stand(name: str, key: str) -> None:
    for document, place in (
        ({"input": {"uri": f"s3://bucket/{key}"}}, ("input", "uri")),
        ({"input": {"keep": ["a", key]}}, ("input", "keep", "1")),
        ({"options": {key: 3}}, ("options",)),
        ({"a": {"b": [{"c": quote(key)}]}}, ("a", "b", "0", "c")),
    ):
        ((found, what),) = found_in(document)
        assert found == place
        assert what.startswith(f"holds what looks like {name}, and a job is stored and shown in many places.")
        assert key not in what
    ((found, _), *_) = found_in({key: "x"})
    assert key not in str(found)


def test_a_field_that_is_called_like_a_secret_has_no_place() -> None:
    for name in (
        "secret_access_key",
        "aws_secret",
        "token",
        "password",
        "apiKey",
        "account_key",
        "credentials",
    ):
        ((place, what),) = found_in({"input": {name: "hunter2"}})
        assert place == ("input", name)
        assert "no such option, and by its name a secret" in what
        assert "hunter2" not in what


_HASHES = st.sampled_from([32, 40, 43, 64, 86, 128]).flatmap(
    lambda size: st.text(st.sampled_from(LETTERS + "+/"), min_size=size, max_size=size).map(
        lambda text: text + "=="
    )
)
_HEX = st.sampled_from([32, 40, 64, 128]).flatmap(
    lambda size: st.text(st.sampled_from("0123456789abcdef"), min_size=size, max_size=size)
)
_NAMES = st.text(st.sampled_from(LETTERS + "._-"), min_size=1, max_size=60)


@given(st.one_of(_HASHES, _HEX, _HEX.map(str.upper), _NAMES, st.uuids().map(str)))
def test_hashes_revisions_and_names_are_none(name: str) -> None:
    marks = ("hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "eyJ", "AIza", "AKIA", "ASIA")
    assume(not any(mark in name for mark in marks))  # what begins as a key does is a matter of its length
    for text in (
        name, f"s3://bucket/{name}/clip.mp4", f"owner/name@{name}", f"https://h/x?v={name}", f"/data/{name}.txt",
    ):  # fmt: skip
        assert not list(found_in({"input": {"uri": text, "keep": [text]}})), text


@pytest.mark.parametrize(
    "text",
    [
        "hf_demo/model", "/data/hf_dataset_of_videos_from_the_year_2024.tar", "ghp_notes.txt", "AKIA",
        "akiaiosfodnn7example",
        "s3://bucket/AKIAIOSFODNN7EXAMPLES/x", "s3://bucket/MAKIAIOSFODNN7EXAMPL", "eyJ.eyJ.x", "design=" + "a" * 44,
        "my private key.txt", "sig=abc", "tokens/of/appreciation",
    ],
)  # fmt: skip
def test_what_only_begins_like_one_is_none(text: str) -> None:
    assert not list(found_in({"input": {"uri": text}}))


@pytest.mark.parametrize(
    "address",
    [
        "https://user:${env:MY_PASSWORD}@host/model",
        "https://host/model?token=${env:MODEL_TOKEN}&v=2",
        "https://host/model?${env:SAS_TOKEN}",
    ],
)
def test_references_stand_where_secrets_do(address: str) -> None:
    check_references(address)
    check_no_secrets(address, may_refer=True)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (
            "https://host/${env:A_TOKEN}/x",
            "expected it as the password .* or in the query .*, got it elsewhere",
        ),
        ("https://${env:A_TOKEN}/x", "got it elsewhere"),
        ("https://host/x#${env:A_TOKEN}", "got it elsewhere"),
        ("https://host/x?a=${env:HOME}", r"\$\{env:HOME\}: expected a variable that is called like a secret"),
        ("https://host/x?a=${env:}", r"a reference is written \$\{env:NAME\}"),
        ("https://host/x?a=${env:A_TOKEN", r"a reference is written \$\{env:NAME\}"),
        ("s3://bucket/x?a=${env:A_TOKEN}", "is for web addresses alone .*: AWS_ACCESS_KEY_ID"),
        ("weights/${env:A_TOKEN}", "is for web addresses alone"),
    ],
)
def test_references_elsewhere_are_refused(address: str, why: str) -> None:
    with pytest.raises(SecretError, match=why):
        check_references(address)


def test_a_reference_beside_a_secret_hides_none() -> None:
    for address in ("https://u:hunter2@h/x?token=${env:A_TOKEN}", "https://h/x?a=${env:A_TOKEN}&sig=hunter2",
                    "https://h/x?token=hunter2${env:A_TOKEN}", "https://u:hunter2${env:A_TOKEN}@h/x"):  # fmt: skip
        with pytest.raises(
            SecretError, match=r"refer to an environment variable that holds it: \$\{env:NAME\}"
        ) as caught:
            check_no_secrets(address, may_refer=True)
        assert "hunter2" not in str(caught.value)
