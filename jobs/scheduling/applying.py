"""A job's schedule, put where perceive tick finds it."""

from collections.abc import Iterable
from datetime import UTC, datetime

from jobs.document import SpecError
from jobs.finding import target_named
from jobs.scheduling.records import Schedule, Terms
from jobs.scheduling.store import ScheduleStore
from jobs.spec import Job
from jobs.store import RunStore
from pipelines.secrets import check_variable


def apply_schedule(
    job: Job,
    store: ScheduleStore,
    target: str = "local",
    variables: Iterable[str] = (),
    send_code: bool = True,
    now: datetime | None = None,
) -> tuple[Schedule, bool]:
    """Have a job run at its times, from now on; whether that is anything new. Raises SpecError."""
    if job.schedule is None:
        raise SpecError(
            f"The job {job.name} has no schedule: expected a section schedule with cron, such as schedule: {{cron: "
            '"30 2 * * *", timezone: Europe/Berlin}. To run it once: perceive submit.'
        )
    for name in variables:
        check_variable(name)
    to = target_named(target, RunStore(store.folder))  # an address that the environment gives now is kept
    terms = Terms(job.model_dump(mode="json"), to.name, tuple(variables), not send_code)
    return store.apply(job.name, terms, now or datetime.now(UTC))
