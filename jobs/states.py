"""The states of a run, and which may follow which."""

from typing import Literal, get_args

from perceiver_core.errors import PerceiverError

State = Literal["submitted", "running", "stopping", "done", "failed", "stopped", "lost"]
STATES: tuple[State, ...] = get_args(State)

#: What each state means, and what may come next. What is at rest may turn out to be at rest otherwise: who looked first
#: saw less, or an output is gone.
TRANSITIONS: dict[State, tuple[str, tuple[State, ...]]] = {
    "submitted": ("a target has it, it has not begun", ("running", "stopping", "failed", "stopped", "lost", "done")),
    "running": ("an attempt is at it", ("stopping", "done", "failed", "stopped", "lost", "submitted")),
    "stopping": ("it was asked to stop", ("stopped", "done", "failed", "lost", "running")),
    "done": ("the table is there", ("running", "submitted", "lost")),
    "failed": ("an attempt ended with an error; resume it", ("running", "submitted", "done", "stopped", "lost")),
    "stopped": ("somebody stopped it; resume it", ("running", "submitted", "done", "failed", "lost")),
    "lost": ("killed, or its machine is gone; resume it", ("running", "submitted", "done", "failed", "stopped")),
}  # fmt: skip
#: Nothing is at it.
AT_REST: tuple[State, ...] = ("done", "failed", "stopped", "lost")


class StateError(PerceiverError, RuntimeError):
    """A run can't get from the state that it is in to another one."""


def check(run_id: str, before: State, after: State) -> None:
    """Raise StateError unless `after` may follow `before`."""
    meaning, may = TRANSITIONS[before]
    if after not in may:
        raise StateError(
            f"Run {run_id} is {before} ({meaning}): it can't become {after}, only {', '.join(may)}."
        )
