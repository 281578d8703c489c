"""The picture of a run."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines import contact_sheet
from pipelines.contact_sheet import Panel, draw, write_contact_sheet
from pipelines.publish import drop_staged
from tests.clips import write_clip
from tests.pipelines.committing import ended
from tests.pipelines.copying import CopyingRun


def panel(name: str = "a.mp4", frames: int = 4, size: tuple[int, int] = (24, 32)) -> Panel:
    above = np.full((frames, *size, 3), (255, 0, 0), np.uint8)
    return Panel(name, ("picture 30.0 dB", "apple 90%"), above, 255 - above)


def sheet_of(run: CopyingRun) -> Path | None:
    run.commit()
    ended(run.plan, run.sink, run.task, run.task.format)
    return write_contact_sheet(run.plan, run.sink, run.task, run.config, run.source, run.decoder)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Panel], list[str]]]:
    """What was given to `draw`, which still draws."""
    seen = []

    def spy(title: str, panels: list[Panel], notes: list[str]) -> Image.Image:
        seen.append((title, panels, notes))
        return draw(title, panels, notes)

    monkeypatch.setattr(contact_sheet, "draw", spy)
    return seen


@pytest.mark.parametrize("video", ["tensors", "mp4"])
def test_sources_are_shown_as_the_model_saw_them(
    tmp_path: Path, video: str, drawn: list[tuple[str, list[Panel], list[str]]]
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    write_clip(media / "a.mp4", frames=16 * 4 + 5, audio_codec="aac")
    write_clip(media / "b.mp4", frames=2)
    (media / "text.mp4").write_text("not a video")
    run = CopyingRun.over(media, tmp_path / "out", video)
    name = sheet_of(run)
    assert name == "runs/run0/contact-sheet.png"
    path = tmp_path / "out" / name
    [(title, [first, second], notes)] = drawn
    assert (title, notes) == ("copy: 2 of 2 items", [])
    assert (first.name, first.captions) == ("a.mp4", ("picture 30.0 dB, sound 20.0 dB", "apple 100%"))
    assert (second.name, second.captions) == ("b.mp4", ("picture 30.0 dB", "apple 100%"))
    assert len(first.source) == 4
    assert len(second.source) == 2
    for one in (first, second):  # the copying task gives back exactly what it was given
        np.testing.assert_array_equal(one.source, one.reconstruction)
    assert (first.source[0] != first.source[-1]).any()
    before = path.read_bytes()
    drop_staged(run.sink)
    assert write_contact_sheet(run.plan, run.sink, run.task, run.config, run.source, run.decoder) == name
    assert path.read_bytes() == before
    path.unlink()
    again = write_contact_sheet(run.plan, run.sink, run.task, run.config, run.source, run.decoder)
    assert again == (None if video == "mp4" else name)  # its parts are gone: there is nothing to draw from


def test_sources_that_are_gone_or_changed_are_left_out(
    tmp_path: Path, drawn: list[tuple[str, list[Panel], list[str]]]
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for name in ("a", "b", "c"):
        write_clip(media / f"{name}.mp4", frames=20)
    run = CopyingRun.over(media, tmp_path / "out", "tensors")
    run.commit()
    (media / "a.mp4").unlink()
    os.utime(media / "b.mp4", (1, 1))
    assert sheet_of(run) is not None
    [(title, panels, notes)] = drawn
    assert title == "copy: 1 of 3 items"
    assert [one.name for one in panels] == ["c.mp4"]
    assert notes == ["Left out: a.mp4 (it is gone)", "Left out: b.mp4 (it has changed since)"]


def test_at_most_sixteen_items_evenly(
    tmp_path: Path, drawn: list[tuple[str, list[Panel], list[str]]]
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    write_clip(media / "00.mp4", frames=3)
    for n in range(1, 32):
        (media / f"{n:02}.mp4").write_bytes((media / "00.mp4").read_bytes())
    sheet_of(CopyingRun.over(media, tmp_path / "out", "tensors"))
    assert [one.name for one in drawn[0][1]] == [f"{n:02}.mp4" for n in range(0, 32, 2)]


def test_a_run_without_rows_has_no_sheet(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "text.mp4").write_text("not a video")
    assert sheet_of(CopyingRun.over(media, tmp_path / "out", "mp4")) is None


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (16, 4)])
def test_the_grid(count: int, columns: int) -> None:
    one = draw("t", [panel()], []).width
    assert draw("t", [panel()] * count, []).width - one == (columns - 1) * (one - 2 * 28 + 14)


@pytest.mark.parametrize("size", [(8, 8), (24, 32), (48, 48), (128, 100), (224, 224), (1, 1)])
def test_frames_are_large_enough_to_see_and_not_blurred(size: tuple[int, int]) -> None:
    sheet = np.asarray(draw("t", [panel(size=size)], []))
    red = (sheet == (255, 0, 0)).all(-1)
    cyan = (sheet == (0, 255, 255)).all(-1)
    assert red.sum() == cyan.sum()
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red[red.any(1)][0])
    assert 86 <= max(len(rows), len(columns) / 4) <= 128
    assert rows.max() < np.flatnonzero(cyan.any(1)).min()  # the reconstructions are under the sources


@pytest.mark.parametrize(
    "name",
    ["😀" * 40, "שלום עולם.mp4", "a\nb\x00\u202e.mp4", "\udcff.mp4", "", "x" * 5000, "e" + "\u0301" * 500],
)
def test_any_name_can_be_drawn(name: str) -> None:
    sheet = draw(name, [panel(name)], [f"Left out: {name}"])
    assert sheet.size == draw("t", [panel()], ["note"]).size


@given(st.text(st.characters(), max_size=60))
def test_names_fit(name: str) -> None:
    short = contact_sheet._fitted(name, contact_sheet._NAME, 100)
    assert contact_sheet._font(contact_sheet._NAME).getlength(short) <= 100
    assert short.isprintable()
