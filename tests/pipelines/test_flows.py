"""Flow in the colours of the Middlebury wheel, and as .flo."""

import struct
from pathlib import Path

import numpy as np
import pytest

from pipelines.flows import flow_name, in_colour, write_flo


def published_wheel() -> list[tuple[int, int, int]]:
    """makecolorwheel() of the benchmark's flow-code/colorcode.cpp, line by line."""
    wheel = [(255, 255 * i // 15, 0) for i in range(15)]
    wheel += [(255 - 255 * i // 6, 255, 0) for i in range(6)]
    wheel += [(0, 255, 255 * i // 4) for i in range(4)]
    wheel += [(0, 255 - 255 * i // 11, 255) for i in range(11)]
    wheel += [(255 * i // 13, 0, 255) for i in range(13)]
    wheel += [(255, 0, 255 - 255 * i // 6) for i in range(6)]
    return wheel


def published_colour(fx: float, fy: float) -> list[int]:
    """computeColor() of the same file."""
    wheel = published_wheel()
    rad = np.sqrt(fx * fx + fy * fy)
    fk = (np.arctan2(-fy, -fx) / np.pi + 1.0) / 2.0 * (len(wheel) - 1)
    k0 = int(fk)
    k1 = (k0 + 1) % len(wheel)
    f = fk - k0
    pixel = []
    for b in range(3):
        col = (1 - f) * wheel[k0][b] / 255.0 + f * wheel[k1][b] / 255.0
        col = 1 - rad * (1 - col) if rad <= 1 else col * 0.75
        pixel.append(int(255.0 * col))
    return pixel


def test_colours_are_the_published_ones() -> None:
    flow = np.random.default_rng(0).normal(0, 0.7, (20, 30, 2)).astype(np.float32)
    expected = [[published_colour(*map(float, pixel)) for pixel in row] for row in flow]
    assert np.abs(in_colour(flow, longest=1.0).astype(int) - expected).max() <= 1  # a float's last bit
    longest = float(np.hypot(*flow.astype(np.float64).transpose(2, 0, 1)).max())
    assert np.array_equal(in_colour(flow), in_colour(flow, longest))


def test_directions_have_known_colours() -> None:
    flow = np.array([[[4, 0], [0, 4], [-4, 0], [0, -4], [0, 0], [np.nan, 1]]], np.float32)
    right, down, left, up, still, unknown = in_colour(flow)[0].tolist()
    assert right == [255, 0, 0]
    assert down[0] > 200
    assert down[1] > 200
    assert down[2] == 0  # yellow
    assert left[0] == 0
    assert left[1] > 150  # cyan
    assert left[2] > 200
    assert up[2] == 255  # violet
    assert up[1] == 0
    assert (still, unknown) == ([255, 255, 255], [0, 0, 0])


def test_no_motion_is_white() -> None:
    assert (in_colour(np.zeros((3, 4, 2), np.float32)) == 255).all()


def test_flo_is_as_published(tmp_path: Path) -> None:
    flow = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    write_flo(tmp_path / "a.flo", flow)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:4] == b"PIEH"
    assert struct.unpack("<ii", data[4:12]) == (3, 2)
    assert struct.unpack("<12f", data[12:]) == tuple(range(12))


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/in/clip.mp4", "flow/clip-0123-000007.png"),
        ("s3://b/.a b/../", "flow/_-0123-000007.png"),
    ],
)
def test_names(uri: str, name: str) -> None:
    assert flow_name(uri, "0123", 7, "png") == name
