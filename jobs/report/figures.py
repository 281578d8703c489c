"""What of a run is drawn: where its time went, and how good its rows are."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.durations import spoken
from jobs.pace import STAGES
from jobs.report import charts
from jobs.report.charts import Chart, Series
from jobs.report.gallery import Gallery
from jobs.report.words import percent, size
from jobs.summary import Point, Summary
from pipelines.quality import Histogram, Quality

_LABELS = 15  # that are shown at most


def time_of(summary: Summary) -> list[Chart]:
    """Throughput, and where the time went."""
    made = []
    points = summary.timeline
    rates = _rates(points)
    if any(rates):
        most = max(point[1] for point in rates if point)
        says = (
            f"The model did up to {most:.3g} windows a second; over all of its work {summary.rate or 0:.3g}."
        )
        made.append(
            charts.lines(
                "Windows a second",
                says,
                [Series("windows", rates)],
                _SECONDS,
                ("windows a second", _number),
                area=True,
            )
        )
    if summary.stages:
        made.append(_busy(summary))
    if len(points) > 1:
        so_far = Series("windows", _with_gaps(points, lambda point: point.windows))
        says = f"{summary.windows:,} of {summary.total:,} that the run has, by the time since it began."
        made.append(
            charts.lines(
                "Windows done", says, [so_far], _SECONDS, ("windows", _number), area=True, whole=True
            )
        )
        queues = [
            Series(f"for {stage}", _with_gaps(points, lambda point, stage=stage: point.queues.get(stage, 0)))
            for stage in STAGES
        ]
        longest = ", ".join(f"{one.queue_most:,} for {stage}" for stage, one in summary.stages.items())
        made.append(
            charts.lines(
                "Windows that wait",
                f"At most: {longest}.",
                queues,
                _SECONDS,
                ("windows", _number),
                whole=True,
            )
        )
        memory = [point.memory for point in points if point.memory is not None]
        if memory:
            says = f"On the driver's machine, all programs together: from {size(min(memory))} to {size(max(memory))}."
            known = [point for point in points if point.memory is not None]
            line = _with_gaps(known, lambda point: (point.memory or 0) / 1e9)
            made.append(
                charts.lines(
                    "Memory in use", says, [Series("memory", line)], _SECONDS, ("GB", _number), area=True
                )
            )
        cores = _with_gaps(points, lambda point: point.cores_busy)
        says = "The share of the cores of the driver's machine that was busy, by all programs together."
        made.append(
            charts.lines(
                "Cores at work", says, [Series("cores", cores)], _SECONDS, ("busy", percent), area=True
            )
        )
    return made


def quality_of(quality: Quality, seen: Gallery) -> list[Chart]:
    made = []
    for name, title, unit, what in (
        ("video_psnr", "PSNR of pictures", "dB", "rows"),
        ("audio_psnr", "PSNR of sound", "dB", "rows"),
    ):
        spread = quality.spreads.get(name)
        if spread:
            made.append(charts.histogram(title, _spread_says(spread, unit, 1), spread, unit, what))
    if seen.alike.total:
        says = f"Of every fourth frame of the clips below. {_spread_says(seen.alike, '', 3)}"
        made.append(charts.histogram("SSIM of frames", says, seen.alike, "", "frames", digits=3))
    if quality.labels:
        made.append(_labels(quality))
    for name, title in (("label", "Score of the likeliest label"), ("fill", "Score of the likeliest byte")):
        spread = quality.spreads.get(name)
        if spread:
            what = "rows" if name == "label" else "masks"
            made.append(charts.histogram(title, _spread_says(spread, "", 2), spread, "", what, digits=2))
    if seen.lengths.total or seen.lengths.unknown:
        says = f"Of the pixels of the pairs below. {_spread_says(seen.lengths, 'px', 1)}"
        made.append(charts.histogram("Length of motion", says, seen.lengths, "px", "pixels", digits=2))
    if seen.sizes.total:
        says = f"Root mean squares of the rows below. {_spread_says(seen.sizes, '', 3)}"
        made.append(charts.histogram("Size of latents", says, seen.sizes, "", "rows", digits=3))
    return made


def _busy(summary: Summary) -> Chart:
    rows = []
    for stage, one in summary.stages.items():
        workers = f"{one.workers} worker{'s' * (one.workers != 1)}"
        memory = f", {size(one.memory_peak)} each at most" if one.memory_peak else ""
        rows.append((f"{stage}: {workers}{memory}", one.busy or 0.0, percent(one.busy) or "unknown"))
    busiest = max(rows, key=lambda row: row[1])
    says = "The share of its workers' time in which each stage worked. "
    says += f"The busiest was {busiest[0].partition(':')[0]}, with {busiest[2]}."
    chart = charts.bars("Stages at work", says, rows, ("stage", "busy"), 1.0)
    columns = ("stage", "busy", "workers", "windows", "worked, s", "longest queue", "most memory")
    table = tuple(
        (
            stage,
            percent(one.busy),
            f"{one.workers:,}",
            f"{one.windows:,}",
            f"{one.busy_s:,.4g}",
            f"{one.queue_most:,}",
            size(one.memory_peak),
        )
        for stage, one in summary.stages.items()
    )
    return replace(chart, columns=columns, rows=table)


def _labels(quality: Quality) -> Chart:
    shown = list(quality.labels.items())[:_LABELS]
    most = max(quality.labels.values())
    all_of_them = sum(quality.labels.values())
    rows = [(name, float(count), f"{count:,} ({percent(count / all_of_them)})") for name, count in shown]
    more = len(quality.labels) - len(shown)
    occur = "One label occurs" if len(quality.labels) == 1 else f"{len(quality.labels):,} labels occur"
    says = f"How many rows have each as their likeliest. {occur}"
    says += f"; the {len(shown)} most frequent are shown" if more > 0 else ""
    says += f"; {quality.unlabelled:,} rows have none above the threshold" if quality.unlabelled else ""
    return charts.bars("Labels", f"{says}.", rows, ("label", "rows"), float(most))


def _spread_says(spread: Histogram, unit: str, digits: int) -> str:
    low, middle, high = (spread.quantile(share) for share in (0.05, 0.5, 0.95))
    if low is None or middle is None or high is None:
        return "No row has a value."
    unit = f" {unit}" if unit else ""
    more = f" {spread.unknown:,} are not numbers." if spread.unknown else ""
    among = f"nine in ten from {low:.{digits}f} to {high:.{digits}f}{unit}"
    return f"Median (dashed) {middle:.{digits}f}{unit}; {among}.{more}"


def _rates(points: Sequence[Point]) -> list[tuple[float, float] | None]:
    """Windows a second between each two moments; a gap where an attempt ends."""
    made: list[tuple[float, float] | None] = []
    for before, point in itertools.pairwise(points):
        passed = point.seconds - before.seconds
        if before.attempt != point.attempt:
            made.append(None)
        elif passed > 0:
            rate = max(0, point.windows - before.windows) / passed
            made += [(before.seconds, rate), (point.seconds, rate)]
    return made


def _with_gaps(points: Sequence[Point], value: Any) -> list[tuple[float, float] | None]:
    """A value of each moment; a gap where an attempt ends."""
    made: list[tuple[float, float] | None] = []
    for number, point in enumerate(points):
        if number and points[number - 1].attempt != point.attempt:
            made.append(None)
        made.append((point.seconds, float(value(point))))
    return made


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.3g}"


_SECONDS = ("time", spoken)
