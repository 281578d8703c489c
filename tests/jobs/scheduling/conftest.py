"""Where a store may lie."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.scheduling.store import ScheduleStore


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder without a disk, where there is one: hundreds of stores in it wait for none."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if Path(memory).is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def store(tmp_path: Path) -> ScheduleStore:
    """Of schedules, with none in it."""
    return ScheduleStore(tmp_path)
