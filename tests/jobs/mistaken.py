"""A good job to make mistakes in, and what the real command says of them."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from jobs.cli import main

JOB: dict[str, Any] = {
    "name": "a-job",
    "task": "video-classification",
    "model": {"checkpoint": "demo"},
    "input": {"uri": "clips"},
    "output": {"uri": "out"},
}


def said(*arguments: str) -> str:
    """What the command says when it refuses; with --json it says the same."""
    done = CliRunner().invoke(main, arguments)
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("files listed", "waiting"))]
    again = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert again == {"error": "\n".join(lines), "exit_code": 2}
    assert not list(Path.cwd().glob("out/data"))
    return "\n".join(lines)


def in_job(sentence: str) -> str:
    return f"job.yaml is not a valid job:\n  {sentence}"
