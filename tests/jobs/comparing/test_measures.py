"""What columns come to, in whatever batches they come: the same as of whole tables, by numpy and by hand."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.comparing import numbers
from jobs.comparing.changes import Changes
from jobs.comparing.columns import Columns, form
from jobs.comparing.comparison import ChangeColumn, LabelColumn, NumberColumn, Place
from jobs.comparing.items import pairs
from jobs.comparing.labels import Labels
from jobs.comparing.numbers import Numbers
from perceiver_core.config import PUBLISHED, PerceiverConfig
from pipelines.index import INDEX
from pipelines.tasks import TASKS
from pipelines.tensors import at_rest, pack, rest

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0])
ODD = FLOATS | st.sampled_from([math.nan, math.inf, -math.inf])
WORDS = st.sampled_from(["crane", "maillot", "ball", "bar"])


def place(first: int) -> Callable[[int], Place]:
    return lambda row: Place("uri", None, first + row)


def cuts(data: st.DataObject, rows: int) -> Iterator[tuple[int, int]]:
    """Batches of so many rows."""
    edges = sorted({0, rows, *data.draw(st.lists(st.integers(0, rows), max_size=4))})
    yield from pairwise(edges)


def measured(data: st.DataObject, measure: Any, a: pa.Array, b: pa.Array) -> Any:
    for first, stop in cuts(data, len(a)):
        measure.add(a.slice(first, stop - first), b.slice(first, stop - first), place(first))
    return measure.result()


def naive(a: Sequence[list[float] | None], b: Sequence[list[float] | None]) -> dict[str, Any]:
    """What two columns of lists of floats come to."""
    found = Counter[str]()
    far: list[float] = []
    own: list[float] = []
    for x, y in zip(a, b, strict=True):
        if (x is None) != (y is None):
            found["nulls"] += 1
        if x is None or y is None:
            continue
        if len(x) != len(y):
            found["lengths"] += 1
            continue
        found["rows"] += 1
        changed = False
        for v, w in zip(x, y, strict=True):
            if math.isfinite(v) and math.isfinite(w):
                far.append(abs(v - w))
                own.append(abs(v))
                changed |= v != w
            elif v == w or (math.isnan(v) and math.isnan(w)):
                found["not_finite"] += 1
            else:
                found["not_finite_changed"] += 1
                changed = True
        found["changed"] += changed
    names = ("nulls", "lengths", "rows", "changed", "not_finite", "not_finite_changed")
    return {name: found[name] for name in names} | {
        "values": len(far), "max_abs": max(far, default=0.0), "largest_a": max(own, default=0.0),
        "mean_abs": float(np.mean(far)) if far else 0.0,
        "squares": float(np.mean(np.square(far))) if far else 0.0,
    }  # fmt: skip


def check(found: NumberColumn, expected: dict[str, Any], peak: float | None = None) -> None:
    for name in ("nulls", "lengths", "rows", "changed", "not_finite", "not_finite_changed", "values"):
        assert getattr(found, name) == expected[name], name
    assert (found.max_abs, found.largest_a) == (expected["max_abs"], expected["largest_a"])
    assert found.mean_abs == pytest.approx(expected["mean_abs"])
    assert (found.worst is None) == (found.max_abs == 0)
    if found.largest_a:
        assert found.relative == found.max_abs / found.largest_a
    else:
        assert found.relative is None
    if peak and expected["squares"]:
        assert found.psnr == pytest.approx(10 * math.log10(peak**2 / expected["squares"]))
    else:
        assert found.psnr is None


@st.composite
def two_columns(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> tuple[list[Any], list[Any]]:
    """As many rows, of lists that are often equally long and alike."""
    a = draw(st.lists(st.none() | st.lists(values, max_size=6), min_size=1, max_size=12))
    b = []
    for row in a:
        kind = draw(st.sampled_from(["same", "one", "long", "other"]))
        if kind == "one" and row:
            at = draw(st.integers(0, len(row) - 1))
            b.append([*row[:at], draw(values), *row[at + 1 :]])
        elif kind == "long" and row is not None:
            b.append([draw(values) for _ in row])
        else:
            b.append(row if kind == "same" else draw(st.none() | st.lists(values, max_size=6)))
    return a, b


@settings(deadline=None)
@given(two_columns(ODD), st.integers(1, 5), st.data())
def test_lists_of_floats(columns: tuple[list[Any], list[Any]], chunk: int, data: st.DataObject) -> None:
    a, b = columns
    field = pa.field("flow", pa.large_list(pa.float32()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "_CHUNK", chunk)
        found = measured(
            data, Numbers(field, field, "", 2.0), pa.array(a, field.type), pa.array(b, field.type)
        )
        swapped = measured(
            data, Numbers(field, field, "", 2.0), pa.array(b, field.type), pa.array(a, field.type)
        )
        own = measured(data, Numbers(field, field, "", 2.0), pa.array(a, field.type), pa.array(a, field.type))
    check(found, naive(a, b), 2.0)
    if found.worst:
        x, y = (np.array(one[found.worst.window or 0]) for one in (a, b))
        with np.errstate(invalid="ignore"):
            assert np.nanmax(np.where(np.isfinite(x - y), np.abs(x - y), 0)) == found.max_abs
    for name in (
        "rows",
        "changed",
        "nulls",
        "lengths",
        "values",
        "max_abs",
        "not_finite",
        "not_finite_changed",
    ):
        assert getattr(found, name) == getattr(swapped, name)
    assert (found.mean_abs, found.psnr) == pytest.approx((swapped.mean_abs, swapped.psnr))
    assert (own.changed, own.max_abs, own.psnr, own.nulls, own.lengths, own.not_finite_changed) == (
        0,
        0,
        None,
        0,
        0,
        0,
    )


@settings(deadline=None)
@given(st.lists(st.tuples(ODD | st.none(), ODD | st.none()), min_size=1, max_size=30), st.data())
def test_single_floats(rows: list[tuple[Any, Any]], data: st.DataObject) -> None:
    field = pa.field("video_psnr", pa.float32())
    a, b = ([row[side] for row in rows] for side in (0, 1))
    found = measured(data, Numbers(field, field, "", None), pa.array(a, field.type), pa.array(b, field.type))
    as_lists = [[None if one is None else [one] for one in side] for side in (a, b)]
    check(found, naive(*as_lists))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("formats", [("arrow", "arrow"), ("parquet", "parquet"), ("arrow", "parquet")])
def test_tensors_of_both_layouts(dtype: str, formats: tuple[Any, Any]) -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 255, (5, 4, 3)).astype(dtype) for _ in range(2))
    valid = np.array([True, True, False, True, True])
    type = pa.fixed_shape_tensor(pa.from_numpy_dtype(a.dtype), [4, 3])
    schema = pa.schema([pa.field("t", type)])
    fields = [at_rest(schema, format).field("t") for format in formats]
    columns = [
        rest(pa.chunked_array([pack(values[valid], valid)]), type, format)
        for values, format in zip((a, b), formats, strict=True)
    ]
    measure = Numbers(fields[0], fields[1], "", 255.0)
    for first in range(5):
        mine, other = (column.slice(first, 1) for column in columns)
        measure.add(mine, other, place(first))
    x, y = (one[valid].astype(float) for one in (a, b))
    found = measure.result()
    assert (found.rows, found.values, found.nulls) == (4, 48, 0)
    assert found.max_abs == np.abs(x - y).max()
    assert found.mean_abs == pytest.approx(np.abs(x - y).mean())
    assert found.psnr == pytest.approx(-10 * np.log10(np.square((x - y) / 255).mean()))


LISTS = st.lists(st.lists(st.tuples(WORDS, st.floats(0, 1, width=32)), max_size=5), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(LISTS, st.data())
def test_labels(a: list[list[tuple[str, float]]], data: st.DataObject) -> None:
    b = [row if data.draw(st.booleans()) else data.draw(LISTS)[0] for row in a]
    found = labelled(data, a, b)
    tops = [(x[0][0] if x else None, y[0][0] if y else None) for x, y in zip(a, b, strict=True)]
    moved, values = 0.0, 0
    for x, y in zip(a, b, strict=True):
        for word in {name for name, _ in x}:
            pairs_of = zip(  # of classes that share their name, the first with the first
                [score for name, score in x if name == word],
                [score for name, score in y if name == word],
                strict=False,
            )
            for own, other in pairs_of:
                moved, values = max(moved, abs(own - other)), values + 1
    changed = [row for row, (x, y) in enumerate(tops) if x != y]
    lists = sum([n for n, _ in x] != [n for n, _ in y] for x, y in zip(a, b, strict=True))
    assert (found.rows, found.top_changed, found.lists_changed) == (len(a), len(changed), lists)
    assert (found.scores.values, found.scores.max_abs) == (values, moved)
    assert [one.place.window for one in found.examples] == changed[:2]
    for one, row in zip(found.examples, changed, strict=False):
        assert (one.a, one.b) == tops[row]
        assert one.a_score == (a[row][0][1] if a[row] else None)
        assert one.b_score == (b[row][0][1] if b[row] else None)
    swapped = labelled(data, b, a)
    assert (swapped.top_changed, swapped.lists_changed) == (found.top_changed, found.lists_changed)
    assert swapped.scores.max_abs == found.scores.max_abs
    same = labelled(data, a, a)
    assert (same.top_changed, same.lists_changed, same.scores.changed, same.examples) == (0, 0, 0, ())


def labelled(data: st.DataObject, a: list[Any], b: list[Any]) -> LabelColumn:
    schema = pa.schema([("labels", pa.list_(pa.string())), ("scores", pa.list_(pa.float32()))])
    batches = [
        pa.RecordBatch.from_pylist(
            [{"labels": [n for n, _ in row], "scores": [s for _, s in row]} for row in rows], schema
        )
        for rows in (a, b)
    ]
    measure = Labels(schema.field("scores"), "", 2)
    for first, stop in cuts(data, len(a)):
        mine, other = (batch.slice(first, stop - first) for batch in batches)
        measure.add(mine, other, place(first))
    return measure.result()


SINGLE: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.large_string(), st.text(max_size=4)),
    (pa.int64(), st.integers(0, 2)),
    (pa.bool_(), st.booleans()),
    (pa.binary(), st.binary(max_size=2)),
    (pa.binary(1), st.binary(min_size=1, max_size=1)),
    (pa.date32(), st.sampled_from([date(2026, 1, 1), date(2026, 1, 2)])),
    (pa.timestamp("us"), st.datetimes()),
    (pa.decimal128(3), st.sampled_from([Decimal(1), Decimal(2)])),
    (pa.null(), st.none()),
    (pa.dictionary(pa.int32(), pa.string()), WORDS),
    (pa.list_(pa.string()), st.lists(WORDS, max_size=2)),
    (pa.large_list(pa.int64()), st.lists(st.integers(0, 1), max_size=3)),
    (pa.list_(pa.list_(pa.uint8())), st.lists(st.lists(st.integers(0, 1), max_size=2), max_size=2)),
    (pa.list_(pa.bool_(), 2), st.lists(st.booleans(), min_size=2, max_size=2)),
]


@pytest.mark.parametrize(("type", "values"), SINGLE, ids=[str(type) for type, _ in SINGLE])
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_what_is_the_same_or_not(
    type: pa.DataType, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.tuples(st.none() | values, st.none() | values), min_size=1, max_size=10))
    a, b = ([row[side] for row in rows] for side in (0, 1))
    field = pa.field("c", type)
    assert not isinstance(form(field), str)
    arrays = [pa.array(side, type) for side in (a, b)]
    found: ChangeColumn = measured(data, Changes(field, field, "", 3), *arrays)
    changed = [row for row, (x, y) in enumerate(rows) if x != y]
    assert (found.rows, found.changed) == (len(rows), len(changed))
    assert [one.place.window for one in found.examples] == changed[:3]
    assert measured(data, Changes(field, field, "", 3), *reversed(arrays)).changed == len(changed)


def test_lists_of_lists_are_alike_on_every_level() -> None:
    rows, others = [[[1], [2, 3]], [[1]]], [[[1, 2], [3]], [[1]]]
    for type in (pa.float32(), pa.uint8()):
        field = pa.field("c", pa.list_(pa.list_(type)))
        arrays = pa.array(rows, field.type), pa.array(others, field.type)
        if pa.types.is_floating(type):
            far = Numbers(field, field, "", None)
            far.add(*arrays, place(0))
            assert (far.result().lengths, far.result().rows) == (1, 1)
        else:
            changes = Changes(field, field, "", 0)
            changes.add(*arrays, place(0))
            assert (changes.result().changed, changes.result().rows) == (1, 2)


def test_whole_number_tensors_are_the_same_or_not() -> None:
    type = pa.fixed_shape_tensor(pa.int32(), [2])
    field = pa.field("tokens", type)
    a, b = (
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(v, np.int32))
        for v in ([[1, 2], [3, 4]], [[1, 2], [3, 5]])
    )
    measure = Changes(field, field, "int32 [2]", 1)
    measure.add(a, b, place(0))
    found = measure.result()
    assert (found.rows, found.changed) == (2, 1)
    assert [(one.place.window, one.a, one.b) for one in found.examples] == [(1, "[3, 4]", "[3, 5]")]


def test_examples_of_long_texts_begin_shortly_before_they_part() -> None:
    field = pa.field("filled", pa.large_string())
    measure = Changes(field, field, "", 5)
    a, b = "x" * 100 + "cat" + "y" * 100, "x" * 100 + "dog" + "y" * 100
    measure.add(pa.array([a, "ab", None]), pa.array([b, "abc", "n"]), place(0))
    [far, longer, null] = measure.result().examples
    assert far.a == "..." + "x" * 20 + "cat" + "y" * 37 + "..."
    assert far.b == "..." + "x" * 20 + "dog" + "y" * 37 + "..."
    assert (longer.a, longer.b, null.a, null.b) == ("ab", "abc", "None", "n")


SPANS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), max_size=6)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(SPANS, SPANS), min_size=1), st.data())
def test_files_are_paired_by_the_spans_that_they_share(spans: dict[str, Any], data: st.DataObject) -> None:
    def index(side: int) -> pa.Table:
        rows = []
        for item, both in spans.items():
            stop = 0
            for gap, length, good in both[side]:
                first, stop = stop + gap, stop + gap + length
                part = f"{side}-{data.draw(st.integers(0, 3))}" if good else None
                rows.append(
                    {"item_id": item, "version": "", "uri": "", "member": None, "first": first, "stop": stop,
                     "run_id": "", "shard": 0, "part": part, "error": None if good else "E"}
                )  # fmt: skip
        return pa.Table.from_pylist(data.draw(st.permutations(rows)), INDEX)

    a, b = index(0), index(1)
    chosen = data.draw(st.lists(st.sampled_from("abcd"), unique=True))
    found = list(pairs(a, b, pa.array(chosen, pa.string())))
    expected = {
        (x["part"], y["part"])
        for x in a.to_pylist()
        for y in b.to_pylist()
        if x["item_id"] == y["item_id"] in chosen and x["part"] and y["part"]
        and x["first"] < y["stop"] and y["first"] < x["stop"]
    }  # fmt: skip
    assert {(pair.a, b) for pair in found for b in pair.b} == expected
    assert len({pair.a for pair in found}) == len(found)
    for pair in found:
        held = {row["item_id"] for row in a.to_pylist() if row["part"] == pair.a}
        assert {*pair.items.to_pylist()} == held & {*chosen}


VIDEO, TEXT = ("window", "start_time"), ("window", "start")
KEYS = {
    "multimodal-autoencoding": VIDEO, "video-classification": VIDEO, "image-classification": (),
    "optical-flow": VIDEO, "masked-lm": TEXT, "text-classification": TEXT, "decode": (),
}  # fmt: skip
LATENTS = {
    "PerceiverForMultimodalAutoencoding": VIDEO, "PerceiverForMaskedLM": TEXT,
    "PerceiverForSequenceClassification": TEXT,
}  # fmt: skip


def test_rows_of_every_task_are_told_apart() -> None:
    """By item alone, or by the window's number and place; no other column of a task's is called as these are."""
    configs = {one.architecture: one.config for one in PUBLISHED.values()}
    for task in TASKS:
        for name in task.architectures:
            config = configs.get(name, PerceiverConfig(architectures=(name,)))
            schema = pa.schema([pa.field("item_id", pa.string()), *task().output_schema(config)])
            expected = KEYS[task.name] if task.name in KEYS else LATENTS.get(name, ())
            assert Columns(schema, schema, [], 0).keys == ("item_id", *expected), (task.name, name)
