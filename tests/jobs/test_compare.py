"""perceive compare: two outputs over the same items, whatever files their rows are in."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jobs
from jobs.cli import main
from jobs.cli.compare import above
from jobs.comparing.allowed import exceeded
from jobs.comparing.comparison import Comparison, ComparisonError, Few, Rows, Skipped, Types
from jobs.errors import OutputError, UnknownRunError, exit_code
from jobs.garbage import collect
from pipelines import reader
from pipelines.describing import file_column
from pipelines.tensors import ragged
from tests.jobs.bucket import OPTIONS, Bucket, fill
from tests.jobs.inprocess import Kill
from tests.jobs.tables import WINDOW, Given, Output, of, tensor
from tests.pipelines.committing import NoProgress

VIDEO = pa.schema([WINDOW, tensor("video", pa.uint8(), 2, 2, 3)])
AUDIO = pa.schema([WINDOW, tensor("audio", pa.float32(), 4)])
SCORE = pa.schema([WINDOW, pa.field("score", pa.float32())])
TEXT = pa.schema([WINDOW, pa.field("filled", pa.large_string())])


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_STATE", str(tmp_path / "state"))


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., tuple[Output, Output]]:
    """Two outputs with these columns; what else is given is B's."""

    def made(columns: pa.Schema, **changes: Any) -> tuple[Output, Output]:
        first = Output(tmp_path / "a", columns, run_id="runa")
        return first, replace(first, folder=tmp_path / "b", run_id="runb", **changes)

    return made


Two = Callable[..., tuple[Output, Output]]


def perceive(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def plain(found: Comparison) -> dict[str, Any]:
    """As JSON has it."""
    return json.loads(json.dumps(asdict(found), allow_nan=False))


# Of runs.


@pytest.mark.parametrize("task", ["text-classification", "latents"])
def test_another_dtype(tmp_path: Path, texts_model: Path, kill: Kill, task: str) -> None:
    bucket = Bucket(tmp_path, texts_model, task)
    fill(bucket, bad="c")
    bucket.put("long", b"a long text " * 20)  # has several windows
    bucket.run()
    model = bucket.document["model"] | {"dtype": "bfloat16"}
    other = str(tmp_path / "other")
    bucket.remove("b")
    bucket.put("e", b"other")
    bucket.put("z", b"new")
    bucket.run(output={"uri": other}, model=model, compute={"batch": 2, "shard_windows": 3})
    found = jobs.compare(bucket.out, other)
    tables = [reader.dataset(out).to_table() for out in (bucket.out, other)]
    rows, there = (table.to_pylist() for table in tables)
    assert found.differences == (
        "dtype was 'float32', is 'bfloat16'",
        "input (1 files added, 1 changed, 1 gone)",
        "shard_windows was 2, is 3",
    )
    assert (found.items.both, found.items.compared) == (6, 5)
    assert found.items.only_a == Few(1, (f"{bucket.folder}/b.txt",))
    assert found.items.only_b == Few(1, (f"{bucket.folder}/z.txt",))
    assert found.items.other_version == Few(1, (f"{bucket.folder}/e.txt",))
    assert found.items.quarantined_both == Few(1, (f"{bucket.folder}/c.txt",))
    assert found.rows == Rows(len(rows) - 2, 0, 0)
    assert (found.a.output, found.b.output, found.a.rows, found.b.rows) == (
        bucket.out,
        other,
        len(rows),
        len(there),
    )
    assert (found.a.runs, found.a.job, found.a.checkpoint) == (1, "texts", str(texts_model))
    own, new = ({(row["uri"], row["window"]): row for row in table} for table in (rows, there))
    shared = [key for key in own if key in new and not key[0].endswith("/e.txt")]
    assert not found.same
    if task == "latents":
        [numbers] = found.numbers
        vectors = [
            dict(zip(keys, reader.to_numpy(table, "latents"), strict=True))
            for keys, table in zip((own, new), tables, strict=True)
        ]
        far = np.abs([np.subtract(vectors[0][key], vectors[1][key], dtype=float) for key in shared])
        assert (numbers.name, numbers.rows, numbers.psnr) == ("latents", len(shared), None)
        assert (numbers.max_abs, numbers.mean_abs) == pytest.approx((far.max(), far.mean()))
        assert 0 < numbers.relative < 0.1
    else:
        assert found.labels
        changed = [key for key in shared if own[key]["labels"][0] != new[key]["labels"][0]]
        assert (found.labels.rows, found.labels.top_changed) == (len(shared), len(changed))
        assert 0 < found.labels.scores.max_abs < 0.1
    # The other way round it is the mirror image; and limited to A's first items, less of it.
    back = jobs.compare(other, bucket.out)
    assert (back.items.only_a, back.items.only_b) == (found.items.only_b, found.items.only_a)
    assert back.rows == found.rows
    less = jobs.compare(bucket.out, other, limit=2, examples=0)
    assert (less.items.compared, less.items.beyond_limit, less.rows) == (2, 3, Rows(2, 0, 0))
    assert less.items.only_a == Few(1)
    # And an output is what it is.
    same = jobs.compare(bucket.out, bucket.out)
    assert same.same
    assert same.rows == Rows(len(rows), 0, 0)
    assert same.differences == ()


def test_tables_of_several_runs_and_of_earlier_ones(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model, "latents")
    fill(bucket, bad="a")
    first = bucket.run()
    bucket.put("a", b"mended")
    bucket.put("b", b"changed")
    second = bucket.run(supersede=True)
    runs = [f"{bucket.out}/runs/{one.run_id}" for one in (first, second)]
    found = jobs.compare(*runs)
    assert (found.a.manifest, found.b.manifest, found.a.runs, found.b.runs) == (1, 2, 1, 2)
    assert found.items.other_version == Few(2, tuple(f"{bucket.folder}/{name}.txt" for name in "ab"))
    assert (found.rows, found.numbers[0].changed) == (Rows(5, 0, 0), 0)
    newest = jobs.compare(bucket.out, runs[1])
    assert (newest.same, newest.a, newest.rows.compared) == (True, newest.b, 7)
    shown = perceive(*runs).output
    assert "B's rows are of 2 runs; its speed is that of the one that closed it." in shown
    collect(bucket.out, 0, False, NoProgress())
    with pytest.raises(ComparisonError) as raised:
        jobs.compare(*runs)
    assert str(raised.value) == (
        f"1 of the 4 files of run {first.run_id}'s table are not in {bucket.out} any more: a later run superseded "
        "them, and perceive gc has deleted them. Compare the newest table, or run the job again into another output."
    )
    assert jobs.compare(runs[1], bucket.out).same


def test_a_run_by_its_id_and_those_that_are_not_done(tmp_path: Path, texts_model: Path, kill: Kill) -> None:
    bucket = Bucket(tmp_path, texts_model)
    fill(bucket)
    result = jobs.run(bucket.job)
    assert jobs.compare(result.run_id[:6], "texts").same
    with pytest.raises(UnknownRunError, match=r"There is no run zz here\."):
        jobs.compare("zz", bucket.out)
    for name in (str(tmp_path / "in"), f"{bucket.out}/runs/zz", str(tmp_path / "none")):
        with pytest.raises(ComparisonError) as raised:
            jobs.compare(bucket.out, name)
        assert str(raised.value) == (
            f"No finished run in {name}: expected manifests/<n>.json there. Name an output's folder or URI, or one of "
            "its runs, OUTPUT/runs/<run-id>; of a run that is not done, run its job to its end first."
        )
    with kill.after(60):
        bucket.run(supersede=True, options=OPTIONS | {"top_k": 3})
    runs = {path.parent.name for path in Path(bucket.out, "runs").glob("*/run.json")}
    [other] = runs - {result.run_id}
    with pytest.raises(ComparisonError) as raised:
        jobs.compare(bucket.out, f"{bucket.out}/runs/{other}")
    assert str(raised.value) == (
        f"Run {other} in {bucket.out} has closed no table. Run its job to its end first: perceive resume {other}"
    )
    assert exit_code(raised.value) == 2


# Of tables whose rows are given.


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


# What can't be compared.


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


# The command.


def test_the_command(two: Two) -> None:
    a, b = two(TEXT)
    b = replace(b, fingerprint={"dtype": "bfloat16"})
    a.write(Given("x", of("filled", "one", "two")))
    b.write(Given("x", of("filled", "one", "tow")))
    done = perceive(a.out, b.out)
    assert done.exit_code == 0
    lines = [line.rstrip() for line in done.stdout.splitlines() if line.strip()]
    assert lines == [
        f"A  {a.out}: 1 items, 2 rows, 0 quarantined; run runa, demo",
        f"B  {b.out}: 1 items, 2 rows, 0 quarantined; run runb, demo",
        "From A to B: dtype was 'float32', is 'bfloat16'",
        "latents: 1 items compared, 2 rows",
        "filled: 1 of 2 rows changed (50.00%)",
        "  /in/x window 1",
        "    A 'two'",
        "    B 'tow'",
        *lines[8:-1],
        f"Next, as a check: perceive compare {a.out} {b.out} --max-changed 0.5",
    ]
    assert "windows/s  not known  not known" in lines[10]
    whole = json.loads(perceive(a.out, b.out, "--json").stdout)
    assert whole == plain(jobs.compare(a.out, b.out)) | {"same": False, "exceeded": [], "exit_code": 0}
    assert "From A to B: nothing, by the two runs' fingerprints" in perceive(a.out, a.out).output
    assert "  Both hold the same.\n" in perceive(a.out, a.out).output


def test_checks_and_their_exit_code(two: Two) -> None:
    a, b = two(SCORE)
    a.write(Given("x", of("score", 1.0, 2.0)))
    b.write(Given("x", of("score", 1.0, 2.125)))
    passed = perceive(a.out, b.out, "--max-abs", "0.13", "--max-changed", "0")
    assert (passed.exit_code, passed.stdout.splitlines()[-2:]) == (
        0, ["They differ by no more than is allowed.", f"Next: perceive status {b.out}"],
    )  # fmt: skip
    failed = perceive(a.out, b.out, "--max-abs", "score=0.1", "--max-abs", "5")
    assert failed.exit_code == 6
    assert "More than is allowed: score differs by 0.125, and 0.1 is allowed\n" in failed.stdout
    told = json.loads(perceive(a.out, b.out, "--max-abs", "0.1", "--json").stdout)
    assert (told["exit_code"], told["exceeded"]) == (6, ["score differs by 0.125, and 0.1 is allowed"])
    # What it offers as a check holds now.
    offered = perceive(a.out, b.out).stdout.splitlines()[-1]
    words = offered.removeprefix("Next, as a check: perceive compare ").split()
    assert words[2:] == ["--max-abs", "score=0.13", "--max-changed", "0"]
    assert perceive(*words).exit_code == 0
    for wrong in ("x", "score=", "nan", "-1", "score=-1"):
        done = perceive(a.out, b.out, "--max-abs", wrong)
        assert done.exit_code == 2
        assert (
            f"expected a number from 0 on, or COLUMN=NUMBER, such as latents=0.01; got {wrong!r}."
            in done.output
        )


@given(st.floats(1e-9, 1e9) | st.sampled_from([0.13, 1.1, 3.0, 0.57, 255.0, math.nextafter(0.13, 1)]))
def test_a_limit_that_is_offered_is_not_below_what_it_was_made_of(value: float) -> None:
    assert value <= float(above(value)) <= value * 1.11


# All of it.


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
