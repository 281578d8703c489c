"""Every codec in every container: what probe says, and that a slice equals that part of the whole, bitwise."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.media.info import MediaInfo, probe
from pipelines.media.windows import Window, WindowShape, count_windows, read_windows
from tests.clips import write_clip
from tests.pipelines.media.reading import SHAPE, assert_slice, load, pictures, read_all, sound

VIDEO = {
    "libx264": (".mp4", ".mov", ".mkv"),
    "libx265": (".mp4", ".mov", ".mkv"),
    "libvpx-vp9": (".mp4", ".mkv", ".webm"),
    "libsvtav1": (".mp4", ".mkv", ".webm"),
}
AUDIO: dict[str, tuple[str | None, ...]] = {
    ".mp4": ("aac", "libopus", "libmp3lame", None),
    ".mov": ("aac", "pcm_s16le", None),
    ".mkv": ("aac", "libopus", "libmp3lame", "pcm_s16le", None),
    ".webm": ("libopus", None),
}
NAMES = {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9", "libsvtav1": "av1"}
SOUNDS = {"libopus": "opus", "libmp3lame": "mp3", None: ""}
PAIRS = [(v, c, a) for v, containers in VIDEO.items() for c in containers for a in AUDIO[c]]


@pytest.mark.parametrize(("codec", "suffix", "audio"), PAIRS, ids=lambda x: str(x).strip("."))
def test_pair(codec: str, suffix: str, audio: str | None, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    bframes = 2 if codec.startswith("libx") else None
    rate = 44_100 if audio in ("aac", "pcm_s16le") else 48_000
    write_clip(path, frames=82, codec=codec, gop=9, bframes=bframes, audio_codec=audio, sample_rate=rate)
    info, whole = read_all(path)
    assert (info.video_codec, info.audio_codec) == (NAMES[codec], SOUNDS.get(audio, audio))
    assert info.container == ("matroska" if suffix in (".mkv", ".webm") else "mp4")
    assert (info.width, info.height, info.rotation, info.start_pts, info.frames) == (64, 48, 0, 0, 82)
    assert info.duration == pytest.approx(82 / 25)
    assert info.has_audio == (audio is not None)
    assert len(whole) == count_windows(info, SHAPE) == 21
    assert [w.frames for w in whole] == [4] * 20 + [2]
    assert np.array_equal(whole[-1].video[2:], whole[-1].video[[1, 1]])
    assert [w.start_time for w in whole[:3]] == [0, 0.16, 0.32]
    if audio:
        assert info.audio_rate == rate
        assert info.audio_start_s == pytest.approx(0, abs=0.001)
        assert 0 <= info.audio_trailing_s < 0.027  # one frame of padding
        assert [w.samples for w in whole] == [7_680] * 20 + [3_840]
        assert all(np.abs(w.audio).max() > 0.1 for w in whole)
        assert not whole[-1].audio[3_840:].any()
    else:
        assert not any(w.samples or w.audio.any() for w in whole)
    for first, stop in ((0, 1), (5, 9), (13, 18), (16, 17), (20, 21)):
        assert_slice(path, info, whole, first, stop)


HARD: dict[str, dict[str, object]] = {
    "b-frames.mp4": {"bframes": 4, "gop": 30, "audio_codec": "aac", "sample_rate": 44_100, "channels": 2},
    "long-gop.mkv": {"gop": 500, "bframes": 2, "audio_codec": "libopus"},
    "open-gop.mp4": {"gop": 10, "bframes": 3, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "open-gop.mkv": {"gop": 10, "bframes": 3, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "open-gop-hevc.mp4": {
        "codec": "libx265",
        "options": {
            "x265-params": "log-level=none:pools=none:frame-threads=1:open-gop=1:scenecut=0:bframes=3:keyint=10"
        },
        "audio_codec": "libmp3lame",
        "sample_rate": 44_100,
    },
    "open-gop-hevc.mkv": {
        "codec": "libx265",
        "options": {
            "x265-params": "log-level=none:pools=none:frame-threads=1:open-gop=1:scenecut=0:bframes=3:keyint=10"
        },
    },
    "intra-refresh.mp4": {"gop": 20, "options": {"intra-refresh": "1"}},
    "fragments.mp4": {
        "gop": 10,
        "audio_codec": "aac",
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "no-index.mkv": {"gop": 10, "audio_codec": "aac", "container_options": {"live": "1"}},
    "altref.webm": {
        "codec": "libvpx-vp9",
        "gop": 20,
        "options": {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"},
        "audio_codec": "libopus",
    },
    "vfr.mp4": {"pts": [i * 40 + i * i % 23 for i in range(130)], "time_base": (1, 1000), "bframes": 3},
    "mp3.mkv": {"audio_codec": "libmp3lame", "sample_rate": 44_100, "gop": 25},
    "8k.mp4": {"audio_codec": "aac", "sample_rate": 8_000, "channels": 2},
}


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, MediaInfo, list[Window]]]:
    folder, clips = tmp_path_factory.mktemp("hard"), {}
    for name, options in HARD.items():
        path = folder / name
        given_base = options.get("time_base")
        base = {"time_base": Fraction(*given_base)} if isinstance(given_base, tuple) else {}
        write_clip(path, frames=130, **{**options, **base})  # type: ignore[arg-type]
        clips[name] = (path, *read_all(path))
    return clips


@pytest.mark.parametrize("name", HARD)
def test_every_start_gives_the_same(name: str, hard: dict[str, tuple[Path, MediaInfo, list[Window]]]) -> None:
    path, info, whole = hard[name]
    assert len(whole) == 33
    for first in range(len(whole)):
        assert_slice(path, info, whole, first, first + 1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(HARD)), ends=st.tuples(st.integers(0, 33), st.integers(0, 33)))
def test_any_slice(
    name: str, ends: tuple[int, int], hard: dict[str, tuple[Path, MediaInfo, list[Window]]]
) -> None:
    path, info, whole = hard[name]
    assert_slice(path, info, whole, min(ends), max(ends))


def test_open_gop_clips_have_leading_pictures(hard: dict[str, tuple[Path, MediaInfo, list[Window]]]) -> None:
    """Without them the tests above would show nothing."""
    for name in ("open-gop.mp4", "open-gop.mkv", "open-gop-hevc.mp4", "open-gop-hevc.mkv"):
        with av.open(str(hard[name][0])) as container:
            packets = [p for p in container.demux(video=0) if p.pts is not None]
        keys = [n for n, p in enumerate(packets) if p.is_keyframe]
        assert sum((packets[n + 1].pts or 0) < (packets[n].pts or 0) for n in keys[1:-1]) > 2


def test_default_shape(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=20, audio_codec="aac")
    _, (one, two) = read_all(path, WindowShape())
    assert one.video.shape == (16, 224, 224, 3)
    assert one.video.dtype == np.uint8
    assert one.audio.shape == (30_720,)
    assert one.audio.dtype == np.float32
    assert (one.frames, one.samples, two.frames, two.samples) == (16, 30_720, 4, 7_680)


def test_wrong_arguments(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=8)
    info = probe(load(path))
    assert list(read_windows(load(path), info, SHAPE, 1, 1)) == []
    with pytest.raises(ValueError, match=r"expected windows within 0\.\.2; got 1\.\.3"):
        list(read_windows(load(path), info, SHAPE, 1, 3))
    with pytest.raises(ValueError, match="expected windows at the probe's 25 fps; got 10"):
        list(read_windows(load(path), info, WindowShape(fps=10), 0, 1))
    with pytest.raises(ValueError, match="expected samples to be a multiple of 16 frames; got 30721"):
        WindowShape(samples=30_721)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "libopus")])
def test_overlapping_windows_are_cuts_of_the_same_stream(suffix: str, codec: str, tmp_path: Path) -> None:
    """Sound too, where a window lies across two of the segments that sound is decoded in."""
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames=83, gop=9, audio_codec=codec)
    info, plain = read_all(path)
    frames, samples = pictures(plain), sound(plain)
    for overlap in (1, 2):
        shape = replace(SHAPE, overlap=overlap)
        _, whole = read_all(path, shape)
        step = 4 - overlap
        assert len(whole) == 1 + -(-(83 - 4) // step) == count_windows(info, shape)
        for window in whole:
            begin = window.index * step
            assert window.start_time == begin / 25
            assert window.frames == min(4, 83 - begin)
            assert np.array_equal(window.video[: window.frames], frames[begin : begin + window.frames])
            heard = samples[begin * 1920 : begin * 1920 + 7_680]
            assert np.array_equal(window.audio[: len(heard)], heard)
            assert window.samples == min(7_680, (83 - begin) * 1920)
        for first, stop in ((0, 1), (15, 19), (len(whole) - 1, len(whole))):
            assert_slice(path, info, whole, first, stop, shape)


def test_a_clip_shorter_than_a_window_is_one_whatever_the_overlap(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=3)
    for overlap in (0, 2):
        info, [window] = read_all(path, replace(SHAPE, overlap=overlap))
        assert (info.frames, window.frames) == (3, 3)
    with pytest.raises(ValueError, match="expected an overlap of 0 to 2 frames, half of a window; got 3"):
        replace(SHAPE, overlap=3)
