"""The `perceive` command: one file per verb. Verbs import what they need when they run, so that help is instant."""

import click

from jobs.cli.errors import errors
from jobs.cli.gc import gc
from jobs.cli.init import init
from jobs.cli.models import models
from jobs.cli.retry import retry
from jobs.cli.run import run
from jobs.cli.schema import schema
from jobs.cli.tasks import tasks


@click.group(no_args_is_help=True)
@click.version_option(package_name="perceiver-batch", prog_name="perceive")
def main() -> None:
    """Batch inference for Perceiver IO: media in, complete and typed Arrow tables out."""


main.add_command(init)
main.add_command(run)
main.add_command(errors)
main.add_command(retry)
main.add_command(gc)
main.add_command(models)
main.add_command(tasks)
main.add_command(schema)
