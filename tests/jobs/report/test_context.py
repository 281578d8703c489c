"""What a report says of a run, by its summary and its state."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report.figures import _labels
from jobs.report.gallery import _wanted
from jobs.report.words import moment, percent, size
from jobs.states import STATES, State
from jobs.summary import Point, Summary
from pipelines.quality import Picked, Quality
from tests.jobs.report.pages import attempt, page, quality, summary


@pytest.mark.parametrize(
    ("state", "changes", "message", "mark", "word", "says"),
    [
        ("done", {}, "", "done", "Done", "Every item is in the table."),
        ("done", {"quarantined": 3, "items_quarantined": 1}, "", "part", "Done, with quarantined items",
         "1 of 40 items is not whole in the table."),
        ("failed", {}, "The disk is full.", "failed", "Failed", "The disk is full."),
        ("stopped", {"windows": 10}, "Somebody stopped it.", "stopped", "Stopped",
         "Somebody stopped it. The model had done 10 of 40 windows (25%)."),
        ("lost", {"windows": 0, "total": 0}, "It was killed.", "failed", "Killed",
         "It was killed. The model had done 0 of 0 windows."),
        ("running", {"windows": 10}, "", "going", "Going on", "The model has done 10 of 40 windows (25%)."),
        ("submitted", {}, "", "going", "Waiting", "A target has it; it has not begun."),
    ],
)  # fmt: skip
def test_the_outcome(
    state: State, changes: dict[str, Any], message: str, mark: str, word: str, says: str
) -> None:
    found = page(state, message, summary(**changes)).outcome
    assert (found.mark, found.word, found.says) == (mark, word, says)


def test_every_state_has_one() -> None:
    assert {page(state).outcome.mark for state in STATES} == {"done", "failed", "stopped", "going"}


def test_when() -> None:
    assert page().when == "Run 0123456789ab, from 2026-11-26 10:00:00 UTC to 2026-11-26 10:01:00 UTC"
    going = summary(attempts=(attempt(ended=None, outcome="unfinished"),))
    for state in ("running", "lost"):
        assert page(state, of=going).when == (
            "Run 0123456789ab, since 2026-11-26 10:00:00 UTC, as of 2026-11-26 10:02:00 UTC"
        )
    assert (
        page("submitted", of=summary(attempts=())).when == "Run 0123456789ab, as of 2026-11-26 10:02:00 UTC"
    )


def test_figures() -> None:
    attempts = tuple(attempt(n) for n in (1, 2))
    found = page("lost", of=summary(windows=10, rows=1234, shards_done=1, attempts=attempts)).figures
    assert found == (
        ("Items", "40", ""), ("Rows", "1,234", "so far"), ("Windows", "10", "of 40"), ("Quarantined", "0", "rows"),
        ("Took", "60 s", "in 2 attempts"), ("Rate", "1.25", "windows a second"),
    )  # fmt: skip
    assert "Rate" not in {name for name, *_ in page(of=summary(rate=None)).figures}


def test_what_limited_it_is_a_sentence() -> None:
    assert page().limit == "Decode limits: 1 more CPU worker would give about 1.3x."
    assert page(of=summary(limit="")).limit == ""


def test_lineage() -> None:
    what = {"options": {"top_k": 2, "csv": False, "points": [1, 2], "none": None}, "checkpoint": "f00", "code": "0.1.0",
            "dtype": "float32", "fold": True, "reference": "hf", "batch": 8, "input": "abc", "input.limit": 5,
            "contents": {"format": "auto", "columns": {}}}  # fmt: skip
    of = summary(fingerprint=what, kind="incremental", base=4, manifest=5, fire="2026-11-26T03:00:00+00:00")
    found = dict(page(of=of).lineage)
    assert found["Options"] == "top_k 2, csv no, points [1, 2], none none"
    assert found["Computed in"] == "float32, folded, transformers' answers, batches of 8"
    assert (found["Did"], found["Went on from"], found["Published"]) == (
        "what was new",
        "manifest 4",
        "manifest 5",
    )
    assert (found["For the time"], found["Limit"]) == ("2026-11-26 03:00:00 UTC", "the first 5 items")
    assert (found["Input as it was listed"], found["Checkpoint's hash"], found["Read as"]) == (
        "abc",
        "f00",
        "format auto",
    )


@pytest.mark.parametrize(("state", "outcome"), [("running", "unfinished"), ("lost", "killed")])
def test_an_attempt_without_an_end_was_killed_if_nobody_is_at_it(state: State, outcome: str) -> None:
    attempts = (attempt(1, outcome="killed"), attempt(2, ended=None, outcome="unfinished"))
    assert [one.outcome for one in page(state, of=summary(attempts=attempts)).attempts] == ["killed", outcome]


def test_of_many_attempts_the_last_are_shown() -> None:
    found = page(of=summary(attempts=tuple(attempt(n) for n in range(1, 31))))
    assert [one.number for one in found.attempts] == [*range(11, 31)]
    assert found.attempts_left_out == 10


def test_troubles() -> None:
    of = summary(oom_halvings=1, workers_replaced=3, retries={"Throttled": 2})
    assert page(of=of).troubles == (
        "A device's memory was short, and batch and chunk were halved: once.",
        "A sick worker was replaced: 3 times.",
        "Storage failed in passing, and was asked again: Throttled 2 times.",
    )


def test_the_time_has_a_gap_where_an_attempt_ended() -> None:
    def point(attempt: int, seconds: float, windows: int) -> Point:
        return Point(attempt, seconds, windows, {"decode": 0, "predict": 0, "write": 0}, 0.5, None)

    of = summary(timeline=(point(1, 0, 0), point(1, 10, 20), point(2, 100, 20), point(2, 110, 30)))
    rate, busy, done, waiting, cores = page(of=of).time  # no memory is known
    assert [row[1] for row in rate.rows] == ["2", "2", "1", "1"]
    assert rate.svg.count("<polyline") == done.svg.count("<polyline") == cores.svg.count("<polyline") == 2
    assert waiting.columns == ("time", "for decode", "for predict", "for write")
    assert busy.columns[:3] == ("stage", "busy", "workers")
    assert busy.rows[0] == ("decode", "50%", "1", "40", "12.5", "7", "268 MB")


@pytest.mark.parametrize("changes", [{"timeline": (), "stages": {}, "attempts": ()}, {"rows": 99}])
def test_what_is_not_known_is_left_out(changes: dict[str, Any]) -> None:
    of: Summary = summary(**changes)
    found = page("lost", of=of)
    assert bool(found.time) == bool(of.timeline)
    assert found.measured == ("Of 40 rows that this run wrote." if of.rows == 40 else
                              "Of 40 rows that this run wrote; the table has 99.")  # fmt: skip


def test_labels_beyond_the_most_frequent_are_counted() -> None:
    chart = _labels(quality({f"label {n}": 100 - n for n in range(40)}))
    assert len(chart.rows) == 15
    assert (
        chart.says
        == "How many rows have each as their likeliest. 40 labels occur; the 15 most frequent are shown."
    )
    assert chart.rows[0] == ("label 0", "100 (3%)")


def picked(item: str, row: int, value: float) -> Picked:
    return Picked("part", row, item, item, None, row, value)


def test_a_row_is_shown_once_and_chance_shows_other_items() -> None:
    rows = [picked(item, row, row) for row, item in enumerate("aabbccdd")]
    found = Quality(
        rows=8, parts_read=1, parts=1, spreads={}, labels={}, unlabelled=0, by="video_psnr",
        best=(rows[0], rows[2]), worst=(rows[1], rows[2], rows[4]), random=tuple(rows[n] for n in (3, 6, 7)),
    )  # fmt: skip
    groups = {name: [(one.item_id, one.row) for one in picks] for name, picks in _wanted(found)}
    assert groups == {
        "Best by PSNR": [("a", 0), ("b", 2)],
        "Worst by PSNR": [("a", 1), ("c", 4)],
        "Chosen by chance": [("d", 6), ("d", 7)],
    }


@given(st.floats(0, 1))
def test_shares(share: float) -> None:
    assert percent(share) in {
        "less than 0.1%",
        *(f"{n}%" for n in range(101)),
        *(f"0.{n}%" for n in range(1, 10)),
        "1.0%",
    }


def test_sizes_and_moments() -> None:
    sizes = [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (123_456_789, "123 MB"),
        (5e12, "5,000 GB"),
        (None, ""),
    ]
    assert [size(count) for count, _ in sizes] == [said for _, said in sizes]
    assert moment("2026-11-26T01:02:03.456+00:00") == "2026-11-26 01:02:03 UTC"
    assert moment(None) == ""
    assert [percent(one) for one in (None, 0, 0.5, 1)] == ["", "0%", "50%", "100%"]
