"""python -m jobs.cli.reference: writes REFERENCE.md, which says all that the commands themselves say."""

from collections.abc import Iterator
from pathlib import Path

import click

from jobs.cli import main
from jobs.exit_codes import BAD_SPEC, BUDGET_EXCEEDED, DIFFERS, FAILED, INTERRUPTED

FILE = Path(__file__).parent / "REFERENCE.md"
_CODES = {
    0: "done",
    BAD_SPEC: "the job, or what was asked for, can't be done as it is, or another run works on the output",
    3: "done, with quarantined items",
    BUDGET_EXCEEDED: "more items failed than the job allows",
    FAILED: "failed; run it again to resume",
    DIFFERS: "of perceive compare: the two outputs differ by more than is allowed",
    INTERRUPTED: "interrupted; run it again to resume",
}


def reference() -> str:
    """The reference, of every command that there is."""
    lines = [
        "# The command",
        "",
        "Written by `python -m jobs.cli.reference` of what the commands say of themselves; `perceive COMMAND --help` "
        "says the same.",
        "",
        "| command | |",
        "|---|---|",
        *(
            f"| [`{name}`](#{name.replace(' ', '-')}) | {_short(command)} |"
            for name, command in _commands(main, "perceive")
        ),
    ]
    for name, command in _commands(main, "perceive"):
        lines += _described(name, command)
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in _CODES.items()]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    """The commands of a group and of its groups, by their names in full."""
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        yield f"{above} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{above} {name}")


def _described(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    yield from (
        "",
        f"## {name}",
        "",
        "```text",
        f"{name} {' '.join(command.collect_usage_pieces(context))}",
        "```",
        "",
    )
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    if options:
        yield from ("", "| option | default | meaning |", "|---|---|---|")
    for option in options:
        value = "" if option.is_flag else f" {option.make_metavar(context)}"
        names = ", ".join((*option.opts, *option.secondary_opts))
        yield f"| `{names}{value}`{_several(option)} | {_default(option)} | {_cell(option.help or '')} |"


def _several(option: click.Option) -> str:
    return ", any number of times" if option.multiple else ""


def _default(option: click.Option) -> str:
    return f"`{option.default}`" if option.show_default and option.default is not None else ""


def _short(command: click.Command) -> str:
    return _cell(command.get_short_help_str(200))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(reference(), "utf-8")
    click.echo(f"Wrote {FILE}")
