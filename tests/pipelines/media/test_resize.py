"""The picture recipe against an obvious float one."""

import numpy as np
import pytest

from pipelines.media.resize import centre_square, letterbox, picture_box, resize


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """One pixel at a time, in doubles."""
    out = np.zeros((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            u = min(max((x + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            upper = image[top, left] * (1 - (u - left)) + image[top, right] * (u - left)
            lower = image[bottom, left] * (1 - (u - left)) + image[bottom, right] * (u - left)
            out[y, x] = upper * (1 - (v - top)) + lower * (v - top)
    return out


@pytest.mark.parametrize("source", [(48, 48), (17, 17), (90, 90), (33, 50), (1, 1), (24, 24), (7, 3)])
def test_resize_is_bilinear(source: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*source, 3), dtype=np.uint8)
    got = resize(image, 24, 24)
    assert got.dtype == np.uint8
    # Fixed point with 11 bits, two of which are dropped between the passes: off by at most one.
    assert np.abs(got - bilinear(image, 24, 24)).max() < 1.0


def test_resize_of_constant_and_of_same_size() -> None:
    assert (resize(np.full((31, 31, 3), 255, np.uint8), 224, 224) == 255).all()
    image = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert np.array_equal(resize(image, 24, 24), image)


def test_resize_equals_opencv() -> None:
    """Values that cv2.resize(..., INTER_LINEAR) of OpenCV 5.0.0 gave."""
    image = (np.arange(7 * 7 * 3) * 37 % 256).astype(np.uint8).reshape(7, 7, 3)
    assert resize(image, 4, 4)[:, :, 0].tolist() == [
        [45, 207, 177, 116],
        [61, 223, 193, 131],
        [76, 43, 209, 147],
        [92, 30, 225, 163],
    ]


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(10, 17, 0, 3), (17, 10, 3, 0), (9, 9, 0, 0), (9, 6, 1, 0)]
)
def test_centre_square(height: int, width: int, top: int, left: int) -> None:
    image = np.arange(height * width).reshape(height, width, 1).astype(np.uint8)
    side = min(height, width)
    assert np.array_equal(centre_square(image), image[top : top + side, left : left + side])


@pytest.mark.parametrize(
    ("source", "target", "box"),
    [
        ((48, 64), (24, 32), (0, 0, 24, 32)),
        ((64, 48), (24, 32), (0, 7, 24, 18)),
        ((36, 64), (24, 32), (3, 0, 18, 32)),
        ((1, 1000), (24, 32), (11, 0, 1, 32)),  # a line stays one
        ((3, 4), (24, 32), (0, 0, 24, 32)),  # small ones grow
    ],
)
def test_picture_box(source: tuple[int, int], target: tuple[int, int], box: tuple[int, ...]) -> None:
    assert picture_box(source, target) == box


def test_letterbox() -> None:
    image = np.random.default_rng(0).integers(1, 256, (36, 64, 3), dtype=np.uint8)
    whole = letterbox(image, 24, 32, (3, 0, 18, 32))
    assert np.array_equal(whole[3:21], resize(image, 18, 32))
    assert not whole[:3].any()
    assert not whole[21:].any()
