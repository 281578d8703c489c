"""perceive init TASK [FILE]: a job file to begin with."""

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.run import stop
from jobs.exit_codes import BAD_SPEC

if TYPE_CHECKING:
    from pipelines.tasks import Task


@click.command()
@click.argument("task")
@click.argument("file", default="job.yaml")
@click.option(
    "--checkpoint",
    metavar="PLACE",
    help="Its model.checkpoint; by default demo, or the published one of the task.",
)
@click.option("--input", "inputs", metavar="PATH", help="Its input.uri: a file, a folder, a glob or a URI.")
@click.option("--output", metavar="PATH", help="Its output.uri; by default TASK-output beside the file.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as one JSON object.")
def init(
    task: str, file: str, checkpoint: str | None, inputs: str | None, output: str | None, as_json: bool
) -> None:
    """Write a job for TASK to FILE (job.yaml), with all there is to choose as comments; - is the standard output.

    A file that exists is not overwritten. Paths are relative to where you stand, and in the file to the file. What
    runs on the demo's weights reads the demo's clips, where they are there. Exit codes: 0 done, 2 it can't be written.
    """
    from jobs.spec import SpecError
    from pipelines.tasks import task_named

    try:
        kind = task_named(task)
        text, document = _job(kind, file, checkpoint, inputs, output)
    except (SpecError, ValueError) as error:
        stop(BAD_SPEC, str(error), as_json)
    if file != "-":
        try:
            with open(file, "x", encoding="utf-8") as job:
                job.write(text)
        except FileExistsError:
            stop(
                BAD_SPEC,
                f"{file} exists already, and init overwrites nothing. Name another file, or - to print the job.",
                as_json,
            )
        except OSError as error:
            stop(
                BAD_SPEC,
                f"{file} can't be written: {error.strerror}. Name a file in a folder that is there.",
                as_json,
            )
    told = {
        "file": file,
        "task": task,
        "checkpoint": document["model"]["checkpoint"],
        "input": document["input"]["uri"],
    }
    if as_json:
        click.echo(json.dumps(told | {"output": document["output"]["uri"], "text": text}))
    elif file == "-":
        click.echo(text, nl=False)
    else:
        click.echo(f"Wrote {file}: {task} of {told['input']} by {told['checkpoint']}.")
        click.echo(f"Next: {shlex.join(['perceive', 'run', file])}")


def _job(
    kind: "type[Task]", file: str, checkpoint: str | None, inputs: str | None, output: str | None
) -> tuple[str, dict[str, Any]]:
    """The file's text, and what it says."""
    import yaml

    from jobs.spec import parse_job
    from jobs.template import checkpoint_for, input_for, job_text
    from perceiver_core.sources import is_hub_id

    folder = Path.cwd() if file == "-" else Path(file).resolve().parent
    if checkpoint is None:
        checkpoint = checkpoint_for(kind)
    elif checkpoint != "demo" and (os.path.isdir(checkpoint) or not is_hub_id(checkpoint)):
        checkpoint = _from(folder, checkpoint)
    given = input_for(kind, checkpoint, _media(folder) if checkpoint == "demo" else None)
    if inputs is not None:
        given = {"uri": _from(folder, inputs)}
    out = f"{kind.name}-output" if output is None else _from(folder, output)
    text = job_text(kind, checkpoint, given, out, "job.yaml" if file == "-" else file)
    document: dict[str, Any] = yaml.safe_load(text)
    parse_job(document)  # what was given may be refused, such as keys
    return text, document


def _from(folder: Path, path: str) -> str:
    """A path as a file in that folder says it."""
    if "://" in path or os.path.isabs(path) or path.startswith("~"):
        return path
    return os.path.relpath(os.path.abspath(path), folder)


def _media(folder: Path) -> str | None:
    """The demo's clips, in a checkout; not in what pip installs."""
    media = Path(__file__).parents[2] / "examples" / "media"
    return os.path.relpath(media, folder) if media.is_dir() else None
