"""perceive submit FILE: hand a job to a target, which runs it."""

import dataclasses
import json
import shlex
import sys
from typing import TYPE_CHECKING

import click

from jobs.cli.attach import follow
from jobs.cli.run import FIRE, ending
from jobs.cli.status import following

if TYPE_CHECKING:
    from jobs.store import Run

TARGET = [
    click.option(
        "--target", type=click.Choice(["local", "ray"]), default="local", show_default=True,
        help="local: a process of this machine that outlives this one; ray: a Ray cluster, by its job API.",
    ),
    click.option(
        "--address", metavar="URL",
        help="Of the cluster's head: http://head:8265; by default RAY_API_SERVER_ADDRESS. Implies --target ray.",
    ),
]  # fmt: skip


def name_of(target: str, address: str | None) -> str:
    """The target that the options name."""
    return f"ray {address or ''}".strip() if address or target == "ray" else target


@click.command()
@click.argument("file")
@click.option(
    "-o", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field: -o compute.batch=8"
)
@click.option(
    "--supersede", is_flag=True, help="Where the output holds another job's run, as in perceive run."
)
@TARGET[0]
@TARGET[1]
@click.option(
    "--env", "variables", multiple=True, metavar="NAME",
    help="A variable of this environment that goes along, such as AWS_ENDPOINT_URL. No secrets: the target shows them.",
)  # fmt: skip
@click.option(
    "--installed",
    is_flag=True,
    help="Use the perceiver-batch that the target has; else this code goes along.",
)
@FIRE
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
    variables: tuple[str, ...],
    installed: bool,
    fire: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Hand the job in FILE to a target, and return: the run goes on by itself.

    Submitting a job again while its run is going on, or once it is done, changes nothing; after it failed or was
    stopped, it resumes. Exit codes: 0 submitted, 2 bad job, 5 the target can't be reached; with --wait the run's.
    """
    with ending(None, as_json) as give_up:
        from jobs.cli.progress import terminal_progress
        from jobs.spec import load_job
        from jobs.store import user_store
        from jobs.submission import submit

        job = load_job(file, overrides)
        with terminal_progress(give_up) as progress:
            run, sent = submit(
                job,
                name_of(target, address),
                user_store(),
                progress,
                supersede=supersede,
                variables=variables,
                send_code=not installed,
                fire=fire,
            )
    sys.exit(handed_over(run, sent, wait, as_json))


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
