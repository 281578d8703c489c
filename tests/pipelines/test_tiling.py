"""Frames in tiles and back: what is pasted is what was cut, and seams are weighted means."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tiling import Part, Tile, cut, part_of, pasted, tiles_of

SIZE = (12, 17)


@given(
    height=st.integers(1, 50), width=st.integers(1, 50), overlap=st.integers(0, 11), seed=st.integers(0, 99)
)
def test_what_was_cut_is_pasted_back(height: int, width: int, overlap: int, seed: int) -> None:
    video = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)
    tiles = tiles_of((height, width), SIZE, overlap)
    pieces = [cut(video, tile, SIZE) for tile in tiles]
    assert {piece.shape for piece in pieces} == {(2, 12, 17, 3)}
    for tile, piece in zip(tiles, pieces, strict=True):
        top, left, rows, columns = tile.box
        part = video[:, tile.top : tile.top + rows, tile.left : tile.left + columns]
        np.testing.assert_array_equal(piece[:, top : top + rows, left : left + columns], part)
    parts = [part_of(piece, tile) for piece, tile in zip(pieces, tiles, strict=True)]
    np.testing.assert_array_equal(np.stack(list(pasted(parts, (height, width)))), video)


def test_tiles_of_a_frame() -> None:
    whole = (0, 0, 12, 17)
    corners = [(0, 0), (0, 14), (0, 23), (8, 0), (8, 14), (8, 23)]  # neighbours share 3 pixels or more
    assert tiles_of((20, 40), SIZE, 3) == [Tile(top, left, whole) for top, left in corners]
    assert tiles_of((12, 17), SIZE, 11) == [Tile(0, 0, whole)]
    assert tiles_of((7, 18), SIZE, 3) == [Tile(0, left, (2, 0, 7, 17)) for left in (0, 1)]


def test_a_frame_smaller_than_a_tile_has_its_border_repeated_around_it() -> None:
    [tile] = tiles_of((2, 3), (5, 6), 1)
    assert tile == Tile(0, 0, (1, 1, 2, 3))
    video = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)[None, ..., None].repeat(3, -1)
    expected = [
        [1, 1, 2, 3, 3, 3],
        [1, 1, 2, 3, 3, 3],
        [4, 4, 5, 6, 6, 6],
        [4, 4, 5, 6, 6, 6],
        [4, 4, 5, 6, 6, 6],
    ]
    assert cut(video, tile, (5, 6))[0, :, :, 0].tolist() == expected


def test_seams_are_means_weighted_by_the_distance_to_the_border() -> None:
    tiles = tiles_of((3, 7), (3, 5), 2)
    assert [(tile.top, tile.left) for tile in tiles] == [(0, 0), (0, 2)]
    parts: list[Part] = []
    for tile, value in zip(tiles, (0, 90), strict=True):
        parts.append(part_of(np.full((1, 3, 5, 3), value, np.uint8), tile))
    [frame] = pasted(parts, (3, 7))
    edge, middle = [0, 0, 45, 45, 45, 90, 90], [0, 0, 30, 45, 60, 90, 90]
    assert frame[:, :, 1].tolist() == [edge, middle, edge]
