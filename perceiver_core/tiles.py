"""Tiles: frames of any size cut for a model of one, and blended where they overlap.

The recipe is DeepMind's (deepmind-research, perceiver/colabs/optical_flow.ipynb). Without torch: plans are made by it.
"""

import numpy as np
import numpy.typing as npt

MIN_OVERLAP = 20  # pixels, as published


def tile_corners(
    height: int, width: int, tile_size: tuple[int, int], min_overlap: int = MIN_OVERLAP
) -> list[tuple[int, int]]:
    """The top-left pixels (y, x) of the tiles that cover a frame, in rows.

    Tiles lie as far apart as `min_overlap` allows, and the last ones end with the frame. DeepMind's grid has some tiles
    twice (the only one four times at exactly 368 x 496), which counts them double in the blend, and at some sizes (697
    to 715 rows) tiles that reach beyond the frame; here each is moved inside and listed once.
    """
    if height < tile_size[0] or width < tile_size[1]:
        raise ValueError(f"A frame must be at least a tile, {tile_size}; got {(height, width)}. Pad it.")
    if not 0 <= min_overlap < min(tile_size):
        raise ValueError(
            f"min_overlap must be from 0 to {min(tile_size) - 1}, less than a tile's side; got {min_overlap}. "
            f"Published is {MIN_OVERLAP}."
        )
    rows, columns = (
        sorted({min(start, side - tile) for start in range(0, side, tile - min_overlap)})
        for side, tile in zip((height, width), tile_size, strict=True)
    )
    return [(y, x) for y in rows for x in columns]


def tile_weights(tile_size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """How much a tile counts at each of its pixels (h, w): their distance to its border, 1 at the border itself."""
    rows, columns = (np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)) for side in tile_size)
    return np.minimum(rows[:, None], columns).astype(np.float32)  # (h, w)
