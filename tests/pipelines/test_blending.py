"""Neighbours' shared steps: the same in both, on the way from the one to the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.blending import blend


def test_a_seam_is_a_straight_line() -> None:
    steps = np.zeros((2, 5, 1), np.float32)
    steps[0], steps[1] = 8, 4
    blend(steps, [("a", 3), ("a", 4)], 3)
    assert steps[..., 0].tolist() == [[8, 8, 7, 6, 5], [7, 6, 5, 4, 4]]


def test_pixels_are_rounded_once() -> None:
    steps = np.array([[[10], [10]], [[255], [255]]], np.uint8)
    blend(steps, [("a", 0), ("a", 1)], 1)
    assert steps[..., 0].tolist() == [[10, 132], [132, 255]]  # 132.5, to even


@pytest.mark.parametrize("windows", [[("a", 0), ("b", 1)], [("a", 0), ("a", 2)], [("a", 1), ("a", 0)]])
def test_only_neighbours_are_blended(windows: list[tuple[str, int]]) -> None:
    steps = np.arange(8, dtype=np.float32).reshape(2, 4)
    before = steps.copy()
    blend(steps, windows, 2)
    if windows[0][1] > windows[1][1]:  # neighbours in another order are neighbours still
        np.testing.assert_allclose(steps[1, 2:], steps[0, :2])
        assert (steps != before).any()
    else:
        np.testing.assert_array_equal(steps, before)


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_any_part_of_the_windows_gives_the_same(count: int, shared: int, seed: int) -> None:
    """A window needs its two neighbours and nothing else, wherever a shard begins."""
    steps = np.random.default_rng(seed).integers(0, 256, (count, 8, 3), dtype=np.uint8)
    windows = [("a", n) for n in range(count)]
    whole = steps.copy()
    blend(whole, windows, shared)
    for n in range(count):
        near = slice(max(n - 1, 0), n + 2)
        part = steps[near].copy()
        blend(part, windows[near], shared)
        np.testing.assert_array_equal(part[n - near.start], whole[n])
        if shared and n:
            np.testing.assert_array_equal(whole[n, :shared], whole[n - 1, -shared:])
    np.testing.assert_array_equal(whole[:, shared : 8 - shared], steps[:, shared : 8 - shared])
