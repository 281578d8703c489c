"""perceive logs RUN: what a run wrote."""

import json

import click

from jobs.cli.run import ending


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written, until the run is at rest.")
@click.option(
    "--events", is_flag=True, help="What happened to it, from events.jsonl: also once the target is gone."
)
@click.option("--json", "as_json", is_flag=True, help="Print events, as JSON Lines.")
def logs(run: str, follow: bool, events: bool, as_json: bool) -> None:
    """Print what RUN's process wrote where it was sent to; of a run that was not sent, what happened to it.

    RUN is a run's id or its beginning, its job's name, or its output's folder or URI.
    """
    with ending(None, as_json):
        from jobs.finding import find
        from jobs.following import happened, written
        from jobs.store import user_store

        store = user_store()
        found = find(run, store)
        if found.submission and not events and not as_json:
            for text in written(found, store, follow):
                click.echo(text, nl=False)
            return
        for event in happened(found, store, follow):
            click.echo(json.dumps(event) if as_json else _line(event))


def _line(event: dict[str, object]) -> str:
    head = f"{str(event['time'])[:19].replace('T', ' ')}  {event['event']}"
    rest = {name: value for name, value in event.items() if name not in ("v", "time", "run_id", "event")}
    return "  ".join([head, *(f"{name}={value}" for name, value in rest.items())])
