"""perceive resume RUN: go on with a run where it stopped."""

import shlex
import sys

import click

from jobs.cli import options
from jobs.cli.run import ending, result_shown
from jobs.cli.submit import handed_over


@click.command()
@click.argument("run")
@options.target
@click.option(
    "--here", is_flag=True, help="In this process, wherever it was before; by default where it was."
)
@click.option("--wait", is_flag=True, help="Where it is sent to a target, follow it to its end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the result, or the run that was sent, as one JSON object."
)
@click.pass_context
def resume(
    click_context: click.Context,
    run: str,
    target: str,
    address: str | None,
    namespace: str | None,
    context: str | None,
    here: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Go on with RUN, by the job that its output holds: in this process, or at the target that it was sent to.

    RUN is a run's id or its beginning, its job's name, or its output's folder or URI. Exit codes are those of perceive
    run, or of perceive submit.
    """
    with ending(shlex.join(["perceive", "resume", run]), as_json) as give_up:
        from jobs.attempt import run_job
        from jobs.cli.progress import terminal_progress
        from jobs.finding import find
        from jobs.store import user_store
        from jobs.submission import job_of, resubmit

        store = user_store()
        found = find(run, store)
        chosen = click_context.get_parameter_source("target") is click.core.ParameterSource.COMMANDLINE
        told = chosen or address or namespace or context
        name = options.name_of(target, address, namespace, context) if told else found.target
        with terminal_progress(give_up) as progress:
            if name and not here:
                again, sent = resubmit(found, name, store, progress)
            else:
                job = job_of(found, store)
                result = run_job(job, progress, store=store)
    if name and not here:
        sys.exit(handed_over(again, sent, wait, as_json))
    result_shown(result, job, as_json)
    sys.exit(result.exit_code)
