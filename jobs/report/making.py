"""A run's report, made of what its output has: its summary, its rows and its quarantine; and kept with it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from jobs.quarantine import Group, grouped, quarantined
from jobs.records import Record, read_record, read_spec
from jobs.report.context import page_of
from jobs.report.gallery import COUNT, Gallery, gallery
from jobs.report.page import rendered
from jobs.spec import parse_job
from jobs.states import State
from jobs.store import Run, UnknownRunError
from jobs.summary import Summary, read_summary, write_summary
from pipelines.errors import QUARANTINE
from pipelines.flows import in_colour
from pipelines.manifest import numbered
from pipelines.meter import Progress
from pipelines.quality import Quality, measure
from pipelines.secrets import redacted
from pipelines.storage import Storage, open_storage


@dataclass(frozen=True)
class Report:
    """A report that was made."""

    where: str  #: its path or URI
    name: str  #: relative to the output
    summary: Summary
    state: State


def make_report(run: Run, state: State, message: str, progress: Progress) -> Report:
    """Write a run's report.html, and its summary.json anew; `state` and `message` are the run's as they are now.

    Raises UnknownRunError of a run that has left nothing in its output yet, OutputError where they can't be written.
    """
    storage = open_storage(run.output)
    record = read_record(storage, run.run_id)
    if record is None:
        raise UnknownRunError(
            f"Run {run.run_id} has left nothing in {run.output} yet: expected runs/{run.run_id}/run.json there. Ask "
            "again when it has begun; perceive status tells."
        )
    spec = read_spec(storage, record)
    summary = read_summary(storage, record, spec["name"])
    notes: list[str] = []
    quality = _measured(storage, record, spec, summary, notes, progress)
    seen = gallery(storage, record, quality, progress) if quality else Gallery()
    seen.notes = (*notes, *seen.notes)
    page = page_of(
        summary,
        state,
        message,
        quality,
        seen,
        _errors(storage, record, summary),
        _wheel(),
        {"input": _plainly(spec["input"]["uri"]), "checkpoint": redacted(spec["model"]["checkpoint"])},
    )
    name = f"runs/{run.run_id}/report.html"
    write_summary(storage, summary)
    storage.write(name, rendered(page))
    return Report(storage.where(name), name, summary, state)


def _measured(
    storage: Storage,
    record: Record,
    spec: Mapping[str, Any],
    summary: Summary,
    notes: list[str],
    progress: Progress,
) -> Quality | None:
    """What the run's rows come to; None while it has none, or where others' runs have taken their place since."""
    parts = _parts(storage, record, spec, summary)
    if not parts:
        return None
    progress.stage("parts measured", len(parts))
    try:
        found = measure(
            storage, parts, seed=int(record.run_id, 16) & 0xFFFFFFFF, count=COUNT, seen=progress.at
        )
    except FileNotFoundError as error:
        notes.append(f"Some of its rows are gone, so none is measured or shown: {error}")
        return None
    return found if found.rows else None


def _parts(storage: Storage, record: Record, spec: Mapping[str, Any], summary: Summary) -> list[str]:
    """The files with the rows that the run wrote: of the table, or of an unfinished run those committed so far."""
    start = f"{record.run_id}-"
    if summary.manifest is not None:
        names = [part.path for part in numbered(storage, summary.manifest).parts if part.rows]
        return [name for name in names if name.startswith(f"data/{start}") and f"{start}kept-" not in name]
    folder = f"runs/{record.run_id}/parts" if parse_job(dict(spec)).options.staged else "data"
    names = list(storage.names(folder, f"{folder}/{start}"))
    return [name for name in names if name.startswith(f"{folder}/{start}")]


def _errors(storage: Storage, record: Record, summary: Summary) -> Sequence[Group]:
    """What could not be processed, grouped; nothing where another run has collected its files since."""
    try:
        rows = quarantined(storage, record, summary.manifest)
    except FileNotFoundError:
        rows = QUARANTINE.empty_table()
    return grouped(rows)


def _plainly(uri: str | Sequence[str]) -> str:
    uris = [uri] if isinstance(uri, str) else list(uri)
    more = f", and {len(uris) - 3:,} more" if len(uris) > 3 else ""
    return redacted(", ".join(uris[:3]) + more)


def _wheel() -> str:
    """The colours of flow: each pixel's is that of going from the middle to it."""
    side = np.linspace(-1, 1, 193, dtype=np.float32)
    flow = np.stack(np.meshgrid(side, side), -1)  # H, W, 2
    colours = in_colour(flow, longest=1.0)
    alpha = np.where(np.hypot(flow[..., 0], flow[..., 1]) <= 1, 255, 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.dstack([colours, alpha])).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
