"""A picture of a run: frames as the model saw them, and under them what it made of them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from perceiver_core.config import PerceiverConfig
from pipelines import reader
from pipelines.decoding import Decoder
from pipelines.originals import windows_again
from pipelines.sink import Sink, committed
from pipelines.sources import Source
from pipelines.storage import Storage, created
from pipelines.tasks import Task
from pipelines.tensors import to_numpy, unpack

Frames = npt.NDArray[np.uint8]  # (frames, height, width, 3)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_ITEMS, _FRAMES, _COLUMNS = 16, 4, 4
_SIDE = 128  # of a frame on the sheet, at most
_GAP, _PAD, _MARGIN, _LINE = 4, 14, 28, 22  # between frames, within a card, around all, of text
_PAPER, _CARD, _EDGE, _INK, _GREY = "#f3f3f0", "#ffffff", "#dcdcd6", "#1a1a1a", "#66665f"
_TITLE, _NAME, _TEXT = 24, 16, 14  # sizes of type


@dataclass(frozen=True)
class Panel:
    """One item's place on the sheet."""

    name: str
    captions: tuple[str, str]
    source: Frames
    reconstruction: Frames


def write_contact_sheet(
    plan: pa.Table, sink: Sink, task: Task, config: PerceiverConfig, source: Source, decoder: Decoder
) -> str | None:
    """Draw a closed run's sheet from its parts, unless it is there; None where there is nothing to draw from.

    An item whose source is gone or has changed since is left out, and the sheet says so.
    """
    name = f"runs/{sink.run_id}/contact-sheet.png"
    if sink.storage.exists(name):
        return name
    parts, items = committed(sink), _middles(plan, sink)
    if not parts or not items:
        return None
    panels, notes = [], []
    for span in _spread(items, _ITEMS):
        source_name = span["uri"].rpartition("/")[2]
        try:
            frames = _frames(span, task.input_schema(config), source, decoder)
        # The run is done: whatever a stranger's file raises, it must not fail for a picture.
        except Exception as error:
            notes.append(f"Left out: {source_name} ({error})")
        else:
            row = _row(sink.storage, parts[span["shard"]], span)
            panels.append(_panel(source_name, frames, row))
    title = f"{json.loads(sink.about)['job']}: {len(panels)} of {len(items)} items"
    with created(sink.storage, name) as draft:
        draw(title, panels, notes).save(draft, format="PNG")
    return name


def draw(title: str, panels: Sequence[Panel], notes: Sequence[str]) -> Image.Image:
    """The sheet: a title, the panels in a grid of at most four columns, and notes under it."""
    cards = [_card(panel) for panel in panels]
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(cards)))) or 1
    card_width, card_height = cards[0].size if cards else (4 * _SIDE, 0)
    left, top = _MARGIN, 2 * _MARGIN + 2 * _LINE
    across, down = card_width + _PAD, card_height + _PAD
    bottom = top + -(-len(cards) // columns) * down
    width = 2 * _MARGIN + columns * across - _PAD
    sheet = Image.new("RGB", (width, bottom + len(notes) * _LINE + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    room = width - 2 * _MARGIN
    pen.text((left, _MARGIN), _fitted(title, _TITLE, room), _INK, _font(_TITLE))
    legend = "Above, what the model saw; below, what it made of it. PSNR and label are of the whole window."
    pen.text((left, _MARGIN + 36), _fitted(legend, _TEXT, room), _GREY, _font(_TEXT))
    for n, card in enumerate(cards):
        sheet.paste(card, (left + n % columns * across, top + n // columns * down))
    for n, note in enumerate(notes):
        pen.text((left, bottom + n * _LINE), _fitted(note, _TEXT, room), _GREY, _font(_TEXT))
    return sheet


def _card(panel: Panel) -> Image.Image:
    width, height = _size(panel.source)
    inner = _FRAMES * (width + _GAP) - _GAP
    card = Image.new("RGB", (inner + 2 * _PAD, 2 * height + 2 * _GAP + 3 * _LINE + 2 * _PAD + 10), _CARD)
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, card.width - 1, card.height - 1), outline=_EDGE)
    for line, frames in enumerate((panel.source, panel.reconstruction)):
        for n, frame in enumerate(frames):
            picture = Image.fromarray(frame).resize((width, height), _filter(frames))
            card.paste(picture, (_PAD + n * (width + _GAP), _PAD + line * (height + 2 * _GAP)))
    y = _PAD + 2 * height + 2 * _GAP + 10
    pen.text((_PAD, y), _fitted(panel.name, _NAME, inner), _INK, _font(_NAME))
    for n, caption in enumerate(panel.captions, start=1):
        pen.text((_PAD, y + n * _LINE), _fitted(caption, _TEXT, inner), _GREY, _font(_TEXT))
    return card


def _size(frames: Frames) -> tuple[int, int]:
    """Width and height on the sheet: a whole multiple of small frames, a fraction of large ones."""
    height, width = frames.shape[1:3]
    scale = _SIDE / max(height, width)
    scale = math.floor(scale) if scale >= 1 else scale
    return max(1, round(width * scale)), max(1, round(height * scale))


def _filter(frames: Frames) -> Image.Resampling:
    """Every pixel of a small frame is shown as it is; a large one is averaged."""
    return Image.Resampling.NEAREST if max(frames.shape[1:3]) <= _SIDE else Image.Resampling.BOX


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _fitted(text: str, size: int, room: int) -> str:
    """The text as one printable line, its middle left out until it fits. Names are data: anything may be in them."""
    text = "".join(char for char in text if char.isprintable())
    keep = min(len(text), room)  # no glyph is narrower than a pixel
    short, font = text, _font(size)
    while font.getlength(short) > room:
        keep -= 1
        short = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return short


def _middles(plan: pa.Table, sink: Sink) -> list[dict[str, Any]]:
    """Of every whole item, the span that holds its middle window, with that as `window`."""
    quarantined = set(reader.quarantine(sink.storage.uri)["item_id"].to_pylist())
    middles = []
    for item_id, mine in groupby(plan.to_pylist(), lambda span: span["item_id"]):
        spans = list(mine)
        middle = max(0, spans[-1]["stop"] - 1) // 2
        if item_id not in quarantined:
            middles += [span | {"window": middle} for span in spans if span["first"] <= middle < span["stop"]]
    return middles


def _spread(items: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most so many of them, evenly."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _frames(span: dict[str, Any], columns: pa.Schema, source: Source, decoder: Decoder) -> Frames:
    """The window's real frames, decoded again exactly as the model saw them."""
    [window] = windows_again(span, span["window"], span["window"] + 1, source, decoder)
    frames: Frames = unpack(window["video"], columns.field("video").type)[0]  # T, H, W, 3
    return frames[: window["frames"][0].as_py()]


_SHOWN = ("item_id", "window", "frames", "video", "labels", "scores", "video_psnr", "audio_psnr")


def _row(storage: Storage, part: str, span: dict[str, Any]) -> pa.Table:
    for row in reader.rows(storage, part, _SHOWN):
        if (row["item_id"][0].as_py(), row["window"][0].as_py()) == (span["item_id"], span["window"]):
            return row
    raise LookupError(f"{part} has no window {span['window']} of {span['uri']}: expected it by the plan.")


def _panel(name: str, source: Frames, row: pa.Table) -> Panel:
    says = row.drop_columns(["video"]).to_pylist()[0]
    psnr = f"picture {says['video_psnr']:.1f} dB"
    if says["audio_psnr"] is not None:
        psnr += f", sound {says['audio_psnr']:.1f} dB"
    likely = f"{says['labels'][0]} {says['scores'][0]:.0%}"
    shown = np.linspace(0, len(source) - 1, min(_FRAMES, len(source))).round().astype(int)
    return Panel(name, (psnr, likely), source[shown], to_numpy(row, "video")[0][shown])
