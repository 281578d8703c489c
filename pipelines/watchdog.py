"""The watchdog: a run in which nothing moves any more ends with an error that says where, instead of never."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perceiver_core.errors import PerceiverError

if TYPE_CHECKING:
    from ray.data._internal.execution.execution_callback import ExecutionCallback

_EVERY_S = 1.0  # between looks
_LONGEST_S = 5.0  # that count of a gap between looks: a process that was stopped meanwhile has seen no stall
_SLACK_S = (
    600.0  # beyond what a decoder may take for an item: starting, opening the weights, a batch on a slow CPU
)


class StalledError(PerceiverError, RuntimeError):
    """No stage made progress for as long as the run allows."""


@dataclass(frozen=True)
class Watch:
    """How long a run may stand still, and who is given the state that it then is in."""

    seconds: float | None = (
        None  #: none: 10 minutes more than limits.seconds, for which a decoder may be silent
    )
    dump: Callable[[dict[str, Any]], None] = lambda state: None

    def patience(self, decode_s: float) -> float:
        """How many seconds without progress are too many, where decoding an item may take `decode_s`."""
        return self.seconds if self.seconds is not None else decode_s + _SLACK_S


class Here:
    """What is of use in this process alone: Ray sends the settings that this is part of to every worker."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __reduce__(self) -> tuple[type["Here"], tuple[()]]:
        return Here, ()


def watch(
    seconds: float, progress: Callable[[], object], dump: Callable[[dict[str, Any]], None]
) -> type["ExecutionCallback"]:
    """A callback class for Ray Data: it ends an execution in which nothing changes for so long with a StalledError.

    What must change is `progress()`, which is called once a second and may not wait, or a stage's finished tasks.
    `dump` is given the state before, as JSON could hold it.
    """
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    held = Here((progress, dump))

    class Watchdog(ExecutionCallback):
        def before_execution_starts(self, executor: Any) -> None:
            self.looked = time.monotonic()
            self.still = 0.0
            self.seen: object = None
            self.alive = 0

        def on_execution_step(self, executor: Any) -> None:
            since = time.monotonic() - self.looked
            if since < min(_EVERY_S, seconds):
                return
            self.looked += since
            ask, tell = held.value
            stages = [_stage(op, state) for op, state in executor._topology.items()]
            self.alive = max(self.alive, sum(stage["actors"]["alive"] for stage in stages))
            now = (ask(), [(stage["finished"], stage["outputs"]) for stage in stages], self.alive)
            # Where nothing is queued or running, all wait for whoever takes the results.
            if now != self.seen or not any(stage["queued"] or stage["running"] for stage in stages):
                self.seen, self.still = now, 0.0
                return
            self.still += min(since, _LONGEST_S)
            if self.still >= seconds:
                raise _stalled(stages, self.still, tell)

        def after_execution_succeeds(self, executor: Any) -> None:
            self.seen = None

        def after_execution_fails(self, executor: Any, error: Exception) -> None:
            self.seen = None

    return Watchdog


def _stage(op: Any, state: Any) -> dict[str, Any]:
    """What an operator has in hand."""
    actors = op.get_actor_info() if hasattr(op, "get_actor_info") else None
    return {
        "stage": stage_name(op.name),
        "queued": state.total_enqueued_input_blocks(),
        "running": op.num_active_tasks(),
        "finished": op.metrics.num_tasks_finished,
        "outputs": op.metrics.num_task_outputs_generated,
        "actors": {
            "alive": actors.running if actors else 0,
            "pending": actors.pending if actors else 0,
            "restarting": actors.restarting if actors else 0,
        },
    }


def stage_name(operator: str) -> str:
    """MapBatches(Decode) is what Ray calls Decode."""
    return (
        operator.removeprefix("MapBatches(").removesuffix(")")
        if operator.startswith("MapBatches(")
        else operator
    )


def _stalled(
    stages: list[dict[str, Any]], seconds: float, dump: Callable[[dict[str, Any]], None]
) -> StalledError:
    # The last one with work in hand: those before it wait until it takes their blocks.
    stuck = next(stage for stage in reversed(stages) if stage["queued"] or stage["running"])
    actors = stuck["actors"]
    workers = ""
    if any(actors.values()):
        workers = f" by {', '.join(f'{count} {state}' for state, count in actors.items() if count)} workers"
    if stuck["running"]:
        advice = "A device or a store that hangs is likely: look at its processes (py-spy dump, nvidia-smi)"
    else:
        advice = (
            "Its workers wait for CPUs, GPUs or memory: see what the nodes have, and ask for fewer workers"
        )
    error = StalledError(
        f"No stage made progress for {seconds:.0f} s. {stuck['stage']} is stuck: {stuck['running']} blocks in work"
        f"{workers}, {stuck['queued']} queued, {stuck['finished']} finished. {advice}; then run the job again: it "
        "resumes. If a block may take so long, raise compute.stall_minutes."
    )
    try:
        dump({"stage": stuck["stage"], "seconds": round(seconds, 1), "operators": stages} | _cluster())
    except Exception as failure:  # the stall is what the run fails with
        error.add_note(f"Its state could not be kept: {type(failure).__name__}: {failure}")
    return error


def _cluster() -> dict[str, Any]:
    import ray

    return {
        "resources": ray.cluster_resources(),
        "available": ray.available_resources(),
        "nodes": [
            {
                "id": node["NodeID"],
                "address": node["NodeManagerAddress"],
                "alive": node["Alive"],
                "resources": node["Resources"],
            }
            for node in ray.nodes()
        ],
    }
