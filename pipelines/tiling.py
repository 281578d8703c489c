"""Frames of any size as tiles of the model's, and these pasted back to frames.

Tiles and their weights are optical flow's: what is smaller than a tile is in the middle of one, its border repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from perceiver_core.tiles import tile_corners, tile_weights
from pipelines.describing import column

Pixels = npt.NDArray[np.uint8]  # (T, H, W, 3)
Size = tuple[int, int]  # height, width

#: Where a tile is, in pixels of the source's frame as it is shown. `picture_*` says where in the window that part is.
TILE = (
    column("tile_top", pa.int32(), "the source's row, in pixels, that the tile's picture begins with"),
    column("tile_left", pa.int32(), "the source's column, in pixels, that the tile's picture begins with"),
    column("frame_height", pa.int32(), "of the source's frame, in pixels, as it is shown"),
    column("frame_width", pa.int32(), "of the source's frame, in pixels, as it is shown"),
)


@dataclass(frozen=True)
class Tile:
    """A part of a frame, and where it is in the model's."""

    top: int  #: in the source's frame
    left: int
    box: tuple[int, int, int, int]  #: in the model's: top, left, height, width


@dataclass(frozen=True)
class Part:
    """What has become of a tile: pixels (T, h, w, 3), a tile's or those in its box, and how much each counts."""

    top: int
    left: int
    pixels: Pixels
    weights: npt.NDArray[np.float32]  #: (h, w)

    @property
    def place(self) -> tuple[slice, slice]:
        height, width = self.weights.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def tiles_of(frame: Size, size: Size, overlap: int) -> list[Tile]:
    """The tiles of this size that cover a frame, in rows; neighbours share `overlap` pixels or more."""
    height, width = (min(sides) for sides in zip(frame, size, strict=True))
    padded_height, padded_width = (max(sides) for sides in zip(frame, size, strict=True))
    box = ((size[0] - height) // 2, (size[1] - width) // 2, height, width)
    return [Tile(top, left, box) for top, left in tile_corners(padded_height, padded_width, size, overlap)]


def cut(video: Pixels, tile: Tile, size: Size) -> Pixels:
    """A tile (T, h, w, 3) of frames (T, H, W, 3)."""
    top, left, height, width = tile.box
    part = video[:, tile.top : tile.top + height, tile.left : tile.left + width]
    around = (top, size[0] - top - height), (left, size[1] - left - width)
    return np.pad(part, ((0, 0), *around, (0, 0)), mode="edge") if (height, width) != size else part


def part_of(video: Pixels, tile: Tile) -> Part:
    """The part of the frame that a tile (T, h, w, 3) shows, without what is repeated around it."""
    top, left, height, width = tile.box
    box = slice(top, top + height), slice(left, left + width)
    return Part(tile.top, tile.left, video[:, *box], tile_weights((video.shape[1], video.shape[2]))[box])


def pasted(parts: Sequence[Part], frame: Size) -> Iterator[Pixels]:
    """The frames (H, W, 3) that parts make up, each pixel the weighted mean of those there are; one at a time."""
    total = np.zeros(frame, np.float32)  # H, W
    for part in parts:
        total[part.place] += part.weights
    shares = [(part.weights / total[part.place])[..., None] for part in parts]  # h, w, 1
    for t in range(len(parts[0].pixels)):
        whole = np.zeros((*frame, 3), np.float32)  # H, W, 3
        for part, share in zip(parts, shares, strict=True):
            whole[part.place] += share * part.pixels[t]
        yield np.rint(whole).astype(np.uint8)
