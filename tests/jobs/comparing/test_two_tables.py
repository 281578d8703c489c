"""jobs.compare of tables whose rows are given: what differs in columns of every kind, and which rows are there."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jobs
from jobs.comparing.allowed import exceeded
from jobs.comparing.comparison import ComparisonError, Few, Rows, Skipped, Types
from pipelines.describing import file_column
from pipelines.tensors import ragged
from tests.jobs.comparing.outputs import AUDIO, SCORE, VIDEO, Two, perceive, plain
from tests.jobs.tables import WINDOW, Given, Output, of, tensor

pytestmark = pytest.mark.usefixtures("state")


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_pictures_and_their_psnr(two: Two, format: Any) -> None:
    a, b = two(VIDEO, format=format, shard_windows=3)
    generator = np.random.default_rng(0)
    mine = generator.integers(0, 256, (7, 2, 2, 3)).astype(np.uint8)
    other = np.where(generator.random(mine.shape) < 0.5, mine, mine // 2)
    cut = [slice(0, 5), slice(5, 7)]
    a.write(*(Given(name, of("video", *mine[part])) for name, part in zip("xy", cut, strict=True)))
    b.write(*(Given(name, of("video", *other[part])) for name, part in zip("yx", reversed(cut), strict=True)))
    found = jobs.compare(a.out, b.out)
    [video] = found.numbers
    far = mine.astype(float) - other
    assert (found.rows.compared, video.type, video.rows, video.values) == (7, "uint8 [2, 2, 3]", 7, 84)
    assert (video.max_abs, video.largest_a) == (np.abs(far).max(), mine.max())
    assert video.mean_abs == pytest.approx(np.abs(far).mean())
    assert video.psnr == pytest.approx(-10 * math.log10(np.square(far / 255).mean()))
    assert video.worst
    row = int(np.abs(far).max((1, 2, 3)).argmax())
    assert (video.worst.uri, video.worst.window) == (("/in/x", row) if row < 5 else ("/in/y", row - 5))
    assert found.columns.types == ()


def test_sound_with_nulls_and_what_is_not_finite(two: Two) -> None:
    a, b = two(AUDIO)
    nan, inf = math.nan, math.inf
    a.write(Given("x", of("audio", [0, 0, 0, 1], [nan, inf, nan, 0.5], None, None, [0] * 4)))
    b.write(Given("x", of("audio", [0, 0, 0, 0.5], [nan, inf, 0, -inf], None, [1] * 4, [0] * 4)))
    found = jobs.compare(a.out, b.out)
    [audio] = found.numbers
    assert (audio.rows, audio.changed, audio.nulls, audio.values) == (3, 2, 1, 8)
    assert (audio.not_finite, audio.not_finite_changed) == (2, 2)
    assert (audio.max_abs, audio.relative) == (0.5, 0.5)
    assert audio.psnr == pytest.approx(-10 * math.log10(0.5**2 / 8))  # for a peak of 1
    back = jobs.compare(b.out, a.out).numbers[0]
    assert (back.max_abs, back.psnr, back.nulls, back.not_finite_changed) == (0.5, audio.psnr, 1, 2)
    assert back.relative == 1
    assert plain(found)["numbers"][0]["not_finite_changed"] == 2
    shown = perceive(a.out, b.out).output
    assert (
        "  audio: furthest apart at x window 0; 1 rows with values in one only; 2 values NaN or infinite in both; "
        "2 values NaN or infinite in one only\n" in shown
    )
    own = jobs.compare(a.out, a.out)
    assert (own.same, own.numbers[0].not_finite) == (True, 3)


def test_columns_of_every_kind(two: Two) -> None:
    columns = pa.schema(
        [
            WINDOW,
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            ragged(pa.field("flow", pa.large_list(pa.float32())), "height", "width", 2),
            pa.field("tokens", pa.list_(pa.list_(pa.uint8()))),
            pa.field("scores", pa.list_(pa.list_(pa.float32()))),
            pa.field("filled", pa.large_string()),
            tensor("positions", pa.int32(), 2),
            file_column("png", "a file"),
            pa.field("about", pa.struct([("x", pa.int64())])),
        ]
    )
    row = {
        "window": 0, "height": 1, "width": 1, "flow": [1, 2], "tokens": [[65, 66], [67]], "scores": [[0.5], [0.25]],
        "filled": "The cat", "positions": [1, 2], "png": "a.png", "about": {"x": 1},
    }  # fmt: skip
    other = row | {
        "flow": [1, 2.5], "tokens": [[65, 66], [68]], "scores": [[0.5], [0.5]], "filled": "The dog",
        "positions": [1, 3], "png": "b.png", "about": {"x": 2},
    }  # fmt: skip
    a, b = two(columns, format="parquet")
    a.write(Given("x", [row], member="7"))
    b.write(Given("x", [other], member="7"))
    found = jobs.compare(a.out, b.out)
    assert {one.name: (one.max_abs, one.type) for one in found.numbers} == {
        "flow": (0.5, "large_list<float32>"), "scores": (0.25, "list<list<float32>>"),
    }  # fmt: skip
    assert {one.name: one.changed for one in found.changes} == {
        "height": 0, "width": 0, "tokens": 1, "filled": 1, "positions": 1,
    }  # fmt: skip
    text = next(one for one in found.changes if one.name == "filled")
    assert [(str(one.place), one.a, one.b) for one in text.examples] == [
        ("/in/x [7] window 0", "The cat", "The dog")
    ]
    assert found.labels is None
    assert found.columns.types == ()  # Parquet has other names for the same lists
    assert found.columns.skipped == (
        Skipped("png", "it names files"), Skipped("about", "values of type struct<x: int64> are not"),
    )  # fmt: skip


def test_what_is_kept_of_the_input_tells_no_rows_apart(two: Two) -> None:
    kept = {"contents": {"keep": ["window", "start"]}}
    columns = pa.schema([("window", pa.string()), ("start", pa.float32()), ("score", pa.float32())])
    a, b = two(columns)
    a, b = (replace(one, fingerprint=kept) for one in (a, b))
    a.write(Given("x", [{"window": "w", "start": math.nan, "score": 1.0}], member="1"))
    b.write(Given("x", [{"window": "v", "start": 1.0, "score": 2.0}], member="1"))
    found = jobs.compare(a.out, b.out)
    assert (found.rows, [one.name for one in found.numbers]) == (Rows(1, 0, 0), ["start", "score"])
    [window] = found.changes
    assert [(str(one.place), one.a, one.b) for one in window.examples] == [("/in/x [1]", "w", "v")]


def test_columns_that_differ(two: Two) -> None:
    columns = [
        WINDOW,
        tensor("latents", pa.float32(), 2),
        pa.field("n", pa.int32()),
        tensor("v", pa.uint8(), 2),
    ]
    others = [
        WINDOW,
        tensor("latents", pa.float16(), 2),
        pa.field("n", pa.int64()),
        tensor("v", pa.uint8(), 3),
    ]
    a, b = two(pa.schema([*columns, pa.field("old", pa.int8())]), format="parquet")
    b = replace(b, columns=pa.schema([*others, pa.field("new", pa.int8())]))
    a.write(Given("x", [{"window": 0, "latents": [1, 0.3], "n": 1, "v": [1, 2], "old": 1}]))
    b.write(Given("x", [{"window": 0, "latents": [1, 0.3], "n": 1, "v": [1, 2, 3], "new": 1}]))
    found = jobs.compare(a.out, b.out)
    assert (found.columns.only_a, found.columns.only_b) == (("old",), ("new",))
    assert found.columns.types == (
        Types("latents", "float32 [2]", "float16 [2]", True), Types("n", "int32", "int64", False),
        Types("v", "uint8 [2]", "uint8 [3]", False),
    )  # fmt: skip
    [latents] = found.numbers
    assert latents.max_abs == pytest.approx(abs(0.3 - float(np.float16(0.3))), abs=1e-7)
    assert not found.same


def test_labels_and_their_examples(two: Two) -> None:
    columns = pa.schema(
        [WINDOW, pa.field("labels", pa.list_(pa.string())), pa.field("scores", pa.list_(pa.float32()))]
    )

    def rows(*labels: dict[str, float]) -> list[dict[str, Any]]:
        return [{"window": n, "labels": [*one], "scores": [*one.values()]} for n, one in enumerate(labels)]

    a, b = two(columns)
    a.write(Given("x", rows({"ball": 0.75, "bar": 0.25}, {"ball": 0.5}, {}, {"a": 0.5, "b": 0.5})))
    b.write(Given("x", rows({"bar": 0.5, "ball": 0.5}, {}, {}, {"b": 0.5, "a": 0.5})))
    found = jobs.compare(a.out, b.out, examples=2)
    labels = found.labels
    assert labels
    assert (labels.rows, labels.top_changed, labels.lists_changed, labels.share) == (4, 3, 3, 0.75)
    assert (labels.scores.max_abs, labels.scores.values) == (0.25, 4)
    shown = perceive(a.out, b.out, "--examples", "2")
    assert "labels: 3 of 4 rows have another likeliest one (75.00%)" in shown.output
    assert "  /in/x window 0: ball 0.750 -> bar 0.500\n  /in/x window 1: ball 0.500 -> none\n" in shown.output
    assert f"Next: perceive compare {a.out} {b.out} --examples 3" in shown.output
    assert exceeded(found, {}, 0.5) == (
        "3 of 4 rows have another likeliest label (75.00%), and 50.00% is allowed",
    )


def test_items_in_quarantine_in_one_of_the_two(two: Two) -> None:
    a, b = two(SCORE)
    good = of("score", 1.0)
    a.write(
        Given("x", good), Given("m1", error="MediaError"), Given("m2", error="MediaError"),
        Given("l", error="LimitError"), Given("both", error="MediaError"), Given("there", good),
    )  # fmt: skip
    b.write(
        Given("x", good), Given("m1", good), Given("m2", good), Given("l", good),
        Given("both", error="DecodeTimeout"), Given("there", error="DecodeCrash"),
    )  # fmt: skip
    found = jobs.compare(a.out, b.out, examples=1)
    told = [(one.error, one.items) for one in found.items.quarantined_a]
    assert told == [("MediaError", Few(2, ("/in/m1",))), ("LimitError", Few(1, ("/in/l",)))]
    assert [(one.error, one.items.count) for one in found.items.quarantined_b] == [("DecodeCrash", 1)]
    assert found.items.quarantined_both == Few(1, ("/in/both",))
    assert (found.items.both, found.items.compared, found.rows) == (6, 1, Rows(1, 0, 0))
    assert not found.same
    shown = perceive(a.out, b.out).output
    assert "  2 items in quarantine in A only, MediaError: m1, m2\n" in shown
    assert f"Next: perceive errors {b.out}" in shown
    assert exceeded(found, {}, 0.5) == (
        "4 of 6 items are in quarantine in one of the two only (66.67%), and 50.00% is allowed",
    )


def test_rows_that_were_cut_elsewhere_are_not_compared(two: Two) -> None:
    a, b = two(pa.schema([WINDOW, pa.field("start", pa.int64()), pa.field("score", pa.float32())]))

    def rows(*starts: int) -> list[dict[str, Any]]:
        return [{"window": n, "start": start, "score": n} for n, start in enumerate(starts)]

    a.write(Given("x", rows(0, 10, 20), probed=False), Given("y", rows(0), probed=False))
    b.write(
        Given("x", rows(0, 12, 20, 30), probed=False), Given("y", rows(0), probed=False), Given("z", rows(0))
    )
    found = jobs.compare(a.out, b.out)
    assert found.rows == Rows(3, 1, 2)
    assert (
        "  1 rows of these items only in A\n  2 rows of these items only in B\n"
        in perceive(a.out, b.out).output
    )
    assert exceeded(found, {}, 0.1) == (
        "3 of 6 rows are in one of the two only (50.00%), and 10.00% is allowed",
    )


def test_what_no_check_lets_pass(two: Two) -> None:
    a, b = two(pa.schema([WINDOW, pa.field("x", pa.float32()), pa.field("y", pa.list_(pa.float32()))]))
    a.write(Given("x", [{"window": 0, "x": 1.0, "y": [1.0]}, {"window": 1, "x": None, "y": [math.nan]}]))
    b.write(Given("x", [{"window": 0, "x": 1.5, "y": [1.0, 2.0]}, {"window": 1, "x": 1.0, "y": [1.0]}]))
    found = jobs.compare(a.out, b.out)
    assert exceeded(found, {}, None) == ()
    assert exceeded(found, {"x": 0.25}, None) == (
        "x differs by 0.5, and 0.25 is allowed",
        "x has other values in one of the two in 1 rows",
    )
    assert exceeded(found, {"": 10}, None) == (
        "x has other values in one of the two in 1 rows",
        "y has other values in one of the two in 1 rows",
        "y is NaN or infinite in one of the two only in 1 values",
    )
    assert exceeded(found, {"x": 1, "y": 9}, 0)[0] == "x has other values in one of the two in 1 rows"
    with pytest.raises(ComparisonError) as raised:
        exceeded(found, {"z": 1}, None)
    assert str(raised.value) == (
        "A limit is set for z, which no compared column of numbers is called. There are: x, y."
    )


ITEM = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    a=st.dictionaries(st.sampled_from("abcdef"), ITEM, min_size=1),
    b=st.dictionaries(st.sampled_from("abcdef"), ITEM, min_size=1),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    data=st.data(),
)
def test_rows_are_found_whatever_files_they_are_in(
    tmp_path_factory: pytest.TempPathFactory,
    a: dict[str, list[float]],
    b: dict[str, list[float]],
    sizes: tuple[int, int],
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    b[next(iter(a))] = data.draw(ITEM)
    outs = []
    for items, size in ((a, sizes[0]), (b, sizes[1])):
        output = Output(folder / f"{len(outs)}", SCORE, shard_windows=size)
        order = data.draw(st.permutations([*items]))
        outs.append(output.write(*(Given(name, of("score", *items[name])) for name in order)))
    rows, there = ({(i, w): v for i, vs in items.items() for w, v in enumerate(vs)} for items in (a, b))
    both = {key for key in rows if key in there}
    common = a.keys() & b.keys()
    found, back = jobs.compare(*outs), jobs.compare(*reversed(outs))
    alone = [sum(key[0] in common and key not in both for key in table) for table in (rows, there)]
    assert found.rows == Rows(len(both), *alone)
    assert back.rows == Rows(len(both), *reversed(alone))
    assert found.items.compared == len(common)
    assert found.items.only_a.count == len(a.keys() - b.keys())
    [numbers], [swapped] = found.numbers, back.numbers
    assert numbers.max_abs == swapped.max_abs == max(abs(rows[key] - there[key]) for key in both)
    assert numbers.changed == swapped.changed == sum(rows[key] != there[key] for key in both)
    assert numbers.mean_abs == pytest.approx(swapped.mean_abs)
    assert jobs.compare(outs[0], outs[0]).same
