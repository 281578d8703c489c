"""perceive report RUN: a run as one HTML file, to look at and to pass on."""

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from jobs.cli.run import ending
from jobs.cli.status import following

if TYPE_CHECKING:
    from jobs.report.making import Report


@click.command()
@click.argument("run")
@click.option(
    "--open", "show", is_flag=True, help="Show it in a browser; of a bucket, a copy on this machine."
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the run's summary and the report's place as one JSON object.",
)
def report(run: str, show: bool, as_json: bool) -> None:
    """Write the report of RUN, and its summary.json anew.

    RUN is a run's id or its beginning, its job's name, or its output's folder or URI. The report is
    runs/<run-id>/report.html in the output: one file of less than 5 MB that asks nobody for anything. It shows what the
    run came to, where its time went, how good its rows are, the best, the worst and some others beside what they were
    made of, and what is in quarantine; of a run that goes on, as it is now.
    """
    with ending(None, as_json) as give_up:
        from jobs.cli.progress import terminal_progress
        from jobs.finding import find, refreshed
        from jobs.report.making import make_report
        from jobs.store import user_store

        store = user_store()
        found, seen = refreshed(find(run, store), store, lambda text: click.echo(text, err=True))
        with terminal_progress(give_up) as progress:
            made = make_report(found, found.state, seen.message, progress)
        shown = _shown(made, found.output) if show else True
    if as_json:
        about = {"report": made.where, "state": made.state, "summary": dataclasses.asdict(made.summary)}
        click.echo(json.dumps(about))
        return
    click.echo(f"Report: {made.where}")
    if not shown:
        click.echo("No browser could be started here: open that file in one.", err=True)
    click.echo(f"Next: {following(found, bool(made.summary.quarantined))}")


def _shown(made: "Report", output: str) -> bool:
    """Open it in a browser; whether there is one."""
    import tempfile
    import webbrowser
    from pathlib import Path

    from pipelines.storage import open_storage

    path = Path(made.where)
    if "://" in made.where:
        path = Path(tempfile.mkdtemp(prefix="perceive-")) / "report.html"
        path.write_bytes(open_storage(output).read(made.name))
    return webbrowser.open(path.absolute().as_uri())
