"""Excerpts: a few seconds of a run as small files."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines import excerpts
from pipelines.excerpts import Clip, clip_of, compared, encoded, jpeg, shots_of_mp4, sized
from pipelines.mp4 import Shot, write_mp4
from tests.clips import moving, tone

RATE = 16_000


def shots(frames: int = 25, size: tuple[int, int] = (48, 32), sound: bool = True) -> list[Shot]:
    """A shot of so many frames, cut in two."""
    pictures = np.stack([moving(n, *size) for n in range(frames)])
    samples = tone(frames * RATE // 25, RATE)[:, 0] if sound else np.empty(0, np.float32)
    cut, at = frames // 2, frames // 2 * RATE // 25 if sound else 0
    return [Shot(pictures[:cut], samples[:at]), Shot(pictures[cut:], samples[at:])]


def test_a_clip_is_the_shots_one_after_the_other() -> None:
    clip = clip_of(shots(), RATE)
    assert (len(clip.pictures), clip.seconds, len(clip.sound)) == (25, 1.0, RATE)
    np.testing.assert_array_equal(clip.pictures[3], sized(moving(3, 48, 32)))
    np.testing.assert_array_equal(clip.sound, tone(RATE, RATE)[:, 0])


def test_two_are_compared_frame_by_frame() -> None:
    made = shots(frames=20)
    for shot in made:
        shot.video[:, :16] = 0
    one, other, alike = compared(shots(), made, (RATE, 2 * RATE))
    assert len(one.pictures) == len(other.pictures) == 20
    assert (one.rate, other.rate) == (RATE, 2 * RATE)
    assert len(alike) == 5  # every fourth
    assert all(0 < value < 0.9 for value in alike)
    assert compared(shots(), shots(), (1, 1))[2] == pytest.approx([1.0] * 7)
    small = [Shot(shot.video[:, :8, :8], shot.audio) for shot in shots()]
    assert compared(small, small, (1, 1))[2] == []


def test_it_becomes_an_mp4_as_small_as_it_must_be() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (25, 96, 96, 3), dtype=np.uint8)
    clip = clip_of([Shot(noise, tone(RATE, RATE)[:, 0])], RATE)
    large = encoded(clip, 10_000_000)
    assert large
    small = encoded(clip, len(large) // 2)
    assert small
    assert len(small) <= len(large) // 2
    assert encoded(clip, 1000) is None
    with av.open(io.BytesIO(small)) as file:
        assert [stream.codec_context.name for stream in file.streams] == ["h264", "aac"]
        assert len(list(file.decode(video=0))) == 25
        assert (file.streams.video[0].width, file.streams.video[0].height) == (192, 192)


def test_a_part_of_an_mp4_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, shots(frames=100, size=(64, 48)), 25, RATE)
    found, rate = shots_of_mp4(lambda: path.open("rb"), 1.28, 0.64)
    pictures = list(found)
    assert (len(pictures), rate) == (16, 48_000)
    assert [len(shot.audio) for shot in pictures] == [round(0.64 * 48_000)] + [0] * 15
    for n, shot in enumerate(pictures):
        expected = moving(32 + n, 64, 48).astype(int)
        assert np.abs(shot.video[0].astype(int) - expected).mean() < 12
        others = [np.abs(moving(m, 64, 48).astype(int) - shot.video[0]).mean() for m in range(28, 52)]
        assert 28 + int(np.argmin(others)) == 32 + n


def test_without_sound_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, shots(sound=False), 25, RATE)
    found, _ = shots_of_mp4(lambda: path.open("rb"), 0, 1)
    assert sum(len(shot.audio) for shot in found) == 0
    clip = clip_of(shots(sound=False), RATE)
    with av.open(io.BytesIO(encoded(clip, 1_000_000) or b"")) as made:
        assert not made.streams.audio


@given(st.integers(1, 700), st.integers(1, 700))
@settings(max_examples=30, deadline=None)
def test_pictures_are_as_large_as_a_page_shows_them(height: int, width: int) -> None:
    shown = sized(np.zeros((height, width, 3), np.uint8))
    longer = max(shown.shape[:2])
    assert longer <= max(excerpts._MOST, 2 * excerpts._LEAST)
    assert longer >= min(excerpts._LEAST, excerpts._MOST)
    if max(height, width) < excerpts._LEAST:
        assert shown.shape[0] % height == shown.shape[1] % width == 0
    assert (
        shown.shape[0] / shown.shape[1] == pytest.approx(height / width, rel=0.05)
        or min(shown.shape[:2]) < 20
    )


def test_every_pixel_of_a_small_picture_is_seen() -> None:
    small = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(sized(small)[8::16, 8::16], small)
    with Image.open(io.BytesIO(jpeg(small))) as image:
        assert image.size == (192, 160)


def test_a_clip_of_nothing_has_no_length() -> None:
    assert Clip([], np.empty(0, np.float32), RATE).seconds == 0
