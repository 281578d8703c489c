"""perceive list: which runs there are."""

import dataclasses
import json

import click

from jobs.cli.run import ending


@click.command(name="list")
@click.option(
    "--from", "outputs", multiple=True, metavar="OUTPUT", help="Bring the runs of an output here first."
)
@click.option("--state", "states", multiple=True, help="Only runs in this state; may be given several times.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Runs shown at most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_runs(outputs: tuple[str, ...], states: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the runs that were started or submitted from here, those first that were last heard of.

    What becomes of those that are not at rest is looked up in their outputs. Runs that others started are found in
    theirs: --from s3://bucket/out.
    """
    with ending(None, as_json):
        from jobs.errors import PerceiverError
        from jobs.finding import adopt, refreshed
        from jobs.spec import SpecError
        from jobs.states import AT_REST, STATES
        from jobs.store import user_store

        for state in states:
            if state not in STATES:
                raise SpecError(f"--state {state}: there is no such state. There are: {', '.join(STATES)}.")
        store = user_store()
        for output in outputs:
            adopt(output, store)
        for run in store.list([state for state in STATES if state not in AT_REST]):
            try:
                refreshed(run, store, _told)
            except PerceiverError as error:  # one output that can't be read hides no other run
                _told(f"{run.run_id}: {error}")
        runs = store.list([state for state in STATES if state in states], limit)
    if as_json:
        click.echo(json.dumps({"runs": [dataclasses.asdict(run) for run in runs]}))
        return
    if not runs:
        click.echo("No runs. Next: perceive init, or perceive list --from OUTPUT.")
        return
    for run in runs:
        when = run.updated[:16].replace("T", " ")
        click.echo(
            f"{run.run_id}  {run.state:<9}  {when}  {run.name:<20} {run.output}  {run.target}".rstrip()
        )
    click.echo(f"Next: perceive status {runs[0].run_id}")


def _told(text: str) -> None:
    click.echo(text, err=True)
