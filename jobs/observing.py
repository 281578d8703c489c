"""What became of a run: read from its output, where all of it is, and from the target that it was sent to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.target import Sent
from jobs import events
from jobs.exit_codes import BAD_SPEC, BUDGET_EXCEEDED, DONE, FAILED, INTERRUPTED, QUARANTINED
from jobs.lease import holder_of
from jobs.pace import Pace, pace
from jobs.states import State
from pipelines.storage import Storage


@dataclass(frozen=True)
class Attempt:
    """A run's last attempt, by its events."""

    number: int = 0  #: 0: none has begun
    ended: State | None = None  #: how; None: it hasn't, or was killed
    exit_code: int | None = None
    message: str = ""
    rows: int = 0  #: committed, of all attempts
    shards: int = 0  #: of the run
    shards_done: int = 0
    items: int = 0
    quarantined: int = 0  #: rows of the quarantine table


@dataclass(frozen=True)
class Status:
    """A run as it is now."""

    state: State
    attempt: Attempt
    message: str  #: why it is not what was hoped for
    exit_code: int | None  #: once it is at rest
    pace: Pace | None  #: while it runs, and as it was when it ended


def observe(
    storage: Storage, run_id: str, sent: Sent | None = None, tell: Callable[[str], None] = lambda _: None
) -> Status:
    """A run as it is now; `sent` is what its target knows of the submission that it belongs to, if it was sent."""
    told = list(events.read(storage, run_id))
    attempt = last_attempt(told)
    state, message, code = attempt.ended, attempt.message, attempt.exit_code
    if sent and sent.state in ("pending", "running"):
        # The attempt of this submission may not have begun: what there is of events may be of one before.
        begun = attempt.number and state is None
        state = "submitted" if sent.state == "pending" and not begun else "running"
        message, code = sent.message, None
    elif sent and sent.exit_code == BAD_SPEC:
        state, message, code = "failed", "The job can't be run as it is: perceive logs says why.", BAD_SPEC
    elif state is None and holder_of(storage, run_id, tell):
        state = "running"
    elif state is None and sent and sent.state == "stopped":
        state, message, code = "stopped", sent.message, INTERRUPTED
    elif state is None and sent and sent.state == "failed":
        state, message, code = ("failed" if sent.exit_code else "lost"), sent.message, FAILED
    elif state is None:
        state, message, code = "lost", "It was killed, or its machine or its output is gone.", FAILED
    assert state is not None
    return Status(state, attempt, message, code, pace(told))


def last_attempt(told: Sequence[dict[str, Any]]) -> Attempt:
    """The last attempt of a run that has these events."""
    found = Attempt()
    rows = quarantined = 0
    for event in told:
        kind = event["event"]
        if kind == "attempt_started":
            found = replace(
                found, number=event["attempt"], ended=None, exit_code=None, message="",
                shards=event["shards"], shards_done=event["done"], items=event["items"],
            )  # fmt: skip
        elif kind == "shard_committed":
            rows, quarantined = rows + event["rows"], quarantined + event["quarantined"]
            done = found.shards_done + 1
            found = replace(found, shards_done=done, rows=rows, quarantined=quarantined)
        elif kind == "manifest_published":
            code = QUARANTINED if event["quarantined"] else DONE
            rows, quarantined = event["rows"], event["quarantined"]
            found = replace(found, exit_code=code, items=event["items"], rows=rows, quarantined=quarantined)
        elif kind == "attempt_done":
            found = replace(found, ended="done")
        elif kind == "budget_exceeded":
            found = replace(found, exit_code=BUDGET_EXCEEDED)
        elif kind == "attempt_failed":
            found = replace(
                found, ended="failed", message=event["message"], exit_code=found.exit_code or FAILED
            )
        elif kind == "attempt_interrupted":
            found = replace(found, ended="stopped", message="Somebody stopped it.", exit_code=INTERRUPTED)
    return found
