"""Quality: SSIM by its definition, histograms against numpy, and what is read of parts."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality import Histogram, Quality, measure, ssim, take
from pipelines.storage import Storage, open_storage

NOISE = np.random.default_rng(0)


def picture(height: int = 24, width: int = 31) -> np.ndarray:
    return NOISE.integers(0, 256, (height, width, 3), dtype=np.uint8)


def ssim_by_definition(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. (2004), equation 13, window by window: weighted means, variances and covariances."""
    at = np.arange(11) - 5
    weights = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for channel in range(3):
        x, y = one[..., channel].astype(float), other[..., channel].astype(float)
        for top in range(x.shape[0] - 10):
            for left in range(x.shape[1] - 10):
                a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                found.append(
                    (2 * mean_a * mean_b + c1) * (2 * both + c2)
                    / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
                )  # fmt: skip
    return float(np.mean(found))


@pytest.mark.parametrize("blend", [0.0, 0.3, 0.9])
def test_ssim_is_that_of_its_definition(blend: float) -> None:
    one, noise = picture(), picture()
    other = (one * (1 - blend) + noise * blend).astype(np.uint8)
    assert ssim(one, other) == pytest.approx(ssim_by_definition(one, other), abs=1e-12)


def test_ssim_of_what_is_known() -> None:
    one = picture()
    assert ssim(one, one) == pytest.approx(1)
    # Flat pictures: only the luminance term is left.
    black, white = np.zeros_like(one), np.full_like(one, 255)
    c1 = (0.01 * 255) ** 2
    assert ssim(black, white) == pytest.approx(c1 / (255**2 + c1))
    y, x = np.mgrid[:32, :32]
    ramp = np.stack([8 * x, 8 * y, 4 * (x + y)], -1).astype(np.uint8)
    assert ssim(ramp, ramp[::-1].copy()) == pytest.approx(ssim_by_definition(ramp, ramp[::-1]), abs=1e-12)
    assert ssim(one[:10], one[:10]) is None
    with pytest.raises(
        ValueError, match=r"expected two pictures of one shape; got \(24, 31, 3\) and \(23, 31, 3\)"
    ):
        ssim(one, one[:-1])


VALUES = st.lists(st.floats(-20, 80) | st.sampled_from([math.inf, -math.inf, math.nan]), max_size=60)


@given(VALUES, VALUES)
def test_histograms_count_everything_once(first: list[float], then: list[float]) -> None:
    spread = Histogram(0, 60, 60)
    spread.add(first)
    spread.add(then)
    values = np.array([*first, *then], float)
    known = values[~np.isnan(values)]
    assert (spread.total, spread.unknown) == (len(known), len(values) - len(known))
    assert (spread.below, spread.above) == ((known < 0).sum(), (known > 60).sum())
    finite = known[np.isfinite(known)]
    if len(finite):
        assert spread.mean == pytest.approx(finite.mean())
    for share in (0.05, 0.5, 0.95):
        found = spread.quantile(share)
        if not len(known):
            assert found is None
            continue
        exact = np.sort(known)[max(0, math.ceil(share * len(known)) - 1)]
        assert found is not None
        if 0 <= exact <= 60:
            assert found == pytest.approx(exact, abs=1)


def written(folder: Path, name: str, columns: dict[str, Any], format: str) -> str:
    """A part with these columns; one row group or batch every three rows."""
    table = pa.table(columns)
    path = folder / f"{name}.{format}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=3)
    return f"{name}.{format}"


def columns(items: str, **more: Any) -> dict[str, Any]:
    rows = len(items)
    return {
        "item_id": list(items), "uri": [f"/in/{one}" for one in items], "member": pa.array([None] * rows, pa.string()),
        "window": [items[:n].count(items[n]) for n in range(rows)], **more,
    }  # fmt: skip


def measured(folder: Path, parts: list[str], **more: Any) -> Quality:
    return measure(open_storage(str(folder)), parts, seed=1, **{"count": 2, **more})


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_the_best_and_the_worst_of_reconstructions(tmp_path: Path, format: str) -> None:
    video = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((5, 2, 2), np.uint8))
    one = written(tmp_path, "a", columns("aabbc", video_psnr=[30.0, 31, 10, 50, math.inf]), format)
    other = written(tmp_path, "b", columns("dddef", video_psnr=[1.0, 2, 3, math.nan, 20]), format)
    if format == "arrow":
        one = written(
            tmp_path, "a", columns("aabbc", video_psnr=[30.0, 31, 10, 50, math.inf], video=video), format
        )
    found = measured(tmp_path, [one, other])
    assert (found.rows, found.parts, found.parts_read, found.by) == (10, 2, 2, "video_psnr")
    assert [(p.item_id, p.window, p.value, p.part) for p in found.best] == [
        ("c", 0, math.inf, one), ("b", 1, 50, one),
    ]  # fmt: skip
    assert [(p.item_id, p.window, p.value) for p in found.worst] == [("d", 0, 1), ("b", 0, 10)]
    spread = found.spreads["video_psnr"]
    assert (spread.total, spread.unknown, spread.above) == (9, 1, 1)
    storage = open_storage(str(tmp_path))
    for picked in (*found.best, *found.worst, *found.random):
        row = take(storage, picked.part, picked.row)
        assert (row["item_id"][0].as_py(), row["window"][0].as_py()) == (picked.item_id, picked.window)
        assert take(storage, picked.part, picked.row, ["uri"]).column_names == ["uri"]
    with pytest.raises(LookupError, match=f"{one} has no row"):
        take(storage, one, 5)


def test_labels_are_counted_by_the_likeliest(tmp_path: Path) -> None:
    labels = [["x", "y"], ["y", "x"], [], ["x"]]
    scores = [[0.75, 0.25], [0.5, 0.5], [], [0.25]]
    typed = {
        "labels": pa.array(labels, pa.list_(pa.string())),
        "scores": pa.array(scores, pa.list_(pa.float32())),
    }
    found = measured(tmp_path, [written(tmp_path, "a", columns("abcd", **typed), "parquet")])
    assert (found.labels, found.unlabelled, found.by) == ({"x": 2, "y": 1}, 1, "label")
    assert [picked.item_id for picked in found.best] == ["a", "b"]
    assert [picked.item_id for picked in found.worst] == ["d", "b"]
    assert found.spreads["label"].total == 3


def test_fills_are_scored_by_their_mean(tmp_path: Path) -> None:
    scores = pa.array([[[0.5, 0.1], [1.0]], [], [[0.25]]], pa.list_(pa.list_(pa.float32())))
    found = measured(tmp_path, [written(tmp_path, "a", columns("abc", scores=scores), "parquet")])
    assert [(picked.item_id, picked.value) for picked in found.best] == [("a", 0.75), ("c", 0.25)]
    assert found.spreads["fill"].total == 3
    assert found.by == "fill"


def test_rows_that_say_nothing_are_chosen_by_chance_the_same_each_time(tmp_path: Path) -> None:
    part = written(tmp_path, "a", columns("abcdefghij" * 3), "parquet")
    found = measured(tmp_path, [part])
    assert (found.by, found.best, found.worst, found.spreads) == (None, (), (), {})
    assert len(found.random) == 6
    assert len({picked.item_id for picked in found.random}) == 6
    # Where items are few, more rows of each.
    few = measured(tmp_path, [written(tmp_path, "b", columns("aaaabbbb"), "parquet")])
    assert [picked.item_id for picked in few.random[:2]] in (["a", "b"], ["b", "a"])
    assert len({picked.row for picked in few.random}) == len(few.random) == 6
    assert found == measured(tmp_path, [part])


def test_scores_that_are_tensors_are_no_lists(tmp_path: Path) -> None:
    scores = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3, 4), np.float32))
    found = measured(tmp_path, [written(tmp_path, "a", columns("ab", scores=scores), "arrow")])
    assert (found.rows, found.by) == (2, None)


def test_of_many_parts_some_are_read_evenly(tmp_path: Path) -> None:
    part = columns("ab", video_psnr=[20.0, 30])
    parts = [written(tmp_path, f"{n:02}", part, "arrow") for n in range(20)]
    seen: list[int] = []
    found = measured(tmp_path, parts, most_parts=4, seen=seen.append)
    assert (found.rows, found.parts_read, found.parts) == (8, 4, 20)
    assert {picked.part for picked in found.random} <= {f"{n:02}.arrow" for n in (0, 5, 10, 15)}
    assert seen == [1, 2, 3, 4]


ROWS = st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 50)), min_size=1, max_size=40)


@given(ROWS, st.integers(1, 4))
def test_of_each_item_its_best_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], parts: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    names = []
    for n in range(parts):
        mine = rows[n::parts]
        if mine:
            psnrs = [float(value) for _, value in mine]
            names.append(
                written(folder, f"{n}", columns("".join(i for i, _ in mine), video_psnr=psnrs), "arrow")
            )
    best = {item: max(v for i, v in rows if i == item) for item, _ in rows}
    found = measured(folder, names, count=3)
    assert [picked.value for picked in found.best] == sorted(best.values(), reverse=True)[:3]
    assert all(best[picked.item_id] == picked.value for picked in found.best)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def test_no_parts_are_no_rows(storage: Storage) -> None:
    assert measure(storage, [], seed=0, count=1).rows == 0
