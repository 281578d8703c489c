"""Media: what FFmpeg and Pillow decode here, and the process in which a run has them do it."""

import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
import PIL.Image
import psutil

from jobs.doctor.check import Check, in_bytes, looked, told
from perceiver_core.config import PerceiverConfig
from perceiver_core.sources import DEMO
from pipelines.contents import SUFFIXES
from pipelines.decoding import Decoder
from pipelines.limits import STANDARD
from pipelines.media.images import decode_image
from pipelines.media.info import probe
from pipelines.media.windows import WindowShape, read_windows
from pipelines.mp4 import Shot, write_mp4
from pipelines.psnr import psnr
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding

#: What else videos come in, each with the decoders that do it: FFmpeg's own `av1` needs a GPU's help.
OTHERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hevc": ("hevc",), "vp8": ("vp8",), "vp9": ("vp9",), "av1": ("libdav1d", "libaom-av1", "libgav1"),
        "mpeg4": ("mpeg4",), "mjpeg": ("mjpeg",), "prores": ("prores",),
        "opus": ("opus",), "vorbis": ("vorbis",), "mp3": ("mp3",), "flac": ("flac",), "alac": ("alac",),
        "ac3": ("ac3",), "pcm": ("pcm_s16le",),
    }
)  # fmt: skip
_REINSTALL = "Install the builds of the package index anew: pip install --force-reinstall av pillow."
_LEAST_DB = 20.0
_SIDE, _FRAMES, _SAMPLES = 64, 32, 1920  # samples a frame: 48 kHz


def codecs() -> Iterator[Check]:
    """H.264 and AAC there and back, other decoders by name, and every kind of image there and back."""
    try:
        yield _there_and_back()
    except Exception as error:
        said = f"H.264 and AAC could not be encoded and decoded again: {told(error)}"
        yield Check("h264 and aac", "failed", said, _REINSTALL)
    yield looked("other codecs", decoders, _REINSTALL)
    yield looked("images", images, _REINSTALL)


def _clip(folder: Path) -> tuple[Path, Shot]:
    """A moving gradient with a tone."""
    x, y = np.meshgrid(np.arange(_SIDE), np.arange(_SIDE))
    video = np.stack(
        [np.stack([x * 3 + n, y * 3, (x + y) + n], axis=-1).astype(np.uint8) for n in range(_FRAMES)]
    )
    time = np.arange(_FRAMES * _SAMPLES) / (25 * _SAMPLES)
    shot = Shot(video, (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32))
    path = folder / "doctor.mp4"
    write_mp4(path, [shot], 25, 25 * _SAMPLES)
    return path, shot


def _there_and_back() -> Check:
    """As a run writes MP4s, and as it reads items."""
    with tempfile.TemporaryDirectory() as folder:
        path, shot = _clip(Path(folder))
        size = path.stat().st_size
        shape = WindowShape(_FRAMES, _SIDE, _SIDE, _FRAMES * _SAMPLES)
        with path.open("rb") as file:
            [window] = read_windows(file, probe(file), shape, 0, 1)
    picture = _decibels(window.video / 255.0, shot.video / 255.0, 1.0)
    sound = _decibels(window.audio, shot.audio, 0.3)
    found = f"{size:,} bytes of MP4 came back at {picture:.0f} dB (picture) and {sound:.0f} dB (sound)."
    if window.frames < _FRAMES or min(picture, sound) < _LEAST_DB:
        said = f"{found} Expected {_LEAST_DB:.0f} dB at least, and {_FRAMES} frames; got {window.frames}."
        return Check("h264 and aac", "failed", said, _REINSTALL)
    return Check("h264 and aac", "ok", found)


def _decibels(got: np.ndarray, sent: np.ndarray, peak: float) -> float:
    return min(99.0, psnr(float(np.mean(np.square(got - sent))), peak))


def decoders(wanted: Mapping[str, tuple[str, ...]] = OTHERS) -> Check:
    """Which other codecs this FFmpeg decodes."""
    missing = [name for name, those in wanted.items() if not any(map(_is_there, those))]
    if missing:
        found = f"FFmpeg {av.ffmpeg_version_info} has no decoder for {', '.join(missing)}."
        advice = f"Items in these end in quarantine. {_REINSTALL}"
        return Check("other codecs", "warning", found, advice)
    return Check("other codecs", "ok", f"FFmpeg {av.ffmpeg_version_info} decodes {', '.join(wanted)}.")


def _is_there(name: str) -> bool:
    try:
        return bool(av.Codec(name, "r"))
    except ValueError:  # PyAV's UnknownCodecError
        return False


def images(suffixes: tuple[str, ...] = SUFFIXES["image"]) -> Check:
    """Every kind of image that a folder is searched for, written and read as a run reads it."""
    PIL.Image.init()
    kinds = {suffix: PIL.Image.EXTENSION.get(suffix) for suffix in suffixes}
    bad = [suffix for suffix, kind in kinds.items() if kind is None]
    for kind in sorted(set(filter(None, kinds.values()))):
        file = io.BytesIO()
        try:
            PIL.Image.new("RGB", (24, 16), (200, 100, 50)).save(file, kind)
            picture = decode_image(file, STANDARD)
            if picture.shape != (16, 24, 3) or np.abs(picture.astype(int) - (200, 100, 50)).max() > 16:
                bad.append(kind)
        except Exception as error:
            bad.append(f"{kind} ({told(error).rstrip('.')})")
    if bad:
        advice = f"Images of these kinds end in quarantine. {_REINSTALL}"
        return Check("images", "warning", f"Pillow can't write and read {', '.join(bad)}.", advice)
    return Check(
        "images", "ok", f"Pillow writes and reads {', '.join(sorted(set(map(str, kinds.values()))))}."
    )


def decoder_process(module: str = "pipelines.decode_child") -> Iterator[Check]:
    """The process that decodes what strangers made: that it starts, answers, and has its limits from the kernel."""
    config = PerceiverConfig.from_pretrained(DEMO)
    decoder = Decoder(MultimodalAutoencoding(), config, STANDARD, module)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path, _ = _clip(Path(folder))
            with path.open("rb") as file:
                windows, info = decoder.probe({"video": file})
                rows = sum(batch.num_rows for batch in decoder.windows({"video": file}, info, 0, windows))
        [child] = [one for one in psutil.Process().children() if module in one.cmdline()]
        most = child.rlimit(psutil.RLIMIT_AS)[0]
        held = child.memory_info().vms
    finally:
        decoder.close()
    advice = (
        "Strangers' files could take all memory here. Run on Linux, and report it if that is where this is."
    )
    if not 0 < most < held + 2 * STANDARD.memory:
        yield Check("decoder process", "failed", "It has no limit on its memory.", advice)
    else:
        found = f"It started, decoded {rows} windows, and may have {in_bytes(most)} of addresses."
        yield Check("decoder process", "ok", found)
