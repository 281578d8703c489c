"""perceive tasks [NAME]: what there is to do, and a task's options and columns."""

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from jobs.cli.models import show_table
from jobs.cli.run import stop
from jobs.exit_codes import BAD_SPEC

if TYPE_CHECKING:
    import pyarrow as pa

    from perceiver_core.config import PerceiverConfig
    from pipelines.tasks import Task


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def tasks(name: str | None, as_json: bool) -> None:
    """List the tasks, or describe the one called NAME: its options, what it looks for in an input, and its columns.

    Columns are those that there are with the options as they are by default, on published checkpoints, and those that
    an option adds. Exit codes: 0 done, 2 there is no such task.
    """
    from pipelines.tasks import TASKS, task_named

    if name is None:
        rows = [_in_short(task) for task in TASKS]
        if as_json:
            click.echo(json.dumps(rows))
        else:
            _show_list(rows)
        return
    try:
        described = _in_full(task_named(name))
    except ValueError as error:
        stop(BAD_SPEC, str(error), as_json)
    if as_json:
        click.echo(json.dumps(described))
    else:
        _show(described)


def _in_short(task: "type[Task]") -> dict[str, Any]:
    assert task.__doc__
    return {
        "name": task.name,
        "does": " ".join(task.__doc__.split("\n\n")[0].split()),
        "architectures": list(task.architectures),
        "contents": [[content.name for content in given] for given in task.contents],
    }


def _in_full(task: "type[Task]") -> dict[str, Any]:
    from pipelines.describing import meaning, plain_default, type_in_words

    return _in_short(task) | {
        "contents": [
            [{"name": one.name, "kind": one.kind, "files": list(one.suffixes)} for one in given]
            for given in task.contents
        ],
        "options": [
            {
                "name": field.name,
                "type": type_in_words(field.type),
                "default": plain_default(field),
                "help": meaning(field),
            }
            for field in dataclasses.fields(task)
        ],
        "format": task().format,
        "outputs": _outputs(task),
    }


def _outputs(task: "type[Task]") -> list[dict[str, Any]]:
    """The columns of the output for each kind of checkpoint that has others, with one that was published if any was."""
    from pipelines.stages import ITEM

    outputs: list[dict[str, Any]] = []
    for architecture in task.architectures:
        if architecture in getattr(task, "refused", ()):
            continue
        name, config = _example(architecture)
        columns = [_described(field) for field in (*ITEM, *task().output_schema(config))]
        named = [(column["name"], column["help"]) for column in columns]
        same = [one for one in outputs if [(c["name"], c["help"]) for c in one["columns"]] == named]
        if same:
            same[0]["architectures"].append(architecture)
        else:
            more = _columns_of_options(task, config)
            outputs.append(
                {"architectures": [architecture], "checkpoint": name, "columns": columns, "more": more}
            )
    return outputs


def _columns_of_options(task: "type[Task]", config: "PerceiverConfig") -> list[dict[str, Any]]:
    """The columns that one option or another adds, each with the `options` that do."""
    plain = task()
    there = {*plain.output_schema(config).names}
    more: dict[str, dict[str, Any]] = {}
    for option in dataclasses.fields(task):
        for choice in _choices(option.type):
            said = f"{option.name}: {json.dumps(choice) if isinstance(choice, bool) else choice}"
            for field in dataclasses.replace(plain, **{option.name: choice}).output_schema(config):
                if field.name not in there:
                    more.setdefault(field.name, _described(field) | {"options": []})["options"].append(said)
    return list(more.values())


def _choices(kind: Any) -> tuple[Any, ...]:
    """The values that an option of this type can have, where they are few."""
    return (False, True) if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()


def _described(field: "pa.Field") -> dict[str, Any]:
    from pipelines.describing import meaning
    from pipelines.tensors import type_name

    return {"name": field.name, "type": type_name(field.type), "help": meaning(field)}


def _example(architecture: str) -> tuple[str | None, "PerceiverConfig"]:
    """A published checkpoint of an architecture, if there is one, and a config of it."""
    from perceiver_core.config import PUBLISHED, PerceiverConfig

    for name, published in PUBLISHED.items():
        if published.architecture == architecture:
            return name, published.config
    return None, PerceiverConfig(architectures=(architecture,))


def _column_type(kind: "pa.DataType") -> str:
    from pipelines.tensors import is_tensor

    name = f"{kind.value_type} {list(kind.shape)}" if is_tensor(kind) else str(kind).replace("item: ", "")
    return re.sub(r"\bfloat\b", "float32", re.sub(r"\bdouble\b", "float64", name))


def _show_list(rows: list[dict[str, Any]]) -> None:
    show_table(
        {
            "task": [row["name"] for row in rows],
            "what it does": [row["does"] for row in rows],
            "given": [_given(row["contents"]) for row in rows],
            "checkpoints of": [", ".join(row["architectures"]) for row in rows],
        }
    )


def _show(described: dict[str, Any]) -> None:
    click.echo(f"{described['name']}: {described['does']}")
    click.echo(f"\nCheckpoints of: {', '.join(described['architectures'])}")
    given = [
        " and ".join(
            f"{one['name']}, {_article(one['kind'])} ({', '.join(one['files'])} where files are listed)"
            for one in contents
        )
        for contents in described["contents"]
    ]
    click.echo(f"Given, as a file, a table's column or a tar's member: {'; or '.join(given)}")
    click.echo("\nOptions (options.NAME in a job, or -o options.NAME=...)")
    options = described["options"]
    show_table(
        {
            "name": [one["name"] for one in options],
            "default": [json.dumps(one["default"]) for one in options],
            "type": [one["type"] for one in options],
            "meaning": [one["help"] for one in options],
        }
    )
    for output in described["outputs"]:
        of = output["checkpoint"] or "a checkpoint of the default size"
        if len(described["outputs"]) > 1:
            of += f", and so for {', '.join(output['architectures'])}"
        click.echo(f"Columns of the output ({described['format']}; shapes as of {of})")
        columns = output["columns"]
        show_table(
            {
                "name": [one["name"] for one in columns],
                "type": [one["type"] for one in columns],
                "meaning": [one["help"] for one in columns],
            }
        )
        if output["more"]:
            click.echo("Columns that options add")
            show_table(
                {
                    "name": [one["name"] for one in output["more"]],
                    "type": [one["type"] for one in output["more"]],
                    "with": [", ".join(one["options"]) for one in output["more"]],
                    "meaning": [one["help"] for one in output["more"]],
                }
            )


def _given(contents: list[list[str]]) -> str:
    return " | ".join(" and ".join(names) for names in contents)


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
