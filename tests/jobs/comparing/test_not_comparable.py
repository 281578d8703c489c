"""Outputs that can't be compared: the whole sentence, by Python and by the command."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

import jobs
from jobs.comparing.comparison import ComparisonError
from jobs.errors import OutputError
from tests.jobs.comparing.outputs import SCORE, Two, perceive
from tests.jobs.tables import Given, Output, of

pytestmark = pytest.mark.usefixtures("state")


def test_other_tasks(two: Two) -> None:
    a, b = two(SCORE, task="decode")
    a.write(Given("x", of("score", 1.0)))
    b.write(Given("x", of("score", 1.0)))
    refused(
        a, b,
        f"Expected two outputs of one task; got latents in {a.out} and decode in {b.out}. Name two that one task has "
        "made.",
    )  # fmt: skip


def test_other_tiles(two: Two) -> None:
    a, b = two(SCORE)
    tiles = replace(b, columns=pa.schema([*SCORE, pa.field("tile_top", pa.int32())]))
    a.write(Given("x", of("score", 1.0)))
    tiles.write(Given("x", [{"window": 0, "score": 1.0, "tile_top": 0}]))
    refused(
        a, tiles,
        "Expected rows of the same parts of their items. A's are told apart by window, B's by window, tile_top: their "
        "items were cut otherwise, so that no row of the one is one of the other. Compare runs of one kind of "
        "checkpoint, whose option fit is tile in both or in neither.",
    )  # fmt: skip


def test_no_items_in_both(two: Two) -> None:
    a, b = two(SCORE)
    a.write(Given("x", of("score", 1.0)), Given("y", error="MediaError"))
    b.write(Given("z", of("score", 1.0)))
    refused(
        a, b,
        "Expected items that are in both tables, in the same version; none of A's 2 is among B's 1. Items are told by "
        "their path below the input's root, and the row or member: run both jobs on the same input.uri, or on copies "
        "of one folder.",
    )  # fmt: skip


def test_all_items_changed(two: Two) -> None:
    a, b = two(SCORE)
    a.write(Given("x", of("score", 1.0)))
    b.write(Given("x", of("score", 1.0), version="v2"))
    refused(
        a, b,
        "Expected items that are in both tables, in the same version; 1 items are in both, such as /in/x, and all of "
        "them changed between the two runs: their size, time or etag is another one. Run both jobs on the same files.",
    )  # fmt: skip


def test_all_items_in_quarantine(two: Two) -> None:
    a, b = two(SCORE)
    a.write(Given("x", of("score", 1.0)), Given("y", error="MediaError"))
    b.write(Given("x", error="MediaError"), Given("y", error="MediaError"))
    refused(
        a, b,
        "Expected items that are in both tables, in the same version; 2 items are in both, and in quarantine in one of "
        f"them or in both. perceive errors {a.out} and perceive errors {b.out} say why.",
    )  # fmt: skip


def test_no_rows_in_both(two: Two) -> None:
    a, b = two(pa.schema([*SCORE, pa.field("start", pa.int64())]))
    a.write(Given("x", [{"window": 0, "score": 1.0, "start": 0}]))
    b.write(Given("x", [{"window": 0, "score": 1.0, "start": 5}]))
    refused(
        a, b,
        "Expected rows of the same parts of their items: 1 items have rows in both tables, and no row of the one has "
        "the item_id, window, start of one of the other. Compare runs that cut their items alike: perceive tasks NAME "
        "shows the options of a task.",
    )  # fmt: skip


def refused(a: Output, b: Output, said: str) -> None:
    with pytest.raises(ComparisonError) as raised:
        jobs.compare(a.out, b.out)
    assert str(raised.value) == said
    done = perceive(a.out, b.out, "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (2, {"error": said, "exit_code": 2})


@pytest.mark.parametrize("side", [0, 1])
def test_a_row_that_is_there_twice(two: Two, side: int) -> None:
    outputs = two(SCORE)
    for number, output in enumerate(outputs):
        again = of("score", 2.0) if number == side else []
        output.write(Given("x", [*of("score", 1.0), *again]))
    with pytest.raises(OutputError) as raised:
        jobs.compare(*(output.out for output in outputs))
    assert str(raised.value) == (
        f"{outputs[side].out} doesn't add up: manifest 1 has two rows with the same item_id, window. Report it as a "
        "bug."
    )


def test_a_row_that_is_there_twice_in_two_files(two: Two) -> None:
    a, b = two(SCORE)
    b = replace(b, shard_windows=1)
    a.write(Given("x", of("score", 1.0, 2.0)))
    b.write(Given("x", [*of("score", 1.0), *of("score", 2.0)]))
    with pytest.raises(OutputError, match="manifest 1 has two rows with the same item_id, window"):
        jobs.compare(a.out, b.out)
