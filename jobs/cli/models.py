"""perceive models [CHECKPOINT]: the published configurations, or what a checkpoint holds."""

import json
import sys
from collections.abc import Collection
from typing import Any, Literal

import click

from jobs.cli.run import stop
from jobs.exit_codes import BAD_SPEC


@click.command()
@click.argument("checkpoint", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def models(checkpoint: str | None, as_json: bool) -> None:
    """List the published configurations and the demo, or describe CHECKPOINT without reading its tensors.

    CHECKPOINT is a folder, the URL of one, a hub id (owner/name or owner/name@revision) or demo; what is not here is
    fetched. Exit codes: 0 done, 2 the checkpoint can't be used.
    """
    from perceiver_core.sources import CheckpointError

    if checkpoint is None:
        _show_list(_known(), as_json)
        return
    try:
        described = _described(checkpoint, quiet=as_json)
    except CheckpointError as error:
        stop(BAD_SPEC, str(error), as_json)
    if as_json:
        click.echo(json.dumps(described))
    else:
        _show(described)


def _known() -> list[dict[str, Any]]:
    from perceiver_core.checkpoint import inspect
    from perceiver_core.config import PUBLISHED

    demo = inspect("demo")
    rows = [(name, one.architecture, one.parameters, one.purpose) for name, one in PUBLISHED.items()]
    rows.append(("demo", demo.architecture, demo.parameters or 0, "eight made-up classes; comes along"))
    return [
        {
            "name": name,
            "architecture": architecture,
            "parameters": parameters,
            "tasks": _tasks(architecture),
            "purpose": purpose,
        }
        for name, architecture, parameters, purpose in rows
    ]


def _tasks(architecture: str) -> list[str]:
    """The tasks of this package that run on it."""
    from pipelines.tasks import TASKS

    return [task.name for task in TASKS if architecture in task.architectures]


def _described(checkpoint: str, quiet: bool) -> dict[str, Any]:
    from jobs.cli.progress import terminal_progress
    from perceiver_core.checkpoint import inspect

    if quiet:
        found = inspect(checkpoint)
    else:
        with terminal_progress() as progress:
            found = inspect(checkpoint, progress=progress)
    return {
        "checkpoint": checkpoint,
        "folder": str(found.path),
        "architecture": found.architecture,
        "tasks": _tasks(found.architecture),
        "digest": found.digest,
        "dtypes": found.dtypes,
        "tensors": found.tensors,
        "parameters": found.parameters,
        "bytes": found.bytes,
        "config": {name: getattr(found.config, name) for name in _ESSENTIAL},
    }


_ESSENTIAL = (
    "num_latents",
    "d_latents",
    "d_model",
    "num_blocks",
    "num_self_attends_per_block",
    "num_self_attention_heads",
    "num_cross_attention_heads",
    "num_labels",
    "reference",
)


def _show_list(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows))
        return
    show_table(
        {
            "name": [row["name"] for row in rows],
            "architecture": [row["architecture"] for row in rows],
            "parameters": [f"{row['parameters']:,}" for row in rows],
            "purpose": [row["purpose"] for row in rows],
            "task": [", ".join(row["tasks"]) for row in rows],
        },
        right=("parameters",),
    )


def show_table(columns: dict[str, list[str]], right: Collection[str] = ()) -> None:
    """Print columns of text under their names, the first and those in `right` never folded."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(columns):
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(name, justify=justify, no_wrap=number == 0 or name in right, overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    _print(table)


def _show(described: dict[str, Any]) -> None:
    from rich.table import Table

    config = described["config"]
    unknown = "not known without reading the tensors (.bin)"
    numbers = {
        name: unknown if described[name] is None else f"{described[name]:,}"
        for name in ("tensors", "parameters", "bytes")
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in {
        "checkpoint": described["checkpoint"],
        "folder": described["folder"],
        "architecture": described["architecture"],
        "task": ", ".join(described["tasks"]) or "none yet",
        "digest": described["digest"],
        "dtype": unknown if described["dtypes"] is None else ", ".join(described["dtypes"]),
        **numbers,
        "latents": f"{config['num_latents']} of {config['d_latents']} channels",
        "input": f"tokens of {config['d_model']} channels",
        "layers": f"{config['num_blocks']} x {config['num_self_attends_per_block']} self-attentions",
        "heads": f"{config['num_self_attention_heads']} self, {config['num_cross_attention_heads']} cross",
        "labels": str(config["num_labels"]),
        "reference": config["reference"],
    }.items():
        table.add_row(name, value)
    _print(table)


def _print(table: Any) -> None:
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 240  # a pipe has no width to fold to
    Console(width=wide, highlight=False, markup=False).print(table)
