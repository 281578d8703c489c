"""What a report shows of a run: its summary, its rows' quality and its quarantine, in words, figures and charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.durations import spoken
from jobs.quarantine import Group as Errors
from jobs.report.charts import Chart
from jobs.report.figures import quality_of, time_of
from jobs.report.gallery import Gallery, Group
from jobs.report.words import moment, percent, size
from jobs.states import State
from jobs.summary import AttemptSummary, Summary
from pipelines.quality import Quality

_ERRORS, _ATTEMPTS = 50, 20  # that are shown at most
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
    going: bool
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
        going=going,
        limit=_sentence(summary.limit),
        lineage=tuple(_lineage(summary, where)),
        attempts=_attempts(summary, state),
        attempts_left_out=max(0, len(summary.attempts) - _ATTEMPTS),
        troubles=tuple(_troubles(summary)),
        time=tuple(time_of(summary)),
        quality=tuple(quality_of(quality, seen)) if quality else (),
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
    until = f" to {ended}" if ended and not going else f", {as_of}"
    return f"Run {summary.run_id}, {'from ' if ended and not going else 'since '}{began}{until}"


def _attempts(summary: Summary, state: State) -> tuple[AttemptSummary, ...]:
    """The last ones. That nobody is at one any more, which has no end, the summary can't know."""
    shown = summary.attempts[-_ATTEMPTS:]
    if state == "lost" and shown and shown[-1].outcome == "unfinished":
        return (*shown[:-1], replace(shown[-1], outcome="killed"))
    return shown


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


def _measured(quality: Quality, summary: Summary) -> str:
    said = f"Of {quality.rows:,} rows that this run wrote"
    if quality.parts_read < quality.parts:
        said += f", in {quality.parts_read:,} of its {quality.parts:,} files, evenly"
    return f"{said}." if quality.rows == summary.rows else f"{said}; the table has {summary.rows:,}."
