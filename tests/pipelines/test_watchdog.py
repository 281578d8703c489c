"""The watchdog: what counts as progress, what it says of a stall, and that a run in Ray ends by it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines import watchdog
from pipelines.watchdog import StalledError, Watch, watch
from tests.pipelines.copying import Copying

ROOT = Path(__file__).parent.parent.parent


class Operator:
    """What the watchdog asks of one."""

    def __init__(
        self, name: str, queued: int = 0, running: int = 0, pool: tuple[int, int, int] | None = None
    ) -> None:
        self.name, self.queued, self.running = name, queued, running
        self.metrics = SimpleNamespace(num_tasks_finished=0, num_task_outputs_generated=0)
        if pool:
            alive, pending, restarting = pool
            info = SimpleNamespace(running=alive, pending=pending, restarting=restarting)
            self.get_actor_info = lambda: info

    def num_active_tasks(self) -> int:
        return self.running

    def total_enqueued_input_blocks(self) -> int:
        return self.queued


class Clock:
    """Time that passes when it is told to; a step is a look of the watchdog."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, *operators: Operator) -> None:
        self.now, self.progress, self.dumped = 0.0, 0, []  # type: ignore[var-annotated]
        monkeypatch.setattr(watchdog.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(watchdog, "_cluster", lambda: {"nodes": []})
        self.executor = SimpleNamespace(_topology={operator: operator for operator in operators})
        self.dog = watch(seconds, lambda: self.progress, self.dump)()
        self.dog.before_execution_starts(self.executor)

    def dump(self, state: dict[str, Any]) -> None:
        self.dumped.append(state)

    def step(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.dog.on_execution_step(self.executor)

    def steps_until_stall(self) -> int:
        for steps in range(1, 1000):
            try:
                self.step()
            except StalledError as error:
                self.error = error
                return steps
        raise AssertionError("It never stalls.")


def busy() -> tuple[Operator, Operator, Operator]:
    """Predict hangs: all before it waits for it."""
    return (
        Operator("StreamingRepartition[num_rows_per_block=1,strict=False]", queued=19, running=1),
        Operator("MapBatches(Decode)", queued=8, running=1, pool=(2, 0, 0)),
        Operator("MapBatches(Predict)", queued=3, running=2, pool=(1, 0, 1)),
    )


def test_a_stall_is_of_the_last_stage_with_work_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 30, *busy(), Operator("MapBatches(write_part)"))
    assert clock.steps_until_stall() == 31  # the first look is what the others are compared with
    assert str(clock.error) == (
        "No stage made progress for 30 s. Predict is stuck: 2 blocks in work by 1 alive, 1 restarting workers, "
        "3 queued, 0 finished. A device or a store that hangs is likely: look at its processes (py-spy dump, "
        "nvidia-smi); then run the job again: it resumes. If a block may take so long, raise compute.stall_minutes."
    )
    [state] = clock.dumped
    json.dumps(state)
    assert (state["stage"], state["seconds"], state["nodes"]) == ("Predict", 30, [])
    assert state["operators"][2] == {
        "stage": "Predict", "queued": 3, "running": 2, "finished": 0, "outputs": 0,
        "actors": {"alive": 1, "pending": 0, "restarting": 1},
    }  # fmt: skip


def test_a_stage_whose_workers_never_start_is_told_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 5, Operator("MapBatches(Predict)", queued=2, pool=(0, 4, 0)))
    clock.steps_until_stall()
    assert "Predict is stuck: 0 blocks in work by 4 pending workers, 2 queued, 0 finished" in str(clock.error)
    assert "Its workers wait for CPUs, GPUs or memory: see what the nodes have, and ask for fewer" in str(
        clock.error
    )


def _count(clock: Clock, predict: Operator) -> None:
    clock.progress += 1


def _finish(clock: Clock, predict: Operator) -> None:
    predict.metrics.num_tasks_finished += 1


def _output(clock: Clock, predict: Operator) -> None:
    predict.metrics.num_task_outputs_generated += 1


def _start(clock: Clock, predict: Operator) -> None:
    clock.dog.alive = -1  # a worker more than ever before


@pytest.mark.parametrize("sign", [_count, _finish, _output, _start])
def test_any_sign_of_life_begins_the_wait_anew(
    monkeypatch: pytest.MonkeyPatch, sign: Callable[[Clock, Operator], None]
) -> None:
    operators = busy()
    clock = Clock(monkeypatch, 10, *operators)
    for _ in range(10):
        clock.step()
    if sign is _start:
        info = SimpleNamespace(running=3, pending=0, restarting=0)
        operators[2].get_actor_info = lambda: info
    else:
        sign(clock, operators[2])
    assert clock.steps_until_stall() == 11


def test_a_slow_consumer_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 3, Operator("MapBatches(write_part)"))
    for _ in range(100):
        clock.step()


def test_a_process_that_was_stopped_has_seen_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 60, *busy())
    clock.step()
    for _ in range(11):
        clock.step(3600)
    with pytest.raises(StalledError, match="No stage made progress for 60 s"):
        clock.step(3600)


def test_looks_are_a_second_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 60, *busy())
    asked = []
    clock.dog = watch(60, lambda: asked.append(clock.now), clock.dump)()
    clock.dog.before_execution_starts(clock.executor)
    for _ in range(100):
        clock.step(0.25)
    assert len(asked) == 25


def test_a_state_that_can_not_be_kept_does_not_hide_the_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 3, *busy())

    def full(state: dict[str, Any]) -> None:
        raise OSError("no space left")

    clock.dump = full  # type: ignore[method-assign]
    clock.dog = watch(3, lambda: 0, full)()
    clock.dog.before_execution_starts(clock.executor)
    clock.steps_until_stall()
    assert clock.error.__notes__ == ["Its state could not be kept: OSError: no space left"]


def test_patience_is_longer_than_a_decoder_may_be_silent() -> None:
    assert Watch().patience(600) == 1200
    assert Watch(seconds=30).patience(600) == 30


def test_what_it_calls_stays_in_this_process() -> None:
    """Ray sends its settings to every worker, and what is told there can hold locks and files."""
    from ray import cloudpickle

    with (ROOT / "README.md").open() as file:
        dog = watch(1.0, lambda: 0, lambda state: file.write(""))
        assert cloudpickle.loads(cloudpickle.dumps(dog)).__name__ == "Watchdog"


@pytest.mark.e2e
def test_a_stalled_run_ends_in_time_and_leaves_at_once(tmp_path: Path) -> None:
    """In a process of its own: a worker that sleeps for ever would stay in the Ray that tests share."""
    command = [sys.executable, "-m", "tests.pipelines.test_watchdog", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert "Predict is stuck: 2 blocks in work by 1 alive workers" in found["error"]
    assert found["state"]["seconds"] >= 20
    assert found["stalled_s"] < 100, found
    assert found["left_s"] < 20, found
    state = found["state"]
    stages = {stage["stage"]: stage for stage in state["operators"]}
    assert stages["Decode"]["finished"] >= 2
    assert (stages["Predict"]["running"], stages["Predict"]["finished"]) == (2, 0)
    assert state["nodes"][0]["alive"]
    assert state["resources"]["CPU"] == 4


class Asleep(Copying):
    """Its model never answers."""

    def predict(self, model: Any, batch: Any, chunk: int) -> dict[str, np.ndarray]:
        time.sleep(3600)
        raise AssertionError


def main(folder: Path) -> None:
    """A run that stalls; prints how it ended."""
    from cluster.local import local_ray
    from perceiver_core.checkpoint import inspect
    from pipelines.limits import Limits
    from pipelines.meter import Meter
    from pipelines.plan import by_shard
    from pipelines.pools import Node, fit_pools
    from pipelines.stages import ModelPlan
    from tests.clips import write_clip
    from tests.conftest import save_tiny
    from tests.pipelines.copying import CopyingRun

    checkpoint = save_tiny(folder / "tiny")
    (folder / "media").mkdir()
    write_clip(folder / "media/clip.mp4", frames=16 * 6, audio_codec=None)
    run = CopyingRun.over(folder / "media", folder / "out", "tensors", shard_windows=1)
    states: list[dict[str, Any]] = []
    began, error = time.monotonic(), None
    with local_ray(cpus=4, gpus=0) as have:
        from pipelines.pipeline import build, commits

        dataset = build(
            by_shard(run.plan), Asleep(top_k=2), inspect(checkpoint).config, run.source, Limits(),
            ModelPlan(str(checkpoint), "float32", 2, 5000), "cpu", 1, run.sink,
            fit_pools([Node(have.cpus)], None, None),
            Meter.start(), watched=Watch(20, states.append),
        )  # fmt: skip
        try:
            list(commits(dataset))
        except StalledError as stalled:
            error = stalled
        ended = time.monotonic()
    left = time.monotonic() - ended
    found = {"error": str(error), "stalled_s": ended - began, "left_s": left, "state": states[0]}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
