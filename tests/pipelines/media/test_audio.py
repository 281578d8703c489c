"""Sound by position: segments against the whole, resampling, channels, sound that does not fit the video."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import tone, write_clip
from tests.pipelines.media.reading import pictures, read_all, sound


def straight(path: Path, frames: int) -> np.ndarray:
    """The plain way: decode all, first channel, resample all, cut to the video."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(audio=0))
    rate = decoded[0].sample_rate
    parts = []
    for frame in decoded:
        data = frame.to_ndarray()
        if data.dtype == np.int16:
            data = data.reshape(frame.samples, -1).T.astype(np.float32) / 32_768
        parts.append(data[0])
    whole = av.AudioFrame.from_ndarray(np.concatenate(parts)[None], format="fltp", layout="mono")
    whole.sample_rate = rate
    if rate == 48_000:
        out = whole.to_ndarray()[0]
    else:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=48_000)
        out = np.concatenate(
            [f.to_ndarray()[0] for f in resampler.resample(whole) + resampler.resample(None)]
        )
    out = out[: frames * 1_920]
    return np.pad(out, (0, frames * 1_920 - len(out)))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_segments_of_pcm_equal_the_whole(rate: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames=200, audio_codec="pcm_s16le", sample_rate=rate, channels=2)
    info, windows = read_all(path)
    got, want = sound(windows), straight(path, info.frames)
    # Bitwise but for the two ends, where swr mirrors the sound and we have silence.
    assert np.array_equal(got[200:-200], want[200:-200])
    assert [w.samples for w in windows] == [7_680] * 50


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "options"),
    [
        (".mp4", "aac", 44_100, {"aac_pns": "0"}),
        (".mkv", "aac", 44_100, {"aac_pns": "0"}),
        (".mp4", "aac", 8_000, {"aac_pns": "0"}),
        (".mkv", "libmp3lame", 44_100, {}),
        (".mp4", "libmp3lame", 48_000, {}),
        (".mp4", "libopus", 48_000, {}),
        (".mkv", "libopus", 48_000, {}),
    ],
)
def test_segments_equal_the_whole(
    suffix: str, codec: str, rate: int, options: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames=200, audio_codec=codec, sample_rate=rate, channels=2, audio_options=options)
    info, windows = read_all(path)
    got, want = sound(windows), straight(path, info.frames)
    assert np.abs(want).max() > 0.2
    assert np.array_equal(got[200:-400], want[200:-400])


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "aac"), (".mkv", "aac")])
def test_noise_substitution_differs_little(suffix: str, codec: str, tmp_path: Path) -> None:
    """AAC's synthetic noise starts from another seed; the waveform and its place are the same."""
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames=200, audio_codec=codec, channels=2)
    info, windows = read_all(path)
    got, want = sound(windows), straight(path, info.frames)
    error = got[200:-400] - want[200:-400]
    assert error.std() < 0.1 * want.std()


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_channels(channels: int, codec: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mov"
    levels = np.linspace(0.1, 0.6, channels)
    wave = np.sin(np.arange(48_000) * 0.05)[:, None] * levels
    write_clip(path, frames=25, audio_codec=codec, channels=channels, sound=wave.astype(np.float32))
    info, first = read_all(path)
    assert info.audio_channels == channels
    _, mixed = read_all(path, audio="mix")
    if codec == "pcm_s16le":
        assert np.abs(sound(first)[:48_000] - wave[:, 0]).max() < 1e-4
        assert np.abs(sound(mixed)[:48_000] - wave.mean(axis=1)).max() < 1e-4
    else:
        with av.open(str(path)) as container:
            decoded = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)[:, :48_000]
        assert np.array_equal(sound(first)[:48_000], decoded[0])
        assert np.abs(sound(mixed)[:48_000] - decoded.mean(axis=0)).max() < 1e-6


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_shorter_sound(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames=100, gop=20, audio_codec="pcm_s16le", sound=tone(20_000, 48_000))
    info, windows = read_all(path)
    assert info.audio_trailing_s == 0
    assert [w.samples for w in windows] == [7_680, 7_680, 4_640] + [0] * 22
    assert not sound(windows)[20_000:].any()


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_longer_sound_is_cut_and_reported(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames=10, audio_codec="pcm_s16le", sound=tone(48_000, 48_000))
    info, windows = read_all(path)
    assert info.audio_trailing_s == pytest.approx(0.6)
    assert [w.samples for w in windows] == [7_680, 7_680, 3_840]
    assert not windows[-1].audio[3_840:].any()


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
@pytest.mark.parametrize("start", [Fraction(1, 2), Fraction(3)])
def test_later_sound(suffix: str, start: Fraction, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    wave = tone(48_000, 48_000)
    write_clip(path, frames=125, audio_codec="pcm_s16le", sound=wave, audio_start=start)
    info, windows = read_all(path)
    assert info.audio_start_s == float(start)
    at = int(start * 48_000)
    got = sound(windows)
    assert not got[:at].any()
    assert np.abs(got[at : at + 48_000] - wave[:, 0]).max() < 1e-4


def test_later_video(tmp_path: Path) -> None:
    """The item begins with its first frame; what was heard before it is cut."""
    path = tmp_path / "clip.mkv"
    wave = tone(96_000, 48_000)
    pts = [500 + 40 * n for n in range(30)]
    write_clip(path, frames=30, pts=pts, time_base=Fraction(1, 1000), audio_codec="pcm_s16le", sound=wave)
    info, windows = read_all(path)
    assert info.audio_start_s == -0.5
    assert len(pictures(windows)) == 30
    assert np.abs(sound(windows)[:57_600] - wave[24_000:81_600, 0]).max() < 1e-4


def test_gap_in_the_sound_is_silent(tmp_path: Path) -> None:
    path, wave = tmp_path / "clip.mkv", tone(96_000, 48_000)
    write_clip(tmp_path / "whole.mkv", frames=50, bframes=0, audio_codec="pcm_s16le", sound=wave)
    with av.open(str(tmp_path / "whole.mkv")) as source, av.open(str(path), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            time = 0 if packet.pts is None else packet.pts * packet.time_base
            if packet.dts is not None and not (packet.stream.type == "audio" and 0.5 <= time < 0.8):
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    info, windows = read_all(path)
    got = sound(windows)
    silent = np.flatnonzero(np.abs(got[:96_000] - wave[:, 0]) > 1e-3)
    assert abs(silent[0] - 24_000) < 1_100
    assert abs(silent[-1] - 38_400) < 1_100
    assert not got[26_000:37_000].any()
    assert info.frames == 50
