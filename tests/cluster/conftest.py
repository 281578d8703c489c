"""One Ray head for all tests that send something to one."""

from collections.abc import Iterator

import pytest

from tests.cluster.head import Head


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    head = Head()
    head.start()
    yield head
    head.kill()
