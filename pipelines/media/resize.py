"""The published recipe for pictures: the centre square, then bilinear without antialiasing, as cv2.resize.

Or all of the picture by the same bilinear, between black bars.
"""

import functools
from typing import Literal

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Fit = Literal["crop", "letterbox"]  #: the centre, as published, or the whole picture between bars
BITS = 11  # OpenCV's fixed point: weights are multiples of 1/2048


def centre_square(image: Image) -> Image:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = height // 2 - side // 2, width // 2 - side // 2
    return image[top : top + side, left : left + side]


def picture_box(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where in a frame of (height, width) `target` a whole picture of `source` lies: top, left, height, width."""
    scale = min(target[0] / source[0], target[1] / source[1])
    height, width = (max(1, min(t, round(s * scale))) for s, t in zip(source, target, strict=True))
    return (target[0] - height) // 2, (target[1] - width) // 2, height, width


def letterbox(image: Image, height: int, width: int, box: tuple[int, int, int, int]) -> Image:
    """(H, W, C) to (height, width, C), the picture in its box and black around it."""
    top, left, rows, columns = box
    whole = np.zeros((height, width, image.shape[2]), np.uint8)
    whole[top : top + rows, left : left + columns] = resize(image, rows, columns)
    return whole


def resize(image: Image, height: int, width: int) -> Image:
    """(H, W, C) uint8 to (height, width, C); only the rows and columns that count are read."""
    if image.shape[:2] == (height, width):
        return image
    channels = image.shape[2]
    rows, row_weights = _taps(image.shape[0], height)
    columns, column_weights = _taps(image.shape[1], width)
    # (2, height, 2, width * channels): each output's two rows by its two columns.
    lines = image[rows].reshape(2 * height, -1)
    places = (columns[:, :, None] * channels + np.arange(channels)).reshape(2, -1)
    weights = np.repeat(column_weights, channels, axis=1)
    across = lines.take(places[0], axis=1) * weights[0]
    across += lines.take(places[1], axis=1) * weights[1]
    # OpenCV drops 4 bits before the second pass and 16 after it, so that 16-bit SIMD can do it; so do we.
    across >>= 4
    upper = across[:height] * row_weights[0][:, None] >> 16
    lower = across[height:] * row_weights[1][:, None] >> 16
    total = (upper + lower + 2) >> 2
    return total.astype(np.uint8).reshape(height, width, channels)


@functools.lru_cache(maxsize=64)
def _taps(source: int, target: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """The two source indices of each target pixel, (2, target), and their integer weights."""
    centre = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    low = np.floor(centre).astype(np.intp)
    fraction = centre - low.astype(np.float32)
    weights = np.rint(np.stack([1 - fraction, fraction]) * (1 << BITS)).astype(np.int32)
    return np.clip(np.stack([low, low + 1]), 0, source - 1), weights  # beyond the edge, the edge repeats
