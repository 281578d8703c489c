"""events.jsonl: what happened to a run, written as it happens, readable after any kill."""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def attempts(folder: Path) -> int:
    """How many attempts the run has had."""
    return sum(event["event"] == "attempt_started" for event in read(folder))


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The run's events, in order; a line that a kill cut short is left out."""
    path = folder / "events.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


@contextmanager
def recorded(folder: Path, attempt: int) -> Iterator[None]:
    """Note how the attempt starts and ends; a start without an end was killed."""
    _append(folder, "attempt_started", attempt=attempt)
    try:
        yield
    except BaseException as error:
        name = "attempt_interrupted" if isinstance(error, KeyboardInterrupt) else "attempt_failed"
        _append(folder, name, attempt=attempt, error="".join(traceback.format_exception(error)))
        raise
    _append(folder, "attempt_done", attempt=attempt)


def _append(folder: Path, event: str, **fields: Any) -> None:
    line = json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **fields})
    path = folder / "events.jsonl"
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(("\n" if torn else "") + line + "\n")
