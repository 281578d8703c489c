"""Cards: one row of a run as people see it, what went in beside what came out of it.

How a row is shown follows from its columns and from those that its task is given, whatever the task is called: videos
and MP4s play beside their sources, flow has its colours, texts their filled masks, and labels stand with all of it.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.report.originals import Originals
from perceiver_core.tokenizer.vocabulary import FIRST_BYTE
from pipelines import excerpts, reader
from pipelines.excerpts import Clip, Picture
from pipelines.flows import in_colour
from pipelines.mp4 import Shot
from pipelines.multimodal import FPS
from pipelines.originals import as_rows
from pipelines.quality import Picked, take
from pipelines.storage import Storage
from pipelines.tensors import is_tensor, packed_layout
from pipelines.videos import shots

_TIMES = 5  # windows of a clip
_TILES = 48  # of them all, where frames are whole
_BEFORE = 90  # characters of a text before the first mask that is shown
_TEXT = 420  # characters of a text
_FILLS = 40  # masks of a text that are told of one by one


@dataclass(frozen=True)
class Media:
    """A picture or a clip, in the page itself."""

    what: str  #: Original | Reconstruction | ...
    alt: str
    src: str  #: a data URI
    width: int
    height: int
    poster: str = ""  #: of a clip


@dataclass(frozen=True)
class Card:
    """One row."""

    name: str  #: of its item's file
    member: str | None
    place: str  #: which window, at what second
    facts: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, float], ...] = ()
    media: tuple[Media, ...] = ()
    clips: bool = False  #: whether the media play
    sound: bool = False
    text: tuple[tuple[str, bool], ...] = ()  #: pieces, and whether each was filled in
    fills: tuple[tuple[str, str], ...] = ()  #: a position, and its likeliest bytes


@dataclass(frozen=True)
class Seen:
    """What building a card has found out beside it."""

    alike: Sequence[float] = ()  #: SSIM of frames
    lengths: np.ndarray | None = None  #: of flow, in pixels
    size: float | None = None  #: of latents: their root mean square


def card_of(picked: Picked, storage: Storage, originals: Originals, most: int) -> tuple[Card, Seen] | None:
    """The card of a row, with media of at most so many bytes; None if they don't fit.

    Raises LookupError where what went in is gone or has changed since, and whatever a stranger's file does.
    """
    row = take(storage, picked.part, picked.row)
    names = row.column_names
    for column, build in _KINDS.items():
        if column in names and row[column][0].is_valid:
            return build(_Row(picked, row, storage), originals, most)
    return _plain(_Row(picked, row, storage), originals, most)


@dataclass(frozen=True)
class _Row:
    """What a card is made of."""

    picked: Picked
    table: pa.Table
    storage: Storage

    def value(self, column: str) -> Any:
        return self.table[column][0].as_py() if column in self.table.column_names else None

    def card(self, facts: Sequence[tuple[str, str]] = (), shown: str = "", **more: Any) -> Card:
        labels = (
            ()
            if self.value("labels") is None
            else tuple(zip(self.value("labels"), self.value("scores"), strict=True))
        )
        picked, start = self.picked, self.value("start_time")
        window = [] if picked.window is None else [f"window {picked.window}"]
        at = [] if start is None else [f"at {start:.2f} s"]
        place = " ".join([*window, *at]) + (f"; {shown}" if shown else "")
        return Card(
            name=picked.uri.rstrip("/").rpartition("/")[2],
            member=picked.member,
            place=place,
            facts=tuple(facts),
            labels=labels,
            **more,
        )

    def psnrs(self) -> Iterator[tuple[str, str]]:
        for column, name in (("video_psnr", "PSNR"), ("audio_psnr", "PSNR of the sound")):
            value = self.value(column)
            if value is not None:
                yield name, "the same to the last bit" if value == np.inf else f"{value:.1f} dB"


def _clips(row: _Row, originals: Originals, most: int) -> tuple[Card, Seen] | None:
    """Videos, playing beside their sources; those that were made of latents alone have none."""
    name = row.picked.uri.rpartition("/")[2]
    if "window" not in row.table.column_names or "start_time" not in row.table.column_names:
        video = _tensor(row.table, "video")
        alone = _media(excerpts.clip_of([Shot(video, np.empty(0, np.float32))], 1), "Decoded", name, most)
        return (row.card(media=(alone,), clips=True), Seen()) if alone else None
    rows, made, rates = _both(row, originals)
    one, other, alike = excerpts.compared(shots(rows, rates[0] // FPS), made, rates)
    if not one.pictures:
        raise LookupError("its original and its reconstruction have no frame at the same time")
    start = rows[0]["start_time"][0].as_py()
    middle = round((row.value("start_time") - start) * FPS) + row.value("frames") // 2
    original = _media(one, "Original", name, most // 2, middle)
    reconstruction = original and _media(other, "Reconstruction", name, most - most // 2, middle)
    if not (original and reconstruction):
        return None
    facts = [*row.psnrs(), *([("SSIM", f"{np.mean(alike):.3f}")] if alike else [])]
    media = (original, reconstruction)
    sound = bool(len(one.sound) or len(other.sound))
    shown = f"shown from {start:.2f} to {start + one.seconds:.2f} s"
    return row.card(facts, shown, media=media, clips=True, sound=sound), Seen(alike=alike)


def _both(row: _Row, originals: Originals) -> tuple[list[pa.Table], Iterator[Shot], tuple[int, int]]:
    """The source's windows around this one, the shots of what was made of them, and the rates of their sounds."""
    picked = row.picked
    assert picked.window is not None
    tiles = _tiles(row.table, originals)
    times = max(1, min(_TIMES, _TILES // tiles))
    begin, end = originals.stretch(picked)
    last = max(0, (end - 1) // tiles - times + 1)
    first_time = max(-(-begin // tiles), min(picked.window // tiles - times // 2, last))
    first, stop = first_time * tiles, min(end, (first_time + times) * tiles)
    made: list[pa.Table] = []
    if "video" in row.table.column_names:
        made = _whole(_unbroken(list(_rows_of(row, originals, first, stop)), picked.window))
        first, stop = made[0]["window"][0].as_py(), made[-1]["window"][0].as_py() + 1
    rows = [as_rows(one, originals.columns) for one in originals.windows(picked, first, stop)]
    rate = _rate(rows[0])
    if made:
        return rows, shots(made, rate // FPS), (rate, rate)
    start = rows[0]["start_time"][0].as_py()
    end_time = rows[-1]["start_time"][0].as_py() + rows[-1]["frames"][0].as_py() / FPS
    shown, sound_rate = excerpts.shots_of_mp4(
        lambda: row.storage.open(row.value("mp4")), start, end_time - start
    )
    return _whole(rows), shown, (rate, sound_rate)


def _rows_of(row: _Row, originals: Originals, first: int, stop: int) -> Iterator[pa.Table]:
    """The windows [first, stop) of the row's item, of all parts that are there."""
    for part in originals.parts(row.picked, first, stop):
        if part != row.picked.part and not row.storage.exists(part):  # of a run that isn't done
            continue
        for one in reader.rows(row.storage, part, row.table.column_names):
            window = one["window"][0].as_py()
            if one["item_id"][0].as_py() == row.picked.item_id and first <= window < stop:
                yield one
                if window == stop - 1:
                    return


def _unbroken(rows: list[pa.Table], window: int) -> list[pa.Table]:
    """Those that follow each other, around this window: others may be in quarantine, or not done yet."""
    kept: list[pa.Table] = []
    for row in rows:
        number = row["window"][0].as_py()
        if kept and number != kept[-1]["window"][0].as_py() + 1:
            if number > window:
                break
            kept = []
        kept.append(row)
    return kept


def _tiles(row: pa.Table, originals: Originals) -> int:
    """How many windows make up a time."""
    if "tile_top" not in row.column_names:
        return 1
    return originals.tiles((row["frame_height"][0].as_py(), row["frame_width"][0].as_py()))


def _whole(rows: list[pa.Table]) -> list[pa.Table]:
    """Of tiles, those of times that have all: the first is at 0, 0, and the last one ends where the frame does."""
    if not rows or "tile_top" not in rows[0].column_names:
        return rows
    kept: list[pa.Table] = []
    waiting: list[pa.Table] = []
    for row in rows:
        says = {
            name: row[name][0].as_py()
            for name in row.column_names
            if name.startswith(("tile_", "frame_", "picture_"))
        }
        if (says["tile_top"], says["tile_left"]) == (0, 0):
            waiting = []
        elif not waiting:
            continue
        waiting.append(row)
        ends = says["tile_top"] + says["picture_height"], says["tile_left"] + says["picture_width"]
        if ends == (says["frame_height"], says["frame_width"]):
            kept += waiting
            waiting = []
    if not kept:
        raise LookupError("no frame of it has all of its tiles")
    return kept


def _rate(row: pa.Table) -> int:
    samples, frames = (row.schema.field(name).type.shape[0] for name in ("audio", "video"))
    return int(samples // frames * FPS)


def _flow(row: _Row, originals: Originals, most: int) -> tuple[Card, Seen] | None:
    flow = reader.to_arrays(row.table, "flow")[0]  # H, W, 2
    lengths = np.hypot(flow[..., 0], flow[..., 1])
    window = originals.window(row.picked)
    frame = window["frames"][0].values.to_numpy().reshape(2, *originals.frame_size(flow.shape[:2]), 3)[0]
    name = row.picked.uri.rpartition("/")[2]
    known = lengths[np.isfinite(lengths)]
    facts = (
        [("Mean motion", f"{known.mean():.1f} px"), ("Longest", f"{known.max():.1f} px")]
        if len(known)
        else []
    )
    media = (
        _picture(frame, "First frame", f"The pair's first frame, of {name}"),
        _picture(
            in_colour(flow),
            "Motion",
            "Where each pixel goes: the hue is the direction, strong colours are long ways",
        ),
    )
    if sum(len(one.src) for one in media) > most:
        return None
    return row.card(facts, media=media), Seen(lengths=lengths)


def _fills(row: _Row, originals: Originals, most: int) -> tuple[Card, Seen] | None:
    """A text, with what was filled in marked."""
    window = originals.window(row.picked)
    text = window["text"][0].values.to_numpy().copy()
    tokens, scores, positions = (row.value(name) for name in ("tokens", "scores", "positions"))
    places = np.asarray(positions, np.int64) - row.value("start")
    text[places] = [one[0] for one in tokens]
    pieces = _pieces(text.tobytes(), {*places.tolist()})
    likely = [
        ", ".join(f"{_byte(t)} {s:.0%}" for t, s in zip(*one, strict=True))
        for one in zip(tokens, scores, strict=True)
    ]
    fills = tuple((f"byte {at}", said) for at, said in zip(positions, likely, strict=True))[:_FILLS]
    first = [one[0] for one in scores if one]
    facts = [
        ("Masked bytes", f"{len(positions):,}"),
        *([("Mean score", f"{np.mean(first):.0%}")] if first else []),
    ]
    return row.card(facts, text=tuple(pieces), fills=fills), Seen()


def _plain(row: _Row, originals: Originals, most: int) -> tuple[Card, Seen] | None:
    """What went in: a frame, a picture or the beginning of a text; with what is known of the row."""
    seen = Seen()
    facts = list(row.psnrs())
    if "latents" in row.table.column_names:
        latents = _tensor(row.table, "latents").astype(np.float64)
        seen = Seen(size=float(np.sqrt((latents**2).mean())))
        facts.append(("Root mean square", f"{seen.size:.3f}"))
    window = originals.window(row.picked)
    name = row.picked.uri.rpartition("/")[2]
    if "ids" in window.schema.names:
        ids = window["ids"][0].values.to_numpy()[1:-1]
        text = (ids - FIRST_BYTE).astype(np.uint8).tobytes().decode(errors="replace")
        return row.card(facts, text=((_cut(text), False),)), seen
    columns = originals.columns
    if "video" in window.schema.names:
        frames = reader.to_numpy(as_rows(window, columns), "video")[0][: window["frames"][0].as_py()]
        media = _picture(frames[len(frames) // 2], "Frame", f"A frame of {name}, as the model saw it")
    elif "image" in window.schema.names:
        image = reader.to_numpy(as_rows(window, columns), "image")[0]
        media = _picture(image, "Image", f"{name}, as the model saw it")
    else:
        return row.card(facts), seen
    return (row.card(facts, media=(media,)), seen) if len(media.src) <= most else None


#: By a column that such rows have, and is not null.
_KINDS: dict[str, Callable[[_Row, Originals, int], tuple[Card, Seen] | None]] = {
    "video": _clips,
    "mp4": _clips,
    "flow": _flow,
    "filled": _fills,
}


def _tensor(table: pa.Table, name: str) -> np.ndarray:
    field = table.schema.field(name)
    assert is_tensor(field.type) or packed_layout(field)
    return reader.to_numpy(table, name)[0]


def _media(clip: Clip, what: str, name: str, most: int, poster: int = 0) -> Media | None:
    """A clip, and the frame that is seen until it plays."""
    first = excerpts.jpeg(clip.pictures[min(poster, len(clip.pictures) - 1)])
    data = excerpts.encoded(clip, most - len(first))
    if data is None:
        return None
    height, width = clip.pictures[0].shape[:2]
    alt = f"{what}: {clip.seconds:.1f} seconds of {name}"
    return Media(what, alt, _uri("video/mp4", data), width, height, _uri("image/jpeg", first))


def _picture(picture: Picture, what: str, alt: str) -> Media:
    shown = excerpts.sized(np.ascontiguousarray(picture))
    height, width = shown.shape[:2]
    return Media(what, alt, _uri("image/jpeg", excerpts.jpeg(shown)), width, height)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _pieces(text: bytes, marked: set[int]) -> list[tuple[str, bool]]:
    """UTF-8 in pieces of characters that have, or have not, a byte that is marked; some of them, if they are many."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    while at < len(text):
        long = next((n for n in (1, 2, 3, 4) if _is_text(text[at : at + n])), 1)
        char = text[at : at + long].decode(errors="replace")
        mark = bool(marked & {*range(at, at + long)})
        if pieces and pieces[-1][1] == mark:
            pieces[-1] = pieces[-1][0] + char, mark
        else:
            pieces.append((char, mark))
        at += long
    if pieces and not pieces[0][1] and len(pieces[0][0]) > _BEFORE and len(pieces) > 1:
        pieces[0] = f"…{pieces[0][0][-_BEFORE:]}", False
    kept: list[tuple[str, bool]] = []
    room = _TEXT
    for piece, mark in ((_seen(piece) if mark else piece, mark) for piece, mark in pieces):
        if room <= 0:
            break
        kept.append((piece if len(piece) <= room else f"{piece[:room]}…", mark))
        room -= len(piece)
    return kept


def _seen(filled: str) -> str:
    """What was filled in may be space, which is seen here."""
    return filled.translate({10: "⏎", 13: "⏎", 9: "⇥", 32: "␣"})


def _is_text(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


def _byte(value: int) -> str:
    char = chr(value)
    return f"“{char}”" if value < 128 and char.isprintable() else f"0x{value:02x}"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}…"
