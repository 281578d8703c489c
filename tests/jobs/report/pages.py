"""Pages of runs that there never were."""

from dataclasses import replace
from typing import Any

import numpy as np

from jobs.quarantine import Group as Errors
from jobs.report.cards import Card, Media
from jobs.report.context import Page, page_of
from jobs.report.gallery import Gallery, Group
from jobs.states import State
from jobs.summary import AttemptSummary, Point, StageSummary, Summary
from pipelines.quality import Histogram, Quality

DOT = "data:image/png;base64,AAAA"


def attempt(number: int = 1, **changes: Any) -> AttemptSummary:
    made = AttemptSummary(
        number=number, host="node", device="cpu", began="2026-11-26T10:00:00+00:00", ended="2026-11-26T10:01:00+00:00",
        outcome="done", seconds=60.0, shards_before=0, shards=4,
        environment={"python": "3.11.7", "packages": {"torch": "2.13.0"}, "cpu": "a cpu", "cores": 2, "memory": 8e9},
    )  # fmt: skip
    return replace(made, **changes)


def summary(**changes: Any) -> Summary:
    stage = StageSummary(
        workers=1, windows=40, busy_s=12.5, busy=0.5, queue=0, queue_most=7, memory_peak=1 << 28
    )
    points = tuple(
        Point(1, 10.0 * n, 10 * n, {"decode": 40 - 10 * n, "predict": 2, "write": 1}, 0.75, 1 << 30)
        for n in range(5)
    )
    made = Summary(
        run_id="0123456789ab", job="texts", task="text-classification", output="/out", kind="first", base=None, fire="",
        outcome="done", written="2026-11-26T10:02:00+00:00", seconds=60.0, windows=40, total=40, rate=1.25, shards=4,
        shards_done=4, items=40, rows=40, quarantined=0, items_quarantined=0, errors={}, manifest=1,
        decoded_bytes=1 << 20, rows_bytes=1 << 10, device_peak=None,
        limit="decode limits: 1 more CPU worker would give about 1.3x",
        stages={"decode": stage, "predict": stage, "write": stage}, retries={}, oom_halvings=0, workers_replaced=0,
        nodes_changed=0, stalls=0, news=None, attempts=(attempt(),), timeline=points,
        fingerprint={"options": {"top_k": 2, "overlap": 0, "csv": False}, "checkpoint": "f" * 64, "code": "0.1.0"},
    )  # fmt: skip
    return replace(made, **changes)


def quality(labels: dict[str, int] | None = None) -> Quality:
    scores = Histogram(0, 1, 100)
    scores.add(np.linspace(0.1, 0.9, 40))
    return Quality(
        rows=40, parts_read=2, parts=2, spreads={"label": scores}, labels={"poem": 40} if labels is None else labels,
        unlabelled=0, by="label", best=(), worst=(), random=(),
    )  # fmt: skip


def page(state: State = "done", message: str = "", of: Summary | None = None, word: str = "a") -> Page:
    """A page with everything on it; `word` stands wherever strangers' words do."""
    clip = Media("Original", f"1.0 seconds of {word}", DOT, 48, 48, DOT)
    cards = (
        Card(
            word, word, word, ((word, word),), ((word, 0.5), ("b", 0.0001)),
            text=((word, False), (word, True)), fills=((word, word),),
        ),
        Card(word, None, "window 1", media=(clip, clip), clips=True, sound=True),
        Card(word, None, "window 2", media=(clip,)),
    )  # fmt: skip
    seen = Gallery((Group(word, cards),), (word,))
    seen.lengths.add([1.0, 2.0])
    errors = [Errors(word, "decode", "00", 3, 2, word, word, word)]
    where = {"input": word, "checkpoint": word}
    return page_of(
        of or summary(), state, message, quality({word: 30, "other": 10}), seen, errors, DOT, where
    )
