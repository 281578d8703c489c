"""perceive stop RUN: end an attempt in order."""

import dataclasses
import json
import shlex
import time

import click

from jobs.cli.run import ending


@click.command()
@click.argument("run")
@click.option("--wait", is_flag=True, help="Return once it is at rest.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as one JSON object.")
def stop(run: str, wait: bool, as_json: bool) -> None:
    """Ask RUN to stop, as Ctrl-C does. What is committed stays, and perceive resume goes on from there.

    RUN is a run's id or its beginning, its job's name, or its output's folder or URI.
    """
    with ending(None, as_json):
        from jobs.finding import find, refreshed
        from jobs.following import stop
        from jobs.states import AT_REST
        from jobs.store import user_store

        store = user_store()
        before = find(run, store)
        found = stop(before, store, lambda text: click.echo(text, err=True))
        asked = found.state == "stopping"
        while wait and found.state not in AT_REST:
            time.sleep(0.5)
            found, _ = refreshed(found, store)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"asked": asked}))
        return
    click.echo(
        f"Run {found.run_id} is {found.state}."
        if wait or not asked
        else f"Run {found.run_id} is asked to stop."
    )
    click.echo(
        f"Next: {shlex.join(['perceive', 'resume' if found.state != 'done' else 'status', found.run_id])}"
    )
