"""Cards: what went in beside what came out, by a task that gives back what it is given."""

import base64
import io
import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report import gallery as galleries
from jobs.report.cards import Card, Media, Seen, _pieces, card_of
from jobs.report.gallery import Gallery, _looked
from jobs.report.originals import Originals
from pipelines.publish import drop_staged
from pipelines.quality import Picked, Quality, measure
from pipelines.sink import committed
from tests.clips import write_clip
from tests.pipelines.committing import NoProgress, ended
from tests.pipelines.copying import CopyingRun


class OfRun(Originals):
    """A run's originals without a job file."""

    def __init__(self, run: CopyingRun) -> None:
        self._job: Any = SimpleNamespace(options=run.task)
        self._config, self._decoder, self._source = run.config, run.decoder, run.source
        self._spans = {}
        for span in run.plan.to_pylist():
            self._spans.setdefault(span["item_id"], []).append(span)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    write_clip(folder / "a.mp4", frames=16 * 6 + 5, size=(64, 48), audio_codec="aac")
    write_clip(folder / "silent.mp4", frames=20, size=(64, 48))
    return folder


def rows_of(run: CopyingRun) -> tuple[Quality, list[Picked]]:
    """Every row."""
    found = measure(run.sink.storage, list(committed(run.sink).values()), seed=0, count=100)
    return found, sorted(found.random, key=lambda one: (one.uri, one.window or 0))


def ran(media: Path, out: Path, video: str, **options: Any) -> CopyingRun:
    run = CopyingRun.over(media, out, video, shard_windows=4, **options)
    run.commit()
    return run


def frames_of(media: Media) -> list[np.ndarray]:
    assert media.src.startswith("data:video/mp4;base64,")
    with av.open(io.BytesIO(base64.b64decode(media.src.partition(",")[2]))) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


@pytest.mark.parametrize(
    "options", [{}, {"overlap": 4}, {"fit": "letterbox"}, {"fit": "tile", "tile_overlap": 4}], ids=str
)
def test_both_begin_at_the_same_frame(media: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    run = ran(media, tmp_path / "out", "tensors", **options)
    _, rows = rows_of(run)
    originals = OfRun(run)
    for picked in (rows[0], rows[len(rows) // 2], rows[-1]):
        built = card_of(picked, run.sink.storage, originals, 1_000_000)
        assert built
        card, seen = built
        assert min(seen.alike) > 0.999  # what came out is what went in
        original, made = card.media
        assert (original.what, made.what) == ("Original", "Reconstruction")
        first, second = frames_of(original), frames_of(made)
        assert len(first) == len(second)
        for n in (0, -1):  # the encoder is not the same to the last bit each time
            assert np.abs(first[n].astype(int) - second[n]).mean() < 3
        start, end = map(float, re.findall(r"shown from ([\d.]+) to ([\d.]+) s", card.place)[0])
        assert end - start == pytest.approx(len(first) / 25, abs=0.02)
        assert f"window {picked.window} at " in card.place
        at = float(re.findall(r" at ([\d.]+) s", card.place)[0])
        assert start <= at < end
        assert card.sound is ("silent" not in picked.uri)
        # What is blended is compared by the task itself.
        assert dict(card.facts)["PSNR"] == ("the same to the last bit" if "overlap" in options else "30.0 dB")


def test_of_mp4s_alone_the_part_is_found(media: Path, tmp_path: Path) -> None:
    run = ran(media, tmp_path / "out", "mp4")
    ended(run.plan, run.sink, run.task, "parquet")
    drop_staged(run.sink)
    [part] = run.sink.storage.names("data")
    found = measure(run.sink.storage, [part], seed=0, count=100)
    for picked in found.random[:3]:
        card, seen = card_of(picked, run.sink.storage, OfRun(run), 1_000_000) or (None, None)
        assert card
        assert seen
        assert min(seen.alike) > 0.8
        assert len(card.media) == 2


def test_what_does_not_fit_is_none(media: Path, tmp_path: Path) -> None:
    run = ran(media, tmp_path / "out", "tensors")
    _, rows = rows_of(run)
    assert card_of(rows[0], run.sink.storage, OfRun(run), 2_000) is None


def test_what_the_plan_does_not_have_is_said(media: Path, tmp_path: Path) -> None:
    run = ran(media, tmp_path / "out", "tensors")
    _, rows = rows_of(run)
    originals = OfRun(run)
    originals._spans = {}
    with pytest.raises(LookupError, match="the run's plan doesn't have it"):
        card_of(rows[0], run.sink.storage, originals, 1_000_000)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cards of a third of what they may have, or of as much; what each might have had."""
    asked: list[int] = []

    def card(picked: Picked, storage: Any, originals: Any, most: int) -> tuple[Card, Seen] | None:
        asked.append(most)
        if picked.uri == "/bad":
            raise ValueError("it is <b>bad</b>")
        if picked.uri == "/large":
            return None
        return Card(picked.uri, None, "", media=(Media("a", "b", "x" * (most * 4 // 3), 1, 1),)), Seen([0.5])

    monkeypatch.setattr(galleries, "card_of", card)
    return asked


def test_all_groups_have_some_within_the_pages_bytes(built: list[int]) -> None:
    def picks(*uris: str) -> tuple[Picked, ...]:
        return tuple(Picked("p", n, uri, uri, None, 0, 0.0) for n, uri in enumerate(uris))

    wanted = [("Best", picks("/1", "/bad", "/3")), ("Worst", picks("/4", "/large")), ("None", ())]
    found: Gallery = _looked(None, wanted, None, NoProgress())  # type: ignore[arg-type]
    assert {group.name: [card.name for card in group.cards] for group in found.groups} == {
        "Best": ["/1", "/3"], "Worst": ["/4"],
    }  # fmt: skip
    assert found.notes == (
        "Left out: bad (it is <b>bad</b>)", "Left out: large (it is too large for a page of 5 MB)",
    )  # fmt: skip
    shown = sum(len(one.src) for group in found.groups for card in group.cards for one in card.media)
    assert shown <= galleries._BYTES
    assert built[-1] > built[0]  # what others left
    assert found.alike.total == 3


@given(st.text(max_size=60), st.sets(st.integers(0, 100)), st.binary(max_size=6))
def test_marked_bytes_are_marked_characters(text: str, marked: set[int], rest: bytes) -> None:
    data = text.encode("utf-8", "replace") + rest
    pieces = _pieces(data, marked)
    plain = "".join(piece for piece, _ in pieces)
    spaces = {"⏎": "\n", "⇥": "\t", "␣": " "}
    expected = data.decode(errors="replace")
    shown = plain.removeprefix("…")
    assert all(a[1] != b[1] for a, b in itertools.pairwise(pieces))
    if len(shown) == len(expected):
        same = [a == b or spaces.get(a) == b or a == "⏎" for a, b in zip(shown, expected, strict=True)]
        assert all(same)
    assert any(mark for _, mark in pieces) is any(at < len(data) for at in marked)
