"""perceive submit FILE: hand a job to a target, which runs it."""

import dataclasses
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import options
from jobs.cli.attach import follow
from jobs.cli.run import ending
from jobs.cli.status import following

if TYPE_CHECKING:
    from jobs.store import Run


@click.command()
@click.argument("file")
@options.overrides("compute.batch=8")
@click.option(
    "--supersede", is_flag=True, help="Where the output holds another job's run, as in perceive run."
)
@options.target
@click.option(
    "--env", "variables", multiple=True, metavar="NAME",
    help="A variable of this environment that goes along, such as AWS_ENDPOINT_URL. No secrets: the target shows them.",
)  # fmt: skip
@click.option(
    "--installed",
    is_flag=True,
    help="Use the perceiver-batch that the target has, as in Kubernetes always; else this code goes along.",
)
@click.option(
    "--dry-run",
    type=click.Choice(["client", "server"]),
    help="Of Kubernetes: send nothing, but check what would be sent, here, or by asking the cluster's API as well.",
)
@options.FIRE
@click.option(
    "--wait", is_flag=True, help="Follow it to its end, and exit with its code, as perceive attach does."
)
@click.option("--json", "as_json", is_flag=True, help="Print the run as one JSON object.")
def submit(
    file: str,
    overrides: tuple[str, ...],
    supersede: bool,
    target: str,
    address: str | None,
    namespace: str | None,
    context: str | None,
    variables: tuple[str, ...],
    installed: bool,
    dry_run: str | None,
    fire: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Hand the job in FILE to a target, and return: the run goes on by itself.

    Submitting a job again while its run is going on, or once it is done, changes nothing; after it failed or was
    stopped, it resumes. Exit codes: 0 submitted, 2 bad job, 5 the target can't be reached; with --wait the run's.
    """
    name = options.name_of(target, address, namespace, context)
    if dry_run and not name.startswith("kuberay"):
        raise click.UsageError(
            "--dry-run is of --target kuberay: elsewhere perceive plan says what would be done."
        )
    if dry_run and fire:
        raise click.UsageError("--dry-run is of a job as it is now: leave --fire out.")
    with ending(None, as_json) as give_up:
        from jobs.cli.progress import terminal_progress
        from jobs.rendering import rehearse
        from jobs.spec import load_job
        from jobs.store import user_store
        from jobs.submission import submit

        job = load_job(file, overrides)
        with terminal_progress(give_up) as progress:
            if dry_run:
                on_server = dry_run == "server"
                rehearsed = rehearse(job, name, user_store(), progress, supersede, variables, on_server)
                _shown(rehearsed, dry_run, as_json)
                return
            run, sent = submit(
                job,
                name,
                user_store(),
                progress,
                supersede=supersede,
                variables=variables,
                send_code=not installed,
                fire=fire,
            )
    sys.exit(handed_over(run, sent, wait, as_json))


def _shown(manifests: "list[dict[str, Any]]", dry_run: str, as_json: bool) -> None:
    """Say what would be sent."""
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, "manifests": manifests, "exit_code": 0}))
        return
    who = "The cluster's API takes" if dry_run == "server" else "Nothing is wrong with"
    for one in manifests:
        about = one["metadata"]
        where = f" in namespace {about['namespace']}" if "namespace" in about else ""
        click.echo(f"{who} {one['kind']} {about['name']}{where}. Nothing was sent.")
    click.echo("Next: the same without --dry-run, or perceive cluster render, which prints them.")


def handed_over(run: "Run", sent: bool, wait: bool, as_json: bool) -> int:
    """Say what became of a submission, and follow it if that is asked for; the exit code."""
    if as_json and not wait:
        click.echo(json.dumps(dataclasses.asdict(run) | {"sent": sent, "exit_code": 0}))
    elif not as_json:
        done = (
            "is done already" if run.state == "done" else f"is {run.state} at {run.target or 'this machine'}"
        )
        click.echo(f"Run {run.run_id} {'sent to ' + run.target if sent else done}: {run.output}")
        click.echo(f"Next: {following(run, False)}, or {shlex.join(['perceive', 'stop', run.run_id])}")
    return follow(run, as_json) if wait else 0
