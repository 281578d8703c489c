"""`make mutations` takes minutes; that it still finds what it would break is checked here."""

import pytest

from tests.mutations import MUTATIONS, ROOT


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_text_to_break_is_there(name: str) -> None:
    file, changes = MUTATIONS[name]
    source = (ROOT / "perceiver_core" / file).read_text()
    assert [what for what, _ in changes if what not in source] == []
