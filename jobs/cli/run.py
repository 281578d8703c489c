"""perceive run FILE: execute a job here and now."""

import dataclasses
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from jobs.cli import options
from jobs.exit_codes import FAILED, INTERRUPTED

if TYPE_CHECKING:
    from jobs.attempt import RunResult
    from jobs.spec import Job

_NEWS = {
    "added": "files added", "changed": "changed", "stale": "made by another recipe", "retried": "items tried again",
}  # fmt: skip


@click.command()
@click.argument("file")
@options.overrides("compute.batch=8")
@click.option(
    "--supersede",
    is_flag=True,
    help="Where the output holds another job's run: go on from its table if only the input differs, else replace it.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N items: -o input.limit=N")
@click.option("--no-fold", is_flag=True, help="Compute with the plain model, to compare: -o model.fold=false")
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Use the Ray cluster that this machine is a node of (auto, or host:port); by default Ray is started here.",
)
@options.FIRE
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def run(
    file: str,
    overrides: tuple[str, ...],
    supersede: bool,
    limit: int | None,
    no_fold: bool,
    ray_address: str | None,
    fire: str,
    as_json: bool,
) -> None:
    """Run the job in FILE on this machine, resuming it where it stopped before.

    Exit codes: 0 done, 2 bad job, 3 done with quarantined items, 4 more failed than allowed, 5 failed,
    130 interrupted (run it again to resume).
    """
    overrides = with_flags(overrides, limit, no_fold)
    again = [
        *("perceive", "run", file, *(x for o in overrides for x in ("-o", o))),
        *(["--supersede"] if supersede else []),
        *(["--ray-address", ray_address] if ray_address else []),
        *(["--fire", fire] if fire else []),
    ]
    with ending(shlex.join(again), as_json) as give_up:
        from jobs.attempt import run_job
        from jobs.cli.progress import terminal_progress
        from jobs.spec import load_job
        from jobs.store import user_store

        job = load_job(file, overrides)
        with terminal_progress(give_up) as progress:
            result = run_job(job, progress, supersede, user_store(), ray_address, fire)
    result_shown(result, job, as_json)
    sys.exit(result.exit_code)


def result_shown(result: "RunResult", job: "Job", as_json: bool) -> None:
    """How an attempt ended, as JSON or for people."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result) | {"exit_code": result.exit_code}))
    else:
        show(result, ["uri", *job.options.preview])


def with_flags(overrides: tuple[str, ...], limit: int | None, no_fold: bool) -> tuple[str, ...]:
    """The overrides that these flags stand for, after those that are given."""
    flags = [f"input.limit={limit}"] if limit else []
    return (*overrides, *flags, *(["model.fold=false"] if no_fold else []))


@contextmanager
def ending(resume: str | None, as_json: bool) -> Iterator[Callable[[str], None]]:
    """How a command ends when it doesn't end well: its exit code, why, and, of an attempt, how to resume it.

    Yields what ends the process from any thread, where nothing that it waits for will ever return.
    """
    from jobs.errors import PerceiverError, exit_code
    from pipelines.secrets import redacted

    go_on = f"To resume: {resume}" if resume else ""

    def give_up(why: str) -> None:
        try:
            stop(FAILED, f"{redacted(why)}\n{go_on}", as_json)
        finally:
            sys.stdout.flush()
            os._exit(FAILED)

    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's stop is as orderly as Ctrl-C
    try:
        yield give_up
    except KeyboardInterrupt:
        stop(INTERRUPTED, f"Interrupted. {go_on}".strip(), as_json)
    except Exception as error:
        code = exit_code(error)
        # Our own say it all; of others, the class is half of what there is to know.
        said = [str(error) if isinstance(error, PerceiverError) else f"{type(error).__name__}: {error}"]
        if code == FAILED:
            said += [" ".join(getattr(error, "__notes__", [])), go_on]
        stop(code, redacted("\n".join(said).rstrip()), as_json)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN
    )  # once is enough: a second one would cut the orderly end short
    raise KeyboardInterrupt


def stop(code: int, message: str, as_json: bool) -> NoReturn:
    """End the command with an exit code and its reason, on stderr or as JSON."""
    if as_json:
        click.echo(json.dumps({"error": message, "exit_code": code}))
    else:
        click.echo(message, err=True)
    sys.exit(code)


def show(result: "RunResult", columns: list[str], rows: int = 12) -> None:
    """The run's first rows as a table, its account, and what to look at next."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pipelines import reader

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=True, max_width=12)
    # Nothing is read ahead: threads that still do, in Python as of a bucket, abort a process that ends meanwhile.
    first = reader.dataset(result.output).head(
        rows, columns=columns, batch_readahead=0, fragment_readahead=0, use_threads=False
    )
    for row in first.to_pylist():
        table.add_row(*(_cell(row[name]) for name in columns))
    Console().print(table)
    if result.rows > rows:
        click.echo(f"... and {result.rows - rows} more rows")
    for row in reader.quarantine(result.output).slice(0, rows).to_pylist():
        click.echo(f"quarantined: {row['uri']} ({row['stage']}): {row['message']}")
    if result.videos:
        without = result.items_without_video
        why = f"; {without} of the items have none, as windows of theirs are quarantined" if without else ""
        click.echo(f"{result.items - without} videos in {result.videos}{why}")
    if result.files:
        click.echo(f"Beside the table: {result.files}")
    if result.contact_sheet:
        click.echo(f"Pictures of it: {result.contact_sheet}")
    if result.news is not None:
        _show_news(result.news)
    again = "" if result.windows_now else " (no windows were left to do)"
    click.echo(
        f"{result.items} items, {result.rows} rows in {result.output}/data, {result.quarantined} quarantined, "
        f"{result.seconds:.1f} s{again}. Run {result.run_id}, attempt {result.attempt}."
    )
    errors = f", or {shlex.join(['perceive', 'errors', result.output])}" if result.quarantined else ""
    click.echo(f"Next: {shlex.join(['perceive', 'report', result.output])} --open{errors}")


def _show_news(news: dict[str, Any]) -> None:
    said = [f"{news[what]} {word}" for what, word in _NEWS.items() if news[what]]
    click.echo(f"New since the table before: {', '.join(said) or 'nothing'}.")
    if news["deleted"]:
        names = ", ".join(news["deleted_uris"][:3]) + (", ..." if news["deleted"] > 3 else "")
        rows = "their rows stay" if news["deleted_kept"] else "their rows are gone, too"
        click.echo(f"Deleted from the input: {news['deleted']} files ({names}); {rows}.")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return _cell(value[0]) if value else ""  # of labels, the most likely
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value)
    return text.rsplit("/", 1)[-1]
