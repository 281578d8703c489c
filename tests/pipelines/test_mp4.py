"""One MP4, checked by decoding it."""

import re
import resource
import string
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.mp4 import Shot, mp4_name, write_mp4

RATE = 48_000
FLASHES = (20, 70)  # frames that are white and beep


def shots(
    frames: int, size: tuple[int, int] = (48, 64), rate: int = RATE, heard: float = 1.0
) -> Iterator[Shot]:
    """Windows of 16 frames, black and silent but for the flashes; sound ends after `heard` of the whole."""
    step = rate // 25
    beep = 1.5 * np.sin(2 * np.pi * 1000 * np.arange(step) / rate).astype(
        np.float32
    )  # clipped, as it should be
    for first in range(0, frames, 16):
        real = min(16, frames - first)
        video, audio = np.zeros((real, *size, 3), np.uint8), np.zeros(real * step, np.float32)
        for frame in FLASHES:
            if first <= frame < first + real:
                video[frame - first] = 255
                audio[(frame - first) * step :][:step] = beep
        yield Shot(video, audio[: max(0, int(heard * frames * step) - first * step)])


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def sound(path: Path) -> np.ndarray:
    """The samples from time 0 on."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    assert frames[0].time == 0
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


@pytest.mark.parametrize("rate", [48_000, 24_000])
def test_flash_and_beep_come_together(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, shots(117, rate=rate), 25, rate)
    with av.open(str(path)) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        assert (video.codec_context.name, video.average_rate, video.pix_fmt) == ("h264", 25, "yuv420p")
        assert (audio.codec_context.name, audio.rate, audio.layout.name) == ("aac", RATE, "mono")
        assert video.start_time == audio.start_time == 0
        for stream in (video, audio):
            assert float(stream.duration * stream.time_base) == pytest.approx(117 / 25, abs=0.001)
    shown, heard = pictures(path), sound(path)
    assert len(shown) == 117
    assert tuple(n for n, picture in enumerate(shown) if picture.mean() > 128) == FLASHES
    loud = np.flatnonzero(np.abs(heard) > 0.2) / RATE
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-1) > 0.5)]
    np.testing.assert_allclose(starts, np.array(FLASHES) / 25, atol=0.002)
    assert np.abs(heard).max() < 1.1  # clipped before it was encoded


def test_a_browser_can_start_before_it_has_the_whole_file(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", shots(20), 25, RATE)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_colours_come_back(tmp_path: Path) -> None:
    wanted = np.array([[200, 40, 30], [20, 180, 60], [40, 60, 220]], np.uint8)
    video = np.broadcast_to(np.repeat(wanted, 16, 0), (16, 48, 48, 3))
    write_mp4(tmp_path / "a.mp4", [Shot(video, np.empty(0, np.float32))], 25, RATE)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert not file.streams.audio
    for picture in pictures(tmp_path / "a.mp4"):
        assert np.abs(picture[24, 8::16].astype(int) - wanted).max() <= 6


@pytest.mark.parametrize("size", [(47, 63), (1, 1), (224, 224)])
def test_odd_sizes_repeat_their_last_row_and_column(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    picture = np.linspace(0, 255, height * width).reshape(height, width, 1).astype(np.uint8)
    video = np.broadcast_to(picture, (4, height, width, 3))
    write_mp4(tmp_path / "a.mp4", [Shot(video, np.empty(0, np.float32))], 25, RATE)
    shown = pictures(tmp_path / "a.mp4")[0]
    assert shown.shape == (height + height % 2, width + width % 2, 3)
    padded = np.pad(video[0], ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(int)
    assert np.abs(shown - padded).mean() < 4


def test_sound_may_end_before_the_pictures(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", shots(100, heard=0.5), 25, RATE)
    assert len(pictures(tmp_path / "a.mp4")) == 100
    assert abs(len(sound(tmp_path / "a.mp4")) / RATE - 2) < 1024 / RATE


def test_sound_that_is_no_number_is_silence(tmp_path: Path) -> None:
    [shot] = shots(16)
    shot.audio[100:200] = np.nan
    shot.audio[300] = np.inf
    write_mp4(tmp_path / "a.mp4", [shot], 25, RATE)
    assert np.isfinite(sound(tmp_path / "a.mp4")).all()


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (16, 240, 240, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(av.FFmpegError, match="File too large"):
            write_mp4(tmp_path / "a.mp4", [Shot(noise, np.empty(0, np.float32))] * 4, 25, RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/in/cat.mp4", "cat"),
        ("/in/a b (1).tar.mkv", "a_b__1_.tar"),
        ("/in/noend", "noend"),
        ("/in/Été 日本.mp4", "Été_日本"),
        ("/in/..mp4", "_"),
        ("/in/--help.mp4", "help"),
        ("/in/" + "x" * 300 + ".mp4", "x" * 160),
        ("/in/a\n\u202egpj\x00.mp4", "a__gpj_"),
        ("/in/\udcff.mp4", "_"),
    ],
)
def test_names(uri: str, name: str) -> None:
    assert mp4_name(uri, "0123456789abcdef") == f"video/{name}-0123456789abcdef.mp4"


@given(st.text(st.characters()), st.text(string.hexdigits, min_size=16, max_size=16))
def test_any_name_is_safe(uri: str, item_id: str) -> None:
    folder, name = mp4_name(uri, item_id).split("/")
    assert folder == "video"
    assert re.fullmatch(r"[\w.-]+", name)
    assert name.isprintable()
    assert len(name.encode()) <= 255
    assert name[0] not in ".-"
    assert name.endswith(f"-{item_id}.mp4")
