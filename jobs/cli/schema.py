"""perceive schema: the job file's JSON Schema."""

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it on one line.")
def schema(as_json: bool) -> None:
    """Print the JSON Schema of job files, with each task's options, for editors and for programs that write jobs.

    The same file comes along with the package; the first line of what `perceive init` writes leads editors to it.
    """
    from jobs.schema import job_schema

    click.echo(json.dumps(job_schema(), indent=None if as_json else 2))
