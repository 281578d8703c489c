"""The reference is what the commands say of themselves."""

import re
import tomllib
from pathlib import Path

import click
import pytest

from jobs.cli import main
from jobs.cli.reference import FILE, reference

ROOT = Path(__file__).parents[2]


def test_it_is_published_as_it_is() -> None:
    assert FILE.read_text("utf-8") == reference(), "python -m jobs.cli.reference"


def test_it_has_every_command_option_and_exit_code() -> None:
    text = reference()
    for name, command in main.commands.items():
        section = text.split(f"\n## perceive {name}\n")[1].split("\n## ")[0]
        for one in command.params:
            assert (
                one.opts[0] if isinstance(one, click.Option) else one.make_metavar(click.Context(command))
            ) in section
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["0", "2", "3", "4", "5", "6", "130"]


EVERY = {
    **main.commands,
    **{
        f"{name} {one}": command
        for name, group in main.commands.items()
        if isinstance(group, click.Group)
        for one, command in group.commands.items()
    },
}


@pytest.mark.parametrize("name", sorted(EVERY))
def test_every_command_has_json_and_its_own_words(name: str) -> None:
    command = EVERY[name]
    assert isinstance(command, click.Group) or any("--json" in one.opts for one in command.params), (
        f"perceive {name} has no --json"
    )
    assert command.help
    assert all(one.help for one in command.params if isinstance(one, click.Option))


def test_both_files_are_in_the_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "jobs"
    ]
    assert {"job.schema.json", "cli/REFERENCE.md"} <= {*listed}
