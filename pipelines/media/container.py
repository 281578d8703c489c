"""Opening one MP4/MOV or Matroska/WebM file object, safely, and seeking in it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import BinaryIO, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from perceiver_core.errors import PerceiverError
from pipelines.limits import STANDARD, Limits

MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")

S = TypeVar("S", VideoStream, AudioStream)


class MediaError(PerceiverError, ValueError):
    """Something is wrong with the bytes; the message says what was expected, what came and what to do."""


class _Cursor(io.RawIOBase):
    """A view of a file object with its own position, so that several readers can share it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self.size = file.seek(0, io.SEEK_END)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at


@contextmanager
def open_container(file: BinaryIO, limits: Limits = STANDARD) -> Iterator[InputContainer]:
    """The demuxer of `file`; whatever FFmpeg raises inside the `with` becomes a MediaError. Raises LimitError, too."""
    cursor = _Cursor(file)
    _check_size(cursor)
    try:
        # Titles that are not UTF-8 are none of ours.
        with av.open(cursor, mode="r", options=_options(limits), metadata_errors="replace") as container:
            limits.check("streams", len(container.streams), "streams in the file")
            yield container
    except av.FFmpegError as error:
        raise MediaError(
            f"expected a readable MP4/MOV or Matroska/WebM file; FFmpeg says: {error.strerror}; "
            "check that it plays, or encode it again"
        ) from error


def stream_at(container: InputContainer, index: int, kind: type[S]) -> S:
    """The stream that a probe chose, if the file is still the one that was probed."""
    found = container.streams[index] if index < len(container.streams) else None
    if not isinstance(found, kind):
        raise MediaError(f"expected the {kind.__name__} {index} of the probe; it is gone; plan the run again")
    return found


def open_decoder(stream: VideoStream | AudioStream, limits: Limits = STANDARD) -> None:
    """One thread per decoder: the caller owns the cores."""
    context = stream.codec_context
    if not context.is_open:
        context.thread_count = 1
        context.thread_type = "NONE"
        context.options = {"max_pixels": str(limits.pixels)}
        context.open()


def read_only(container: InputContainer, *wanted: Stream) -> None:
    """Let the demuxer skip, unread, the payload of every other stream."""
    for stream in container.streams:
        stream.discard = Discard.default if stream in wanted else Discard.all


def seek(container: InputContainer, stream: Stream, time: Fraction) -> None:
    """Go to an entry point at or before `time` (seconds), as far as the container's index knows one."""
    assert stream.time_base is not None
    container.seek(time // stream.time_base, stream=stream)


def in_matroska(container: InputContainer) -> bool:
    return "matroska" in container.format.name


def _options(limits: Limits) -> dict[str, str]:
    """Two formats and no more; and a kilobyte of H.264 can declare a frame of gigabytes."""
    return {"format_whitelist": "mov,matroska", "max_pixels": str(limits.pixels), "threads": "1"}


def _check_size(cursor: _Cursor) -> None:
    """Compare the size with what the headers promise, which FFmpeg does not, or only once it gets there."""
    if cursor.size == 0:
        raise MediaError("expected a video file; got 0 bytes; upload it again")
    head = cursor.read(16)
    if head[4:8] in MP4_BOXES:
        promised, found = _mp4_promise(cursor)
    elif head[:4] == EBML:
        promised, found = _matroska_promise(cursor)
    else:
        raise MediaError(
            f"expected MP4/MOV or Matroska/WebM; the file begins with {head!r}, which is neither; "
            "convert it, or leave it out of the input"
        )
    if promised > cursor.size:
        raise MediaError(
            f"truncated: {found} promises {promised} bytes; the file has {cursor.size}; fetch it again"
        )
    cursor.seek(0)


def _mp4_promise(cursor: _Cursor) -> tuple[int, str]:
    """Where a cut top-level box should end. Fragments are not walked: one read each is too many."""
    at, seen = 0, set[bytes]()
    while at + 8 <= cursor.size and b"moof" not in seen:
        cursor.seek(at)
        head = cursor.read(16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16])
        elif length == 0:  # up to the end of the file
            length = cursor.size - at
        if length < 8:
            break
        if at + length > cursor.size and kind in (
            b"moov",
            b"mdat",
        ):  # else it is junk behind the file: harmless
            return at + length, f"its {kind.decode()!r} box"
        seen.add(kind)
        at += length
    if b"moov" not in seen:
        raise MediaError(
            f"truncated: expected a 'moov' box (the index of an MP4); got {cursor.size} bytes without one; "
            "fetch the file again"
        )
    return 0, ""


def _matroska_promise(cursor: _Cursor) -> tuple[int, str]:
    """Where the Segment ends, or 0 where its writer never filled that in (live recordings)."""
    cursor.seek(4)
    length, width = _ebml_number(cursor.read(8))
    at = 4 + width + length
    cursor.seek(at)
    head = cursor.read(12)
    if head[:4] != SEGMENT:
        return max(at + 12, cursor.size + 1) if len(head) < 12 else 0, "its header"
    length, width = _ebml_number(head[4:])
    unknown = length == (1 << 7 * width) - 1
    return 0 if unknown else at + 4 + width + length, "its Segment"


def _ebml_number(data: bytes) -> tuple[int, int]:
    """EBML's variable-length integer: (value, bytes it takes)."""
    width = 9 - data[0].bit_length() if data else 1
    return int.from_bytes(data[:width]) & ((1 << 7 * width) - 1), width
