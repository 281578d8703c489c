"""Two outputs to compare, and a run store of the test's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.jobs.comparing.outputs import Two
from tests.jobs.tables import Output


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_STATE", str(tmp_path / "state"))


@pytest.fixture
def two(tmp_path: Path) -> Two:
    """Two outputs with these columns; what else is given is B's."""

    def made(columns: pa.Schema, **changes: Any) -> tuple[Output, Output]:
        first = Output(tmp_path / "a", columns, run_id="runa")
        return first, replace(first, folder=tmp_path / "b", run_id="runb", **changes)

    return made
