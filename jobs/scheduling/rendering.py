"""A job's schedule as a CronJob, for who lets Kubernetes look at the clock."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from cluster.errors import ClusterError
from cluster.kuberay.cronjob import Times, command, manifests
from cluster.target import Submission
from jobs.document import SpecError
from jobs.reach import check_reach
from jobs.scheduling.due import LATE
from jobs.scheduling.spec import ScheduleSpec
from jobs.spec import Job
from jobs.submission import write_job

#: Kubernetes has no queue, but makes up for the last fire that it skipped, until its deadline.
_POLICIES: dict[str, Literal["Forbid", "Allow"]] = {"forbid": "Forbid", "queue": "Forbid", "allow": "Allow"}


def render(job: Job) -> list[dict[str, Any]]:
    """The ConfigMap and the CronJob; nothing is looked at. Raises SpecError, also of what no CronJob can do."""
    if job.schedule is None:
        raise SpecError(
            f"The job {job.name} has no schedule: expected a section schedule with cron, such as schedule: {{cron: "
            '"30 2 * * *", timezone: Europe/Berlin}. To run it once: perceive submit --target kuberay.'
        )
    check_reach(job)
    assert job.kubernetes  # as that has looked
    times = _times(job.schedule)
    with TemporaryDirectory() as folder:
        write_job(job, Path(folder))
        submission = Submission(job.name, command("job.yaml"), Path(folder), labels={"job": job.name})
        try:
            return manifests(job.kubernetes, times, submission)
        except ClusterError as error:
            raise SpecError(str(error)) from error


def _times(spec: ScheduleSpec) -> Times:
    for given, why in (
        (
            spec.overlap == "replace",
            "overlap: replace would end the pod that waits for a run, and not the run",
        ),
        (spec.catch_up == "all", "catch_up: all can't be had, for it makes up for the last fire alone"),
        (spec.jitter is not None, "jitter can't be had"),
        (
            spec.webhook is not None,
            "webhook can't be had: let what watches the cluster's Jobs tell of failed ones",
        ),
    ):
        if given:
            raise SpecError(
                f"schedule: by a CronJob, {why}. Choose otherwise, or leave it to perceive tick: perceive schedule "
                "apply FILE --target kuberay."
            )
    deadline = spec.deadline or (LATE if spec.catch_up == "none" else None)
    seconds = None if deadline is None else int(deadline.total_seconds())
    return Times(spec.cron, spec.timezone, _POLICIES[spec.overlap], seconds)
