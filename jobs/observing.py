"""What became of a run: read from its output, where all of it is, and from the target that it was sent to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.target import Sent
from jobs.events import Reader
from jobs.exit_codes import BAD_SPEC, BUDGET_EXCEEDED, DONE, FAILED, INTERRUPTED, QUARANTINED
from jobs.lease import holder_of
from jobs.pace import Pace, pace, paced
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


class Watch:
    """What a run's events have come to, kept from look to look: each reads what is new since the one before."""

    def __init__(self, storage: Storage, run_id: str) -> None:
        self.storage, self.run_id = storage, run_id
        self.attempt = Attempt()  #: the last one
        self.paced: list[Mapping[str, Any]] = []  #: the events that its pace is made of
        self._events = Reader(storage, run_id)

    def read(self) -> None:
        """Go on to what is there now."""
        of_pace = [*self.paced]
        for event in self._events.new():
            self.attempt = _after(self.attempt, event)
            if event["event"] in ("attempt_started", "progress"):
                of_pace.append(event)
        self.paced = paced(of_pace)


def observe(watch: Watch, sent: Sent | None = None, tell: Callable[[str], None] = lambda _: None) -> Status:
    """A run as it is now; `sent` is what its target knows of the submission that it belongs to, if it was sent."""
    watch.read()
    going = sent is not None and sent.state in ("pending", "running")
    refused = sent is not None and sent.exit_code == BAD_SPEC
    held = False
    if watch.attempt.ended is None and not (going or refused):
        held = holder_of(watch.storage, watch.run_id, tell) is not None
        watch.read()  # it may have ended while a sign of life was waited for
    attempt = watch.attempt
    state, message, code = attempt.ended, attempt.message, attempt.exit_code
    if sent and going:
        # The attempt of this submission may not have begun: what there is of events may be of one before.
        begun = attempt.number and state is None
        state = "submitted" if sent.state == "pending" and not begun else "running"
        message, code = sent.message, None
    elif refused:
        state, message, code = "failed", "The job can't be run as it is: perceive logs says why.", BAD_SPEC
    elif state is None and held:
        state = "running"
    elif state is None and sent and sent.state == "stopped":
        state, message, code = "stopped", sent.message, INTERRUPTED
    elif state is None and sent and sent.state == "failed":
        state, message, code = ("failed" if sent.exit_code else "lost"), sent.message, FAILED
    elif state is None:
        state, message, code = "lost", "It was killed, or its machine or its output is gone.", FAILED
    assert state is not None
    return Status(state, attempt, message, code, pace(watch.paced))


def _after(attempt: Attempt, event: Mapping[str, Any]) -> Attempt:
    """A run's last attempt after one more event."""
    changes: dict[str, Any] = {}
    match event["event"]:
        case "attempt_started":
            changes = {"number": event["attempt"], "ended": None, "exit_code": None, "message": ""}
            changes |= {"shards": event["shards"], "shards_done": event["done"], "items": event["items"]}
        case "shard_committed":
            quarantined = attempt.quarantined + event["quarantined"]
            changes = {"shards_done": attempt.shards_done + 1, "rows": attempt.rows + event["rows"]}
            changes |= {"quarantined": quarantined}
        case "manifest_published":
            changes = {name: event[name] for name in ("items", "rows", "quarantined")}
            changes |= {"exit_code": QUARANTINED if event["quarantined"] else DONE}
        case "attempt_done":
            changes = {"ended": "done"}
        case "budget_exceeded":
            changes = {"exit_code": BUDGET_EXCEEDED}
        case "attempt_failed":
            changes = {"ended": "failed", "message": event["message"]}
            changes |= {"exit_code": attempt.exit_code or FAILED}
        case "attempt_interrupted":
            changes = {"ended": "stopped", "message": "Somebody stopped it.", "exit_code": INTERRUPTED}
    return replace(attempt, **changes) if changes else attempt
