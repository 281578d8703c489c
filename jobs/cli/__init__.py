"""The `perceive` command: one file per verb. Verbs import what they need when they run, so that help is instant."""

import click

from jobs.cli.attach import attach
from jobs.cli.cluster import cluster
from jobs.cli.compare import compare
from jobs.cli.doctor import doctor
from jobs.cli.errors import errors
from jobs.cli.gc import gc
from jobs.cli.init import init
from jobs.cli.list import list_runs
from jobs.cli.logs import logs
from jobs.cli.models import models
from jobs.cli.plan import plan
from jobs.cli.report import report
from jobs.cli.resume import resume
from jobs.cli.retry import retry
from jobs.cli.run import run
from jobs.cli.schedule import schedule
from jobs.cli.scheduler import scheduler
from jobs.cli.schema import schema
from jobs.cli.status import status
from jobs.cli.stop import stop
from jobs.cli.submit import submit
from jobs.cli.tasks import tasks
from jobs.cli.tick import tick


@click.group(no_args_is_help=True)
@click.version_option(package_name="perceiver-batch", prog_name="perceive")
def main() -> None:
    """Batch inference for Perceiver IO: media in, complete and typed Arrow tables out."""


for verb in (
    init, plan, run, submit, list_runs, status, report, compare, attach, logs, stop, resume,
    schedule, tick, scheduler, errors, retry, gc, doctor, tasks, models, schema, cluster,
):  # fmt: skip
    main.add_command(verb)
