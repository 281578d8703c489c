"""perceive gc OUTPUT: delete what no table and no run needs any more."""

import json
import shlex

import click

from jobs.cli.run import ending


@click.command()
@click.argument("output")
@click.option(
    "--grace", metavar="DURATION", default="24h", show_default=True,
    help="What is younger stays: 30m, 24h, 7d. Readers of the table before, and writers that were cut off, need it.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def gc(output: str, grace: str, dry_run: bool, as_json: bool) -> None:
    """Delete superseded parts, orphans of killed attempts and drafts in OUTPUT, once they are older than the grace.

    Nothing else ever deletes them. OUTPUT is an output's folder or URI.
    """
    with ending(shlex.join(["perceive", "gc", output, "--grace", grace]), as_json) as give_up:
        from jobs.cli.progress import terminal_progress
        from jobs.durations import duration
        from jobs.garbage import collect
        from jobs.spec import SpecError

        try:
            seconds = duration(grace).total_seconds()
        except ValueError as error:
            raise SpecError(f"--grace: {error}") from error
        with terminal_progress(give_up) as progress:
            found = collect(output, seconds, dry_run, progress)
    if as_json:
        click.echo(json.dumps({"files": list(found.files), "bytes": found.bytes, "kept": found.kept}))
        return
    for name in found.files[:20]:
        click.echo(name)
    if len(found.files) > 20:
        click.echo(f"... and {len(found.files) - 20} more")
    done = "would be deleted" if dry_run else "deleted"
    click.echo(
        f"{len(found.files)} files of {found.bytes:,} bytes {done}; {found.kept} are younger than {grace}."
    )
