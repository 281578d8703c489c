"""perceive plan FILE: what a run would do and take, before anything is spent."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from jobs.cli import options
from jobs.cli.models import show_table
from jobs.cli.run import ending, with_flags
from jobs.durations import spoken

if TYPE_CHECKING:
    from jobs.estimate import Plan, Range

_DOES = {
    "new": "a new run",
    "resume": "resumes the run",
    "nothing": "nothing is left to do of the run",
    "changed": "does what is new or changed, as the run",
    "incremental": "does what input.select: new finds, as the run",
    "all": "takes the place of the table that is there, as the run",
}


@click.command()
@click.argument("file")
@options.overrides("compute.batch=8")
@click.option("--supersede", is_flag=True, help="As of perceive run.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="As of perceive run: only the first N items."
)
@click.option("--no-fold", is_flag=True, help="As of perceive run.")
@click.option("--no-probe", is_flag=True, help="Run nothing: time and size stay unknown.")
@click.option(
    "--price", type=click.FloatRange(0), metavar="USD_PER_GPU_HOUR", help="What an hour of a GPU costs."
)
@click.option(
    "--target", type=click.Choice(["local", "ray", "kuberay"]), default="local", show_default=True,
    help="Plan for this machine, for a Ray cluster, or for the pods of the job's section kubernetes; of those two "
    "nothing is measured.",
)  # fmt: skip
@click.option(
    "--address", metavar="URL",
    help="Of the Ray cluster's head: http://head:8265; by default RAY_API_SERVER_ADDRESS. Implies --target ray.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the plan as one JSON object.")
def plan(
    file: str,
    overrides: tuple[str, ...],
    supersede: bool,
    limit: int | None,
    no_fold: bool,
    no_probe: bool,
    price: float | None,
    target: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Say what perceive run would do with the job in FILE: its work and output, whether it fits, its time and size.

    Nothing is written to the output. Time and size are measured: some of the input runs through, for about half a
    minute, into a folder beside the output that is deleted. Exit codes: 0 done, 2 bad job, or it doesn't fit, 5 failed
    where the run would fail, 130 interrupted.
    """
    overrides = with_flags(overrides, limit, no_fold)
    again = ["perceive", "plan", file, *(x for o in overrides for x in ("-o", o))]
    with ending(shlex.join(again), as_json) as give_up:
        from cluster.kuberay import render
        from jobs import estimate
        from jobs.cli.progress import terminal_progress
        from jobs.errors import of_cluster
        from jobs.finding import target_named
        from jobs.nodes import nodes_of
        from jobs.reach import settings_of
        from jobs.spec import load_job
        from jobs.store import user_store

        job, nodes = load_job(file, overrides), None
        name = options.name_of(target, address, None, None)
        if name == "kuberay":  # the job itself says what it has there
            nodes = nodes_of(render.nodes(settings_of(job)))
        elif name != "local":
            with of_cluster():
                nodes = nodes_of(target_named(name, user_store()).nodes())
        with terminal_progress(give_up) as progress:
            found = estimate.plan(
                job, progress, supersede=supersede, probe=not no_probe, usd_per_gpu_hour=price, nodes=nodes
            )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
    else:
        _show(found, price)


def _show(found: "Plan", price: float | None) -> None:
    click.echo(f"{found.job}: {found.task} into {found.output}; {_DOES[found.does]} {found.run_id}")
    click.echo(
        f"{found.items} items, {found.windows} windows, {_size(found.input_bytes)}, in {found.shards} shards"
    )
    if found.unreadable:
        click.echo(f"{found.unreadable} of the items can't be read and would be in quarantine")
    if found.done_windows and found.does != "nothing":
        click.echo(f"{found.done_windows} of the windows are done, in {found.done_shards} of the shards")
    click.echo(f"\nColumns of the output ({found.format})")
    show_table(
        {
            "name": [column.name for column in found.columns],
            "type": [column.type for column in found.columns],
            "meaning": [column.meaning for column in found.columns],
        }
    )
    numbers = ("workers", "CPUs each", "GPUs each")
    asked = [(f"{one.workers}", f"{one.cpus:g}", f"{one.gpus:g}") for one in found.stages]
    columns = {name: list(values) for name, values in zip(numbers, zip(*asked, strict=True), strict=True)}
    show_table({"stage": [one.stage for one in found.stages], **columns}, right=numbers)
    click.echo(f"{found.fits} The model computes in {found.dtype}, {found.batch} windows a call.\n")
    if found.does == "nothing":
        return
    click.echo(_time(found))
    if found.output_bytes:
        beside = (
            f", and {_size(found.staged_bytes)} beside it until the table is there"
            if found.staged_bytes
            else ""
        )
        click.echo(f"Size: {_between(found.output_bytes, _size)} more in the output{beside}")
    if found.usd:
        click.echo(f"Price: {_between(found.usd, lambda usd: f'{usd:,.2f} USD')}")
    elif price is not None:
        click.echo("Price: not known without the time" if found.device == "cuda" else "Price: it uses no GPU")


def _time(found: "Plan") -> str:
    measured = found.measured
    if not found.seconds:
        return "Time and size: not measured"
    if not measured:
        return f"Time: {_between(found.seconds, spoken)}"
    what = "all" if measured.whole else f"{measured.windows}"
    return (
        f"Time: {_between(found.seconds, spoken)}; measured by {what} of the windows in {measured.shards} shards, "
        f"which took {spoken(measured.seconds)}"
    )


def _between(range: "Range", text: Callable[[float], str]) -> str:
    return f"about {text(range.likely)} ({text(range.low)} to {text(range.high)})"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
