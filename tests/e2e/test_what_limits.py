"""The sentence on what limits a run, on runs that decoding, the model, or writing does limit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.bound import MADE

pytestmark = pytest.mark.sources


@pytest.mark.parametrize("stage", MADE)
def test_the_stage_that_limits_is_named(tmp_path: Path, stage: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.bound", stage, str(tmp_path / "job")],
        capture_output=True, text=True, check=False, timeout=170, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [one for one in json.loads(done.stdout) if not one.startswith("starting")]
    assert len(said) >= 3, said
    right = [one for one in said if one.startswith(f"{stage} limits: ")]
    assert len(right) >= 0.7 * len(said), said
