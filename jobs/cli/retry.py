"""perceive retry OUTPUT: process again what could not be processed."""

import dataclasses
import json
import shlex
import sys

import click

from jobs.cli import options
from jobs.cli.run import ending


@click.command()
@click.argument("output")
@click.option("--class", "error", metavar="NAME", help="Only errors of this class, such as DecodeTimeout.")
@options.overrides("limits.seconds=3600")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def retry(output: str, error: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Process what is in quarantine in OUTPUT again, by the job that made its table; the rest stays as it is.

    What succeeds is in the next manifest's table. OUTPUT is an output's folder or URI, or the folder of one of its
    runs. Exit codes are those of perceive run.
    """
    again = ["perceive", "retry", output, *(["--class", error] if error else [])]
    with ending(shlex.join([*again, *(x for o in overrides for x in ("-o", o))]), as_json) as give_up:
        from jobs.cli.progress import terminal_progress
        from jobs.quarantine import retry_errors

        with terminal_progress(give_up) as progress:
            result = retry_errors(output, error, overrides, progress)
    if result is None:
        said = "Nothing to retry: quarantine is empty, or its files are gone or changed (perceive run --supersede)."
        click.echo(json.dumps({"retried": False, "message": said, "exit_code": 0}) if as_json else said)
        return
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result) | {"retried": True, "exit_code": result.exit_code}))
    else:
        click.echo(
            f"{result.windows_now} windows tried again. {result.items} items, {result.rows} rows in {result.output}, "
            f"{result.quarantined} still in quarantine. Run {result.run_id}, attempt {result.attempt}."
        )
        click.echo(
            f"Next: {shlex.join(['perceive', 'errors' if result.quarantined else 'gc', result.output])}"
        )
    sys.exit(result.exit_code)
