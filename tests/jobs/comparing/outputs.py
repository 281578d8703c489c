"""Two outputs to compare, their columns, and the command that compares them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.comparing.comparison import Comparison
from tests.jobs.tables import WINDOW, Output, tensor

VIDEO = pa.schema([WINDOW, tensor("video", pa.uint8(), 2, 2, 3)])
AUDIO = pa.schema([WINDOW, tensor("audio", pa.float32(), 4)])
SCORE = pa.schema([WINDOW, pa.field("score", pa.float32())])
TEXT = pa.schema([WINDOW, pa.field("filled", pa.large_string())])

Two = Callable[..., tuple[Output, Output]]


def perceive(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def plain(found: Comparison) -> dict[str, Any]:
    """As JSON has it."""
    return json.loads(json.dumps(asdict(found), allow_nan=False))
