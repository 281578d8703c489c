"""Which frame each tick takes, and what becomes of it: rotation, crop, colours, choice of stream."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from pipelines.media.container import MediaError
from pipelines.media.info import probe
from pipelines.media.windows import WindowShape
from tests.clips import moving, write_clip
from tests.pipelines.media.reading import load, pictures, read_all, sound

SQUARE = WindowShape(frames=4, height=48, width=48, samples=7_680)  # as big as the clips: nothing is resized


def oracle(path: Path, ticks: int) -> list[np.ndarray]:
    """Decode everything, then look for each tick's frame in the plainest way."""
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
        assert base is not None
        shown = [((f.pts or 0) * base, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    out = []
    for tick in range(ticks):
        time = shown[0][0] + Fraction(tick, 25)
        due = [picture for pts, picture in shown if pts < time + Fraction(1, 50)]
        out.append((due or [shown[0][1]])[-1])
    return out


RATES = [
    Fraction(10),
    Fraction(24),
    Fraction(30_000, 1001),
    Fraction(25),
    Fraction(30),
    Fraction(50),
    Fraction(60),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("fps", RATES, ids=str)
def test_picks_frames_at_25_fps(fps: Fraction, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    frames = int(2 * fps)
    write_clip(path, frames=frames, fps=fps, size=(48, 48), bframes=2)
    info, windows = read_all(path, SQUARE)
    assert info.frames == round(frames / fps * 25)
    assert np.array_equal(pictures(windows), oracle(path, info.frames))


@pytest.mark.parametrize(
    ("pts", "frames"),
    [
        ([0, 5, 40, 41, 42, 300, 900, 901, 1000], 25),
        ([700, 720, 739, 740, 760, 1400], 18),  # starts late; frames at and just before half a tick
        ([0, 20, 60, 100, 140], 4),
        ([0, 19, 59, 99, 139], 4),
    ],
)
def test_picks_frames_of_variable_rate(pts: Sequence[int], frames: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, frames=len(pts), size=(48, 48), pts=pts, time_base=Fraction(1, 1000), fps=25)
    info, windows = read_all(path, SQUARE)
    assert info.start_pts == pts[0]
    assert info.frames == pytest.approx(frames, abs=1)
    assert np.array_equal(pictures(windows), oracle(path, info.frames))


def test_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=1, audio_codec="aac")
    info, windows = read_all(path)
    assert (info.frames, len(windows), windows[0].frames, windows[0].samples) == (1, 1, 1, 1_920)
    assert (windows[0].video == windows[0].video[0]).all()


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_rotation(turn: int, tmp_path: Path) -> None:
    """The corner that is red in the stored picture goes where a player shows it: turned counter-clockwise."""
    path = tmp_path / "clip.mp4"
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, 8:32] = (255, 0, 0)
    write_clip(path, frames=4, rotation=turn, draw=lambda _: stored, options={"qp": "0"})
    info, windows = read_all(path, SQUARE)
    assert info.rotation == turn
    assert (info.width, info.height) == ((48, 64) if turn in (90, 270) else (64, 48))
    corner = {0: (0, 0), 90: (1, 0), 180: (1, 1), 270: (0, 1)}[turn]  # (row, column)
    red = windows[0].video[0, :, :, 0] > 128
    quarters = {
        (y, x): red[24 * y : 24 * y + 24, 24 * x : 24 * x + 24].mean() for y in (0, 1) for x in (0, 1)
    }
    assert quarters[corner] > 0.9
    assert sum(quarters.values()) < 1.1


@pytest.mark.parametrize("size", [(64, 48), (48, 80), (90, 48)])
def test_centre_square_is_cut(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, frames=3, size=size, codec="ffv1", pixel_format="bgr0")
    _, windows = read_all(path, SQUARE)
    left, top = size[0] // 2 - 24, size[1] // 2 - 24
    want = [moving(n, *size)[top : top + 48, left : left + 48] for n in range(3)]
    assert np.array_equal(windows[0].video[:3], want)


@pytest.mark.parametrize(
    "pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuvj420p", "gray", "nv12"]
)
def test_pixel_formats(pixels: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    colour = (90, 90, 90) if pixels == "gray" else (200, 60, 30)
    picture = np.full((48, 48, 3), colour, np.uint8)
    write_clip(
        path, frames=2, size=(48, 48), pixel_format=pixels, draw=lambda _: picture, options={"qp": "1"}
    )
    _, windows = read_all(path, SQUARE)
    assert np.abs(windows[0].video.astype(int) - colour).max() <= 4


@pytest.mark.parametrize("matrix", [1, 5], ids=["bt709", "bt601"])
@pytest.mark.parametrize("span", [1, 2], ids=["limited", "full"])
def test_colour_matrix_and_range(matrix: int, span: int, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 48, 48, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, span
        rgb = av.VideoFrame.from_ndarray(np.full((48, 48, 3), (200, 60, 30), np.uint8), format="rgb24")
        frame = rgb.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=span)
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    _, windows = read_all(path, SQUARE)
    assert np.abs(windows[0].video.astype(int) - (200, 60, 30)).max() <= 3


def write_streams(path: Path) -> None:
    """Cover art (MP4's), two videos and two sounds; the second of each is the default one."""
    with av.open(str(path), "w") as out:
        covers = [out.add_stream("mjpeg", rate=25)] if path.suffix == ".mp4" else []
        small = out.add_stream("libx264", rate=25)
        large = out.add_stream("libx264", rate=30)
        for cover in covers:
            cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
            cover.disposition = Disposition.attached_pic
        for stream, size in ((small, (64, 48)), (large, (96, 64))):
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        sounds = [out.add_stream("aac", rate=rate, layout="mono") for rate in (16_000, 48_000)]
        small.disposition = sounds[0].disposition = Disposition(0)
        large.disposition = sounds[1].disposition = Disposition.default
        for stream, count in (*((cover, 1) for cover in covers), (small, 10), (large, 24)):
            for n in range(count):
                frame = av.VideoFrame.from_ndarray(moving(n, stream.width, stream.height), format="rgb24")
                frame.pts = n
                out.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            out.mux(stream.encode(None))
        for track in sounds:
            samples = av.AudioFrame.from_ndarray(
                np.full((1, track.rate // 2), 0.5, np.float32), "fltp", "mono"
            )
            samples.sample_rate, samples.pts = track.rate, 0
            out.mux(track.encode(samples))
            out.mux(track.encode(None))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_choice_of_streams(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    write_streams(path)
    with av.open(str(path)) as container:
        indices = {(s.width, s.type): s.index for s in container.streams.video}
    small, large = indices[64, "video"], indices[96, "video"]
    info = probe(load(path))
    assert (info.video_stream, info.width, info.frames, info.audio_rate) == (large, 96, 20, 48_000)
    info, windows = read_all(path, stream=small)
    assert (info.video_stream, info.width, info.frames) == (small, 64, 10)
    assert len(windows) == 3
    assert np.abs(sound(windows)[2_000:18_000]).mean() > 0.3
    with pytest.raises(MediaError) as error:
        probe(load(path), stream=9)
    assert str(error.value) == (
        f"expected a video stream with index 9; got {small} (h264 64x48), {large} (h264 96x64); "
        "choose one of these"
    )


def test_flash_and_beep_are_in_sync(tmp_path: Path) -> None:
    for suffix, audio in ((".mp4", "aac"), (".mkv", "libopus"), (".webm", "libopus"), (".mov", "pcm_s16le")):
        path = tmp_path / f"clip{suffix}"
        beep = np.zeros((144_000, 1), np.float32)
        beep[96_000:98_000, 0] = 0.8 * np.sin(np.arange(2_000) * 0.4)
        write_clip(
            path,
            frames=90,
            fps=30,
            codec="libvpx-vp9" if suffix == ".webm" else "libx264",
            draw=lambda n: np.full((48, 64, 3), 255 if n >= 60 else 0, np.uint8),
            audio_codec=audio,
            sound=beep,
        )
        _, windows = read_all(path)
        flash = int(np.argmax(pictures(windows).mean(axis=(1, 2, 3)) > 128))
        onset = int(np.argmax(np.abs(sound(windows)) > 0.4))
        assert flash == 50
        assert onset == pytest.approx(96_000, abs=60), suffix  # a millisecond
