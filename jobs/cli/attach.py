"""perceive attach RUN: follow a run to its end."""

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING

import click

from jobs.cli.run import ending
from jobs.cli.status import following

if TYPE_CHECKING:
    from jobs.store import Run

_EVERY_S = 1.0


@click.command()
@click.argument("run")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the run, once it is at rest, as one JSON object."
)
def attach(run: str, as_json: bool) -> None:
    """Follow RUN to its end, with its progress, and exit with its code. Ctrl-C leaves it running.

    RUN is a run's id or its beginning, its job's name, or its output's folder or URI.
    """
    with ending(None, as_json):
        from jobs.finding import find
        from jobs.store import user_store

        found = find(run, user_store())
    sys.exit(follow(found, as_json))


def follow(run: "Run", as_json: bool) -> int:
    """Show a run's progress until it is at rest; its exit code, or 0 where somebody stopped looking."""
    from jobs.cli.progress import terminal_progress
    from jobs.finding import refreshed, watched
    from jobs.states import AT_REST
    from jobs.store import user_store

    store, state, total = user_store(), None, None
    watch = watched(run)
    with ending(None, as_json), terminal_progress() as progress:
        try:
            while True:
                run, seen = refreshed(run, store, progress.say, watch)
                if (run.state, run.message) != state and run.state not in AT_REST:
                    progress.say(f"Run {run.run_id} is {run.state}. {run.message}".rstrip())
                state = (run.state, run.message)
                if seen.pace and run.state == "running":
                    if total != (seen.pace.total, run.attempt):
                        total = (seen.pace.total, run.attempt)
                        progress.stage("windows", seen.pace.total, done=seen.pace.windows)
                    progress.at(seen.pace.windows)
                if run.state in AT_REST:
                    break
                time.sleep(_EVERY_S)
        except KeyboardInterrupt:
            click.echo(f"Run {run.run_id} goes on without you. Next: {following(run, False)}", err=True)
            return 0
    code = run.exit_code or 0
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(run)))
        return code
    click.echo(
        f"Run {run.run_id} is {run.state}: {seen.attempt.rows:,} rows of {seen.attempt.items:,} items in {run.output}, "
        f"{seen.attempt.quarantined:,} quarantined."
    )
    if run.message:
        click.echo(run.message, err=True)
    click.echo(f"Next: {following(run, bool(seen.attempt.quarantined))}")
    return code
