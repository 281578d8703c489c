"""perceive tasks: the list, and all that a job's author needs to know of one."""

import dataclasses
import json
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.cli import main
from perceiver_core.config import PUBLISHED, PerceiverConfig
from pipelines.describing import meaning
from pipelines.stages import ITEM
from pipelines.tasks import TASKS, Task

BOXED = ["fit: letterbox", "fit: tile"]


def tasks(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main, ["tasks", *arguments])
    assert done.exit_code == code, done.output
    return done


def test_the_list() -> None:
    rows = json.loads(tasks("--json").stdout)
    assert [row["name"] for row in rows] == [task.name for task in TASKS]
    flow = next(row for row in rows if row["name"] == "optical-flow")
    assert flow == {
        "name": "optical-flow",
        "does": "Estimate the motion of each pixel between frames of a video, or between two images.",
        "architectures": ["PerceiverForOpticalFlow"],
        "contents": [["video"], ["first", "second"]],
    }
    shown = tasks().stdout
    for row in rows:
        assert row["name"] in shown
    assert "video | first and second" in shown


def test_a_task() -> None:
    described = json.loads(tasks("masked-lm", "--json").stdout)
    assert described["contents"] == [[{"name": "text", "kind": "text", "files": [".txt"]}]]
    assert described["options"][2] == {
        "name": "positions",
        "type": "[[int, int], ...]",
        "default": [],
        "help": "masked in every text instead of markers: byte spans [start, stop), such as [[52, 60]]",
    }
    [output] = described["outputs"]
    assert (output["checkpoint"], described["format"]) == ("deepmind/language-perceiver", "parquet")
    columns = {column["name"]: column for column in output["columns"]}
    assert list(columns)[:5] == ["item_id", "version", "uri", "member", "window"]
    assert columns["scores"] == {
        "name": "scores",
        "type": "list<list<float32>>",
        "help": "their probabilities, of 1 in all: a list for each position, the likeliest first",
    }
    shown = tasks("masked-lm").stdout
    for words in ("PerceiverForMaskedLM", "text, a text (.txt", "mask_bytes", "instead of markers", "filled"):
        assert words in shown


def test_types_of_options() -> None:
    options = {one["name"]: one for one in json.loads(tasks("optical-flow", "--json").stdout)["options"]}
    kinds = {name: (one["type"], one["default"]) for name, one in options.items()}
    assert kinds["fit"] == ("tile | resize", "tile")
    assert kinds["png_motion"] == ("float | null", None)
    assert kinds["png"] == ("bool", False)


def test_columns_by_the_kind_of_checkpoint() -> None:
    outputs = json.loads(tasks("latents", "--json").stdout)["outputs"]
    of = {tuple(one["architectures"]): {c["name"]: c["type"] for c in one["columns"]} for one in outputs}
    assert sum(map(len, of)) == len(set().union(*of)) == 6
    texts = next(columns for architectures, columns in of.items() if "PerceiverForMaskedLM" in architectures)
    assert texts["latents"] == "float32 [256, 1280]"
    assert "start_time" not in texts


def test_columns_that_options_add() -> None:
    [output] = json.loads(tasks("multimodal-autoencoding", "--json").stdout)["outputs"]
    added = {one["name"]: one["options"] for one in output["more"]}
    assert added == {
        "mp4": ["video: mp4", "video: both"],
        **{f"picture_{side}": BOXED for side in ("top", "left", "height", "width")},
        **{name: ["fit: tile"] for name in ("tile_top", "tile_left", "frame_height", "frame_width")},
    }
    assert all(one["help"] for one in output["more"])
    [output] = json.loads(tasks("optical-flow", "--json").stdout)["outputs"]
    assert [(one["name"], one["options"]) for one in output["more"]] == [
        ("png", ["png: true"]),
        ("flo", ["flo: true"]),
    ]
    assert "Columns that options add" in tasks("optical-flow").stdout
    assert "Columns that options add" not in tasks("text-classification").stdout


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_everything_has_a_meaning(task: type[Task]) -> None:
    for field in dataclasses.fields(task):
        assert meaning(field), (
            f"{task.name}: option {field.name} says nothing of itself: use describing.option"
        )
    for field in ITEM:
        assert meaning(field)
    for architecture in set(task.architectures) - {*getattr(task, "refused", ())}:
        known = [one.config for one in PUBLISHED.values() if one.architecture == architecture]
        config = known[0] if known else PerceiverConfig(architectures=(architecture,))
        for field in task().output_schema(config):
            assert meaning(field), f"{task.name}: column {field.name} says nothing: use describing.column"


def test_no_such_task() -> None:
    expected = f"No such task: flow. The tasks are: {', '.join(task.name for task in TASKS)}."
    assert tasks("flow", code=2).stderr.strip() == expected
    assert json.loads(tasks("flow", "--json", code=2).stdout) == {"error": expected, "exit_code": 2}
