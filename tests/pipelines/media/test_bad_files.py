"""What a person reads when the bytes are wrong."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.limits import LimitError, Limits
from pipelines.media.container import MediaError
from pipelines.media.info import probe
from pipelines.media.windows import count_windows, read_windows
from tests.clips import add_audio, encode_sound, tone, write_clip
from tests.pipelines.media.reading import SHAPE, load


def message(data: bytes) -> str:
    with pytest.raises(MediaError) as error:
        probe(io.BytesIO(data))
    return str(error.value)


def clip(folder: Path, suffix: str, **options: object) -> bytes:
    path = folder / f"clip{suffix}"
    write_clip(path, frames=100, gop=10, audio_codec="aac", **options)  # type: ignore[arg-type]
    return path.read_bytes()


def test_empty() -> None:
    assert message(b"") == "expected a video file; got 0 bytes; upload it again"


def test_text() -> None:
    assert message(b"hello, I am a text file\n") == (
        "expected MP4/MOV or Matroska/WebM; the file begins with b'hello, I am a te', which is neither; "
        "convert it, or leave it out of the input"
    )


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}], ids=["moov-last", "moov-first"])
def test_truncated_mp4(options: dict[str, str], tmp_path: Path) -> None:
    data = clip(tmp_path, ".mp4", container_options=options)
    end = len(data) if options else data.rindex(b"moov") - 4
    for cut in (end - 10, end // 2):
        assert message(data[:cut]) == (
            f"truncated: its 'mdat' box promises {end} bytes; the file has {cut}; fetch it again"
        )


def test_mp4_without_index(tmp_path: Path) -> None:
    data = clip(tmp_path, ".mp4")
    cut = data.rindex(b"moov") - 4
    assert message(data[:cut]) == (
        f"truncated: expected a 'moov' box (the index of an MP4); got {cut} bytes without one; fetch the file again"
    )
    assert message(data[:20]).startswith("truncated: ")
    assert message(data[:12]).startswith("truncated: ")


def test_truncated_fragment(tmp_path: Path) -> None:
    data = clip(tmp_path, ".mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    cut = data.rindex(b"mdat") + 200
    assert message(data[:cut]).startswith("truncated: expected ")


@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
def test_truncated_matroska(part: float, tmp_path: Path) -> None:
    data = clip(tmp_path, ".mkv")
    cut = int(len(data) * part)
    assert message(data[:cut]) == (
        f"truncated: its Segment promises {len(data)} bytes; the file has {cut}; fetch it again"
    )


def test_stub_of_matroska(tmp_path: Path) -> None:
    assert message(clip(tmp_path, ".mkv")[:20]).startswith("truncated: its header promises ")


def test_damaged_header(tmp_path: Path) -> None:
    data = bytearray(clip(tmp_path, ".mp4"))
    at = data.rindex(b"moov")
    data[at + 4 :] = bytes(len(data) - at - 4)
    assert "expected a " in message(bytes(data))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_no_video(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    with av.open(str(path), "w") as out:
        stream = add_audio(out, "aac", 48_000, 1)
        out.mux(encode_sound(stream, tone(10_000, 48_000)))
    assert (
        message(path.read_bytes()) == "expected a video stream; got 0: audio; leave the file out of the input"
    )


def test_wrong_stream(tmp_path: Path) -> None:
    data = clip(tmp_path, ".mp4")
    for wrong in (1, 7, -1):
        with pytest.raises(MediaError) as error:
            probe(io.BytesIO(data), stream=wrong)
        assert str(error.value) == (
            f"expected a video stream with index {wrong}; got 0 (h264 64x48); choose one of these"
        )


def test_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = add_audio(out, "pcm_s16le", 48_000, 1)
        out.mux(encode_sound(stream, tone(10_000, 48_000)))
    assert message(path.read_bytes()) == (
        "expected frames in video stream 0; got none; leave it out of the input"
    )


def test_no_decoder(tmp_path: Path) -> None:
    data = clip(tmp_path, ".mkv").replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ")
    assert message(data).startswith(
        "expected video that this FFmpeg decodes; stream 0 has no decoder here; encode "
    )
    data = clip(tmp_path, ".mkv").replace(b"A_AAC", b"A_XYZ")
    assert message(data).startswith(
        "expected audio that this FFmpeg decodes; stream 1 has no decoder here; encode "
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_damage_in_the_middle(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames=100, gop=10, size=(128, 96))
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
        key = next(p for p in packets if p.is_keyframe and (p.pts or 0) * p.time_base >= 2)
    data = bytearray(path.read_bytes())
    assert key.pos is not None
    noise = np.random.default_rng(0).integers(0, 256, key.size - 120, dtype=np.uint8)
    data[key.pos + 80 : key.pos + key.size - 40] = noise.tobytes()
    info = probe(io.BytesIO(data))
    done: list[int] = []
    windows = read_windows(io.BytesIO(data), info, SHAPE, 0, count_windows(info, SHAPE))
    with pytest.raises(
        MediaError, match=r"corrupt video at [12]\.\d+ s: expected frames up to 3\.960 s; got a d"
    ):
        done.extend(window.index for window in windows)
    assert done == list(range(len(done)))
    assert 8 <= len(done) <= 13
    rest = list(read_windows(io.BytesIO(data), info, SHAPE, 17, 25))  # what does not need it still reads
    assert len(rest) == 8


def test_video_that_stops_early(tmp_path: Path) -> None:
    """A plan made from another version of the file."""
    path, shorter = tmp_path / "clip.mp4", tmp_path / "shorter.mp4"
    write_clip(path, frames=100)
    write_clip(shorter, frames=60)
    info = probe(load(path))
    with pytest.raises(MediaError) as error:
        list(read_windows(load(shorter), info, SHAPE, 0, 25))
    assert str(error.value) == (
        "corrupt video at 2.360 s: expected frames up to 3.960 s; got the end of the stream; "
        "fetch the file again or repair it"
    )


def test_sound_that_stops_early(tmp_path: Path) -> None:
    path, shorter = tmp_path / "clip.mov", tmp_path / "shorter.mov"
    write_clip(path, frames=100, audio_codec="pcm_s16le")
    write_clip(shorter, frames=100, audio_codec="pcm_s16le", sound=tone(48_000, 48_000))
    info = probe(load(path))
    with pytest.raises(
        MediaError, match=r"corrupt audio at 1\.000 s: expected sound up to 4\.000 s; got the end"
    ):
        list(read_windows(load(shorter), info, SHAPE, 0, 25))


def test_huge_frames_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, frames=1, size=(640, 480))
    with pytest.raises(LimitError) as error:
        probe(load(path), limits=Limits(pixels=640 * 480 - 1))
    assert str(error.value) == (
        "pixels of a frame in stream 0: 307,200 are more than the 307,199 that limits.pixels allows. Raise "
        "limits.pixels if the item is to be trusted."
    )
    assert probe(load(path), limits=Limits(pixels=640 * 480)).width == 640


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(streams=1), "streams in the file: 2 are more than the 1 that limits.streams allows. "),
        (Limits(frames=99), "frames in video stream 0: 100 are more than the 99 that limits.frames allows. "),
        (
            Limits(duration=3.9),
            "seconds in video stream 0: 4.0 are more than the 3.9 that limits.duration allows. ",
        ),
    ],
)
def test_other_limits(limits: Limits, message: str, tmp_path: Path) -> None:
    data = clip(tmp_path, ".mp4")
    with pytest.raises(LimitError) as error:
        probe(io.BytesIO(data), limits=limits)
    assert str(error.value).startswith(message)
    assert probe(io.BytesIO(data), limits=Limits(streams=2, frames=100, duration=4)).frames == 100


def test_few_frames_far_apart_are_many_ticks(tmp_path: Path) -> None:
    """What is counted is what is made of it."""
    path = tmp_path / "clip.mkv"
    write_clip(path, frames=2, pts=[0, 8_000_000], time_base=Fraction(1, 1000))
    with pytest.raises(
        LimitError, match=r"^frames in video stream 0 at 25 a second: 200,001 are more than the 100,000"
    ):
        probe(load(path), limits=Limits(frames=100_000))


def test_missing_bytes_of_a_file_that_fails(tmp_path: Path) -> None:
    """An error of the storage is not an error of the bytes: it is not a MediaError, and may be retried."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 1_000:
                raise ConnectionError("reset by peer")
            return super().read(size)

    with pytest.raises(ConnectionError):
        probe(Broken(clip(tmp_path, ".mp4", container_options={"movflags": "faststart"})))


def test_junk_behind_a_whole_mp4_is_harmless(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", frames=10)
    with (tmp_path / "clip.mp4").open("ab") as file:
        file.write(b"\xff\xff\xff\x00junkjunkjunk")
    with (tmp_path / "clip.mp4").open("rb") as file:
        assert probe(file).frames == 10
