"""perceive errors OUTPUT: what could not be processed, and why."""

import dataclasses
import json
import shlex

import click

from jobs.cli.run import ending


@click.command()
@click.argument("output")
@click.option("--class", "error", metavar="NAME", help="Only errors of this class, such as MediaError.")
@click.option("--list", "each", is_flag=True, help="Every row, not groups.")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, help="Rows or groups shown at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, with all rows or groups.")
def errors(output: str, error: str | None, each: bool, limit: int, as_json: bool) -> None:
    """Show what the table in OUTPUT misses: its quarantine, grouped by class, stage and place in the code.

    OUTPUT is an output's folder or URI, or the folder of one of its runs.
    """
    with ending(shlex.join(["perceive", "errors", output]), as_json):
        from jobs.quarantine import errors as rows_of
        from jobs.quarantine import grouped

        rows = rows_of(output, error)
        groups = [] if each else [dataclasses.asdict(group) for group in grouped(rows)]
    found = rows.to_pylist() if each else groups
    if as_json:
        click.echo(json.dumps({"rows": rows.num_rows, "errors" if each else "groups": found}))
        return
    for one in found[:limit]:
        if each:
            click.echo(
                f"{_place(one['uri'], one['member'])} ({one['stage']}, {one['error']}): {one['message']}"
            )
        else:
            click.echo(f"{one['rows']} x {one['error']} ({one['stage']}), {one['items']} items; such as")
            click.echo(f"    {_place(one['example_uri'], one['example_member'])}: {one['example_message']}")
    if len(found) > limit:
        click.echo(f"... and {len(found) - limit} more: --limit {len(found)}, or --json")
    if rows.num_rows:
        chosen = ["--class", error] if error else []
        click.echo(f"Mend what can be mended, then: {shlex.join(['perceive', 'retry', output, *chosen])}")
    else:
        click.echo("Nothing is in quarantine.")


def _place(uri: str, member: str | None) -> str:
    return uri if member is None else f"{uri} [{member}]"
