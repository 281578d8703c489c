"""What a report shows of a run: its summary, its rows' quality and its quarantine, in words, figures and charts."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.durations import spoken
from jobs.pace import STAGES
from jobs.quarantine import Group as Errors
from jobs.report import charts
from jobs.report.charts import Chart, Series
from jobs.report.gallery import Gallery, Group
from jobs.report.words import moment, percent, size
from jobs.states import State
from jobs.summary import AttemptSummary, Point, Summary
from pipelines.quality import Histogram, Quality

_LABELS, _ERRORS, _ATTEMPTS = 15, 50, 20  # that are shown at most
_GOING: tuple[State, ...] = ("submitted", "running", "stopping")
_KINDS = {
    "first": "all of the input, into a new output",
    "all": "all of the input again",
    "changed": "what had changed of the input",
    "retry": "what was in quarantine",
    "incremental": "what was new",
}


@dataclass(frozen=True)
class Outcome:
    """How it ended, or where it is."""

    mark: str  #: done | part | failed | stopped | going: what its sign looks like
    word: str
    says: str  #: a sentence


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    title: str
    summary: Summary
    outcome: Outcome
    when: str  #: from when to when, or as of when
    checkpoint: str
    figures: tuple[tuple[str, str, str], ...]  #: what, how many, of how many
    limit: str
    lineage: tuple[tuple[str, str], ...]
    attempts: tuple[AttemptSummary, ...]
    attempts_left_out: int
    troubles: tuple[str, ...]
    time: tuple[Chart, ...]
    quality: tuple[Chart, ...]
    measured: str  #: of which rows the quality is
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    wheel: str  #: the colours of flow, as a data URI; nothing where there is no flow
    errors: tuple[Errors, ...]
    errors_left_out: int


def page_of(
    summary: Summary,
    state: State,
    message: str,
    quality: Quality | None,
    seen: Gallery,
    errors: Sequence[Errors],
    wheel: str,
    where: Mapping[str, str],
) -> Page:
    """The page of a run. `state` and `message` are the run's as they are now, `where` what lies where."""
    going = state in _GOING
    return Page(
        title=summary.job,
        summary=summary,
        outcome=_outcome(summary, state, message),
        when=_when(summary, going),
        checkpoint=where.get("checkpoint", ""),
        figures=tuple(_figures(summary)),
        limit=_sentence(summary.limit),
        lineage=tuple(_lineage(summary, where)),
        attempts=summary.attempts[-_ATTEMPTS:],
        attempts_left_out=max(0, len(summary.attempts) - _ATTEMPTS),
        troubles=tuple(_troubles(summary)),
        time=tuple(_time(summary)),
        quality=tuple(_quality(quality, seen)) if quality else (),
        measured=_measured(quality, summary) if quality else "",
        groups=seen.groups,
        notes=seen.notes,
        wheel=wheel if seen.lengths.total else "",
        errors=tuple(errors[:_ERRORS]),
        errors_left_out=max(0, len(errors) - _ERRORS),
    )


def _outcome(summary: Summary, state: State, message: str) -> Outcome:
    share = f" ({percent(summary.windows / summary.total)})" if summary.total else ""
    reached = f"{summary.windows:,} of {summary.total:,} windows{share}"
    last = summary.attempts[-1] if summary.attempts else None
    told = message or (last.message if last else "")
    match state:
        case "submitted":
            made = "going", "Waiting", "A target has it; it has not begun."
        case "running" | "stopping":
            word = "Going on" if state == "running" else "Stopping"
            made = "going", word, f"The model has done {reached}."
        case "done" if summary.quarantined:
            count = summary.quarantined if summary.items_quarantined is None else summary.items_quarantined
            items = f"{summary.items:,} item{'s' * (summary.items != 1)}"
            said = f"{count:,} of {items} {'is' if count == 1 else 'are'} not whole in the table."
            made = "part", "Done, with quarantined items", said
        case "done":
            made = "done", "Done", "Every item is in the table."
        case "failed":
            made = "failed", "Failed", told or "An attempt ended with an error."
        case "stopped":
            made = "stopped", "Stopped", f"{told or 'Somebody stopped it.'} The model had done {reached}."
        case _:
            made = "failed", "Killed", f"{told} The model had done {reached}.".strip()
    return Outcome(*made)


def _when(summary: Summary, going: bool) -> str:
    began = moment(summary.attempts[0].began) if summary.attempts else ""
    ended = moment(summary.attempts[-1].ended) if summary.attempts else ""
    as_of = f"as of {moment(summary.written)}"
    if not began:
        return f"Run {summary.run_id}, {as_of}"
    until = f"to {ended}" if ended and not going else as_of
    return f"Run {summary.run_id}, {'from ' if ended and not going else 'since '}{began} {until}"


def _sentence(limit: str) -> str:
    return f"{limit[0].upper()}{limit[1:]}." if limit else ""


def _figures(summary: Summary) -> list[tuple[str, str, str]]:
    done = summary.shards_done >= summary.shards > 0
    figures = [
        ("Items", f"{summary.items:,}", ""),
        ("Rows", f"{summary.rows:,}", "" if done else "so far"),
        (
            "Windows",
            f"{summary.windows:,}",
            "" if summary.windows >= summary.total else f"of {summary.total:,}",
        ),
        ("Quarantined", f"{summary.quarantined:,}", "rows" if summary.quarantined != 1 else "row"),
        (
            "Took",
            spoken(summary.seconds),
            f"in {len(summary.attempts)} attempts" if len(summary.attempts) > 1 else "",
        ),
    ]
    if summary.rate:
        figures.append(("Rate", f"{summary.rate:,.3g}", "windows a second"))
    return figures


def _lineage(summary: Summary, where: Mapping[str, str]) -> list[tuple[str, str]]:
    what = summary.fingerprint
    first = summary.attempts[0].began if summary.attempts else None
    last = summary.attempts[-1].ended if summary.attempts else None
    contents = what.get("contents") or {}
    facts: list[tuple[str, Any]] = [
        ("Run", summary.run_id),
        ("Did", _KINDS.get(summary.kind, summary.kind)),
        ("Began", moment(first)),
        ("Ended", moment(last)),
        ("For the time", moment(summary.fire) if summary.fire else ""),
        ("Went on from", f"manifest {summary.base}" if summary.base is not None else ""),
        ("Published", f"manifest {summary.manifest}" if summary.manifest is not None else ""),
        ("Input", where.get("input")),
        ("Input as it was listed", what.get("input")),
        ("Limit", f"the first {what['input.limit']:,} items" if what.get("input.limit") else ""),
        ("Read as", ", ".join(f"{name} {value}" for name, value in contents.items() if value)),
        ("Output", summary.output),
        ("Checkpoint", where.get("checkpoint")),
        ("Checkpoint's hash", what.get("checkpoint")),
        ("Code", f"perceiver-batch {what['code']}" if what.get("code") else ""),
        ("Computed in", _computed(what)),
        (
            "Options",
            ", ".join(f"{name} {_plain(value)}" for name, value in (what.get("options") or {}).items()),
        ),
        ("Read", size(summary.decoded_bytes) + " of windows" if summary.decoded_bytes else ""),
        ("Wrote", size(summary.rows_bytes) + " of rows" if summary.rows_bytes else ""),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _computed(what: Mapping[str, Any]) -> str:
    folded = "folded" if what.get("fold") else "not folded"
    reference = {"hf": "transformers' answers", "deepmind": "the original model's answers"}.get(
        what.get("reference") or ""
    )
    batch = f"batches of {what['batch']}" if what.get("batch") else ""
    return ", ".join(filter(None, [what.get("dtype"), folded, reference, batch]))


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)


def _troubles(summary: Summary) -> list[str]:
    """What was in its way."""
    found = [
        (summary.oom_halvings, "a device's memory was short, and batch and chunk were halved"),
        (summary.workers_replaced, "a sick worker was replaced"),
        (summary.nodes_changed, "the cluster's nodes changed"),
        (summary.stalls, "nothing moved for too long"),
    ]
    told = [f"{what[0].upper()}{what[1:]}: {_times(count)}." for count, what in found if count]
    retries = ", ".join(f"{name} {_times(count)}" for name, count in summary.retries.items())
    return [*told, *([f"Storage failed in passing, and was asked again: {retries}."] if retries else [])]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _time(summary: Summary) -> list[Chart]:
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


def _quality(quality: Quality, seen: Gallery) -> list[Chart]:
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


def _measured(quality: Quality, summary: Summary) -> str:
    said = f"Of {quality.rows:,} rows that this run wrote"
    if quality.parts_read < quality.parts:
        said += f", in {quality.parts_read:,} of its {quality.parts:,} files, evenly"
    return f"{said}." if quality.rows == summary.rows else f"{said}; the table has {summary.rows:,}."


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
