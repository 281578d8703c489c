"""perceive status RUN: how far it is, how fast, what failed, and what limits it."""

import dataclasses
import json
import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.run import ending
from jobs.durations import spoken

if TYPE_CHECKING:
    from jobs.observing import Status
    from jobs.store import Run

_EVERY_S = 2.0


@click.command()
@click.argument("run")
@click.option("-w", "--watch", is_flag=True, help="Show it anew every two seconds, until it is at rest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one a line.")
def status(run: str, watch: bool, as_json: bool) -> None:
    """Show what became of RUN: a run's id or its beginning, its job's name, or its output's folder or URI.

    It is read from the output, so it works from anywhere, also after whoever started the run is gone.
    """
    with ending(None, as_json):
        for found, seen, errors in _looks(run, watch):
            if as_json:
                click.echo(json.dumps(_plain(found, seen, errors)))
            else:
                click.echo("\n".join([*([""] if watch else []), *lines(found, seen, errors)]))


def _looks(name: str, watch: bool) -> "Iterator[tuple[Run, Status, dict[str, int]]]":
    from jobs.finding import find, refreshed, watched
    from jobs.states import AT_REST
    from jobs.store import user_store

    store = user_store()
    run = find(name, store)
    looks = watched(run)
    errors: dict[str, int] = {}
    known = None  # of how much they were read: all of the quarantine table is
    while True:
        run, seen = refreshed(run, store, lambda text: click.echo(text, err=True), looks)
        so_far = seen.attempt.number, seen.attempt.quarantined, seen.attempt.ended
        if so_far != known:
            errors, known = _errors(run, seen), so_far
        yield run, seen, errors
        if not watch or run.state in AT_REST:
            return
        time.sleep(_EVERY_S)


def _errors(run: "Run", seen: "Status") -> dict[str, int]:
    """How many rows of its quarantine are of each class, the most first."""
    if not seen.attempt.quarantined:
        return {}
    from collections import Counter

    from jobs.quarantine import errors

    return dict(Counter(errors(run.output)["error"].to_pylist()).most_common())


def _plain(run: "Run", seen: "Status", errors: dict[str, int]) -> dict[str, Any]:
    attempt = dataclasses.asdict(seen.attempt)
    return {
        **dataclasses.asdict(run),
        **{name: attempt[name] for name in ("rows", "items", "quarantined", "shards", "shards_done")},
        "errors": errors,
        "pace": seen.pace and dataclasses.asdict(seen.pace),
    }


def lines(run: "Run", seen: "Status", errors: dict[str, int]) -> Iterator[str]:
    """A run's status, for people."""
    attempt = f", attempt {run.attempt}" if run.attempt else ""
    yield f"{run.run_id}  {run.name} ({run.task})  {run.state}{attempt}"
    yield f"  output    {run.output}"
    if run.target:
        yield f"  target    {run.target}"
    pace = seen.pace
    if pace:
        share = f" ({pace.windows / pace.total:.0%})" if pace.total else ""
        going = run.state in ("running", "stopping")
        rate = f", {pace.rate:.1f}/s" if pace.rate and going else ""
        left = f", {spoken(pace.seconds_left)} left" if pace.seconds_left is not None and going else ""
        yield f"  windows   {pace.windows:,} of {pace.total:,}{share}{rate}{left}"
    if seen.attempt.number:
        yield (
            f"  shards    {seen.attempt.shards_done:,} of {seen.attempt.shards:,}; {seen.attempt.rows:,} rows of "
            f"{seen.attempt.items:,} items, {seen.attempt.quarantined:,} quarantined"
        )
    if pace and run.state == "running":
        for stage in pace.stages:
            busy = "" if stage.busy is None else f", busy {stage.busy:.0%}"
            workers = f"{stage.workers} worker{'s' * (stage.workers > 1)}"
            yield f"  {stage.stage:<9} {workers}{busy}, {stage.queue:,} windows wait"
        yield f"  {pace.limit}"
    if errors:
        yield f"  errors    {', '.join(f'{count:,} x {name}' for name, count in errors.items())}"
    if run.message:
        yield f"  {run.message}"
    yield f"Next: {following(run, bool(errors))}"


def following(run: "Run", quarantined: bool) -> str:
    """The next useful command."""
    match run.state:
        case "submitted" | "running" | "stopping":
            words = ["perceive", "attach", run.run_id]
        case "done":
            words = ["perceive", "errors" if quarantined else "gc", run.output]
        case _:
            words = ["perceive", "resume", run.run_id]
    return shlex.join(words)
