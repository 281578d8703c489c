"""A schedule's runs: submitted as perceive submit does, and looked at where they are."""

from collections.abc import Callable
from dataclasses import dataclass

from jobs.scheduling.records import Terms, Tick
from jobs.scheduling.tick import Outcome
from jobs.store import Run, RunStore


@dataclass(frozen=True)
class SubmittedRuns:
    """The runs of this user's store. What submits is loaded once there is something to submit: that takes seconds."""

    store: RunStore
    say: Callable[[str], None] = lambda _: None

    def submit(self, terms: Terms, tick: Tick) -> tuple[str, str]:
        from jobs.spec import parse_job
        from jobs.submission import submit
        from pipelines.meter import Quiet

        job = parse_job(dict(terms.job), f"The job of the schedule {tick.schedule}")
        run, sent = submit(
            job,
            terms.target,
            self.store,
            Quiet(),
            variables=terms.variables,
            send_code=not terms.installed,
            fire=tick.tick,
        )
        self.say(
            f"{tick.schedule}: run {run.run_id} of {tick.tick} "
            + (f"sent to {run.target}" if sent else f"is {run.state}")
        )
        return run.run_id, run.output

    def look(self, tick: Tick) -> Outcome | None:
        from jobs.errors import of_cluster
        from jobs.finding import refreshed, target_named
        from jobs.states import AT_REST

        run = self._run(tick)
        if run.submission:
            with of_cluster():  # of a target that doesn't answer, nobody knows whether the run goes on
                target_named(run.target, self.store).look(run.submission)
        run, seen = refreshed(run, self.store, self.say)
        if run.state not in AT_REST:
            return None
        if run.state == "lost":
            return Outcome("failed", run.exit_code, f"The run is lost: {seen.message}")
        assert run.state in ("done", "failed", "stopped")
        return Outcome(run.state, run.exit_code, seen.message)

    def stop(self, tick: Tick) -> None:
        from jobs.following import stop

        stop(self._run(tick), self.store, self.say)

    def _run(self, tick: Tick) -> Run:
        from jobs.finding import find

        return self.store.get(tick.run_id) or find(f"{tick.output}/runs/{tick.run_id}", self.store)
