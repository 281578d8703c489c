"""A video's own frames: how many there are, and the same ones from any number on."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.limits import LimitError, Limits
from pipelines.media import frames as module
from pipelines.media.container import MediaError
from pipelines.media.frames import index_frames, read_frames
from tests.clips import write_clip

VFR = [0, 5, 40, 41, 42, 300, 900, 901, 1000, 1001, 1500, 1503, 1900]
CLIPS: dict[str, dict[str, Any]] = {
    "plain.mp4": {"frames": 30},
    "bframes.mp4": {"frames": 41, "bframes": 3, "gop": 10},
    "ntsc.mkv": {"frames": 33, "fps": Fraction(30_000, 1001), "bframes": 2},
    "vfr.mkv": {"frames": len(VFR), "pts": VFR, "time_base": Fraction(1, 1000)},
    "late.mkv": {"frames": len(VFR), "pts": [700 + t for t in VFR], "time_base": Fraction(1, 1000)},
    "vp9.webm": {"frames": 25, "codec": "libvpx-vp9"},
    "hevc.mp4": {"frames": 25, "codec": "libx265", "bframes": 3},
    "one.mp4": {"frames": 1},
    "turned.mp4": {"frames": 4, "rotation": 90},
    "sound.mp4": {"frames": 20, "audio_codec": "aac"},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, about in CLIPS.items():
        write_clip(folder / name, **about)
    return folder


def oracle(path: Path) -> list[tuple[int, float, np.ndarray]]:
    """Decode everything, in the plainest way."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = list(container.decode(stream))
        turns = [round(frame.rotation / 90) % 4 for frame in shown]
        start, base = shown[0].pts, stream.time_base
        assert start is not None
        assert base is not None
        return [
            (n, float(((f.pts or 0) - start) * base), np.rot90(f.to_ndarray(format="rgb24"), turns[n]))
            for n, f in enumerate(shown)
        ]


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("nearest", [1, 7, 64])
def test_every_frame_by_its_number(
    name: str, nearest: int, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NEAREST", nearest)
    expected = oracle(clips / name)
    with (clips / name).open("rb") as file:
        index = index_frames(file, Limits())
        assert index.frames == len(expected) == CLIPS[name]["frames"]
        assert (index.height, index.width) == expected[0][2].shape[:2]
        assert len(index.anchors) == -(-index.frames // nearest)
        for first in range(0, index.frames, 4):
            wanted = [n for n in (first, first + 1, first + 5) if n < index.frames]
            got = list(read_frames(file, index, wanted))
            assert [number for number, _, _ in got] == wanted
            for number, seconds, image in got:
                assert seconds == expected[number][1]
                assert np.array_equal(image, expected[number][2])


@settings(max_examples=25, deadline=None)
@given(wanted=st.sets(st.integers(0, 40), max_size=8), nearest=st.integers(1, 45))
def test_any_frames(wanted: set[int], nearest: int, clips: Path) -> None:
    expected = oracle(clips / "bframes.mp4")
    with pytest.MonkeyPatch.context() as patch, (clips / "bframes.mp4").open("rb") as file:
        patch.setattr(module, "_NEAREST", nearest)
        index = index_frames(file, Limits())
        got = {number: image for number, _, image in read_frames(file, index, sorted(wanted))}
        assert got.keys() == wanted
        assert all(np.array_equal(image, expected[number][2]) for number, image in got.items())


def test_an_index_of_a_long_video_is_short(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEAREST", 1)
    monkeypatch.setattr(module, "_ANCHORS", 4)
    with (clips / "bframes.mp4").open("rb") as file:
        index = index_frames(file, Limits())
    assert (index.step, len(index.anchors)) == (11, 4)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(frames=40), r"frames of a video: 41 are more than the 40 that limits\.frames allows"),
        (
            Limits(duration=1.5),
            r"seconds of a video: 1\.6 are more than the 1\.5 that limits\.duration allows",
        ),
        (Limits(pixels=3000), r"pixels of a frame in stream 0: 3,072 are more than the 3,000"),
    ],
)
def test_limits(limits: Limits, message: str, clips: Path) -> None:
    with (clips / "bframes.mp4").open("rb") as file, pytest.raises(LimitError, match=message):
        index_frames(file, limits)


def test_a_video_cut_short_is_no_video(clips: Path, tmp_path: Path) -> None:
    data = (clips / "ntsc.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    with (tmp_path / "cut.mkv").open("rb") as file, pytest.raises(MediaError, match="truncated"):
        index_frames(file, Limits())


def test_another_file_than_the_one_that_was_counted(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEAREST", 4)
    with (clips / "bframes.mp4").open("rb") as file:
        index = index_frames(file, Limits())
    with (clips / "plain.mp4").open("rb") as file, pytest.raises(MediaError) as caught:
        list(read_frames(file, index, range(41)))
    assert "corrupt video" in str(caught.value)
