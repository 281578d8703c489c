"""The gallery: the best rows of a run, the worst, and some by chance, with their originals, as many as a page holds."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from jobs.records import Record
from jobs.report.cards import Card, Seen, card_of
from jobs.report.originals import Originals, originals
from perceiver_core.errors import PerceiverError
from pipelines.meter import Progress
from pipelines.quality import Histogram, Picked, Quality
from pipelines.secrets import redacted
from pipelines.storage import Storage

COUNT = 3  #: cards of a group
_BYTES = 3_800_000  # of pictures and clips as the page holds them: the page is smaller than 5 MB
_GROUPS = {
    "video_psnr": ("Best by PSNR", "Worst by PSNR"),
    "audio_psnr": ("Best by PSNR of the sound", "Worst by PSNR of the sound"),
    "label": ("Most certain", "Least certain"),
    "fill": ("Most certain fills", "Least certain fills"),
}


@dataclass(frozen=True)
class Group:
    """Cards that were chosen alike."""

    name: str
    cards: tuple[Card, ...]


@dataclass
class Gallery:
    """What is shown of a run's rows, and what was found out by looking at them."""

    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()  #: what was left out, and why
    alike: Histogram = field(default_factory=lambda: Histogram(-1, 1, 400))  #: SSIM of the clips' frames
    lengths: Histogram = field(default_factory=lambda: Histogram(0, 256, 2048))  #: of the flows, in pixels
    sizes: Histogram = field(
        default_factory=lambda: Histogram(0, 64, 2048)
    )  #: of the latents: root mean squares


def gallery(storage: Storage, record: Record, quality: Quality, progress: Progress) -> Gallery:
    """Look at the rows that were picked.

    An item that is gone or has changed since is left out, and so is what doesn't fit; notes say so.
    """
    wanted = _wanted(quality)
    every = [picked for _, picks in wanted for picked in picks]
    if not every:
        return Gallery()
    progress.stage("rows shown", len(every))
    try:
        with originals(storage, record, {picked.item_id for picked in every}, progress) as found:
            return _looked(storage, wanted, found, progress)
    except PerceiverError as error:
        return Gallery(notes=(f"What went in can't be read any more, so no row is shown. {error}",))


def _wanted(quality: Quality) -> list[tuple[str, tuple[Picked, ...]]]:
    """The rows of each group; what is chosen by chance is of other items than the rest."""
    groups = []
    if quality.by:
        best, worst = _GROUPS[quality.by]
        groups = [(best, quality.best), (worst, quality.worst)]
    groups.append(("Chosen by chance" if groups else "Examples", quality.random))
    rows: set[tuple[str, int]] = set()
    items: set[str] = set()
    wanted = []
    for name, picks in groups:
        last = picks is quality.random
        new = [
            one for one in picks if (one.part, one.row) not in rows and not (last and one.item_id in items)
        ]
        new = new[: COUNT if quality.by else 3 * COUNT]
        rows |= {(one.part, one.row) for one in new}
        items |= {one.item_id for one in new}
        wanted.append((name, tuple(new)))
    return wanted


def _looked(
    storage: Storage, wanted: list[tuple[str, tuple[Picked, ...]]], found: Originals, progress: Progress
) -> Gallery:
    made = Gallery()
    cards: dict[str, list[Card]] = {name: [] for name, _ in wanted}
    notes: list[str] = []
    left, waiting = _BYTES, sum(len(picks) for _, picks in wanted)
    for done, (name, picked) in enumerate(_in_turns(wanted), 1):
        try:
            built = card_of(picked, storage, found, left // waiting * 3 // 4)  # base64 adds a third
        # A stranger's file may raise anything when it is read again, and must not cost the report.
        except Exception as error:
            notes.append(redacted(f"Left out: {picked.uri.rpartition('/')[2]} ({error})"))
        else:
            if built is None:
                notes.append(
                    f"Left out: {picked.uri.rpartition('/')[2]} (it is too large for a page of 5 MB)"
                )
            else:
                card, seen = built
                cards[name].append(card)
                left -= sum(len(media.src) + len(media.poster) for media in card.media)
                _count(made, seen)
        waiting -= 1
        progress.at(done)
    made.groups = tuple(Group(name, tuple(kept)) for name, kept in cards.items() if kept)
    made.notes = tuple(notes)
    return made


def _in_turns(wanted: list[tuple[str, tuple[Picked, ...]]]) -> Iterator[tuple[str, Picked]]:
    """One of each group, then the next: where room ends, all groups have some."""
    for turn in range(max(len(picks) for _, picks in wanted)):
        yield from ((name, picks[turn]) for name, picks in wanted if turn < len(picks))


def _count(made: Gallery, seen: Seen) -> None:
    made.alike.add(np.array(seen.alike))
    if seen.lengths is not None:
        made.lengths.add(seen.lengths)
    if seen.size is not None:
        made.sizes.add([seen.size])
