"""The states of a tick, which is one fire of a schedule, and which may follow which."""

from typing import Literal, get_args

from perceiver_core.errors import PerceiverError

TickState = Literal[
    "waiting", "claimed", "submitted", "stopping", "done", "failed", "stopped", "skipped", "missed"
]
TICK_STATES: tuple[TickState, ...] = get_args(TickState)

#: What each state means, and what may come next.
TICK_TRANSITIONS: dict[TickState, tuple[str, tuple[TickState, ...]]] = {
    "waiting": (
        "its time has come, but not its turn: by jitter, in a queue, or until a target answers",
        ("claimed", "skipped", "missed"),
    ),
    "claimed": ("a process submits it; another one does if that dies", ("submitted", "waiting", "failed")),
    "submitted": ("its run is at the target", ("stopping", "done", "failed", "stopped")),
    "stopping": ("its run is asked to stop, for a later fire", ("done", "failed", "stopped")),
    "done": ("its run has made its table", ()),
    "failed": ("its run failed, or none could be submitted", ()),
    "stopped": ("its run was stopped", ()),
    "skipped": ("it had no run, and was not to have one", ()),
    "missed": ("it had no run, for it was found too late", ()),
}
#: Its run is there or about to be, and not known to be at rest.
GOING: tuple[TickState, ...] = ("claimed", "submitted", "stopping")


class TickStateError(PerceiverError, RuntimeError):
    """A tick can't get from the state that it is in to another one."""


def check_tick(tick: str, before: TickState, after: TickState) -> None:
    """Raise TickStateError unless `after` may follow `before`."""
    meaning, may = TICK_TRANSITIONS[before]
    if after not in may:
        what = f"only {', '.join(may)}" if may else "nor anything else"
        raise TickStateError(f"The fire of {tick} is {before} ({meaning}): it can't become {after}, {what}.")
