"""Names that are no UTF-8: as text, and back to the bytes."""

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.addresses import address, legible, path_of
from pipelines.items import locate

NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name)
PATHS = st.lists(NAMES | st.sampled_from([b"caf\xe9", b"100%", b"%E9", b"a b"]), min_size=1, max_size=3).map(
    lambda names: os.fsdecode(b"/" + b"/".join(names))
)


@given(PATHS, PATHS)
def test_every_path_is_text_that_leads_back_to_it(path: str, other: str) -> None:
    uri = address(path)
    uri.encode()
    assert path_of(uri) == path
    assert (uri == address(other)) == (path == other)
    assert path_of(path) == path
    legible(path).encode()


def test_only_what_is_no_utf8_is_rewritten() -> None:
    for path in ("/in/café 100%.txt", "s3://b/caf%E9.txt", "/in/%E9.txt"):
        assert address(path) == path_of(path) == legible(path) == path
    odd = "/in/caf\udce9 100%.txt"
    assert address(odd) == "file:///in/caf%E9%20100%25.txt" == Path(odd).as_uri()
    assert unquote_to_bytes(legible(odd)) == b"/in/caf\xe9 100%.txt"


@pytest.mark.parametrize("uri", ["file:///in/100%25.txt", "file:///in/caf%C3%A9.txt", "file:///in/100%.txt"])
def test_what_people_write_in_file_uris_is_taken_as_it_stands(uri: str) -> None:
    assert path_of(uri) == uri
    assert locate(uri)[1] == uri.removeprefix("file://")
