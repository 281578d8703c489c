"""The reference is what the commands say of themselves."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from jobs.cli import main
from jobs.cli.reference import FILE, reference

ROOT = Path(__file__).parents[2]


def commands(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


COMMANDS = dict(commands(main))


def test_it_is_published_as_it_is() -> None:
    assert FILE.read_text("utf-8") == reference(), "python -m jobs.cli.reference"


def test_it_has_every_command_option_and_exit_code() -> None:
    text = reference()
    for name, command in COMMANDS.items():
        section = text.split(f"\n## perceive {name}\n")[1].split("\n## ")[0]
        for one in command.params:
            assert (
                one.opts[0] if isinstance(one, click.Option) else one.make_metavar(click.Context(command))
            ) in section
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["0", "2", "3", "4", "5", "130"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_json_and_its_own_words(name: str) -> None:
    command = COMMANDS[name]
    assert any("--json" in one.opts for one in command.params), f"perceive {name} has no --json"
    assert command.help
    assert all(one.help for one in command.params if isinstance(one, click.Option))


def test_both_files_are_in_the_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "jobs"
    ]
    assert {"job.schema.json", "cli/REFERENCE.md"} <= {*listed}
