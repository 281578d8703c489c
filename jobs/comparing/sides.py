"""One side of a comparison: an output's table, or the one that a certain run closed."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.comparing.comparison import ComparisonError, Side, Speed
from jobs.records import Record, read_record, read_spec
from jobs.store import Run
from jobs.summary import read_summary
from pipelines.index import read_index
from pipelines.manifest import Manifest, newest, numbered
from pipelines.sink import schema_of
from pipelines.storage import Storage, open_storage


@dataclass(frozen=True)
class Table:
    """A table that is about to be compared."""

    storage: Storage
    manifest: Manifest
    record: Record  #: of the run that closed it
    index: pa.Table
    schema: pa.Schema

    @property
    def kept(self) -> list[str]:
        """The columns that are the input's."""
        names: list[str] = self.record.fingerprint["contents"]["keep"]
        return names


def opened(name: str, known: Callable[[str], Run]) -> Table:
    """The newest table of an output, or the one that a run closed: `name` is an output's folder or URI, that of one
    of its runs, or what `known` finds a run by. Raises ComparisonError, OutputError, and what `known` does.
    """
    if "://" not in name and "/" not in name and not os.path.isdir(name):
        run = known(name)
        return _closed_by(open_storage(run.output), run.run_id)
    place = name.rstrip("/") if "://" in name else os.path.abspath(name)
    found = newest(open_storage(place))
    if found:  # before it is taken for a run's: any folder may be called runs
        return _table(open_storage(place), found)
    out, runs, run_id = place.rpartition("/runs/")
    if runs and read_record(open_storage(out), run_id):
        return _closed_by(open_storage(out), run_id)
    raise ComparisonError(
        f"No finished run in {place}: expected manifests/<n>.json there. Name an output's folder or URI, or one of its "
        "runs, OUTPUT/runs/<run-id>; of a run that is not done, run its job to its end first."
    )


def side(table: Table) -> Side:
    """What is told of a table."""
    storage, manifest = table.storage, table.manifest
    spec = read_spec(storage, table.record)
    return Side(
        output=storage.uri,
        manifest=manifest.number,
        run_id=manifest.run_id,
        runs=pc.count_distinct(table.index["run_id"]).as_py(),
        job=spec["name"],
        checkpoint=spec["model"]["checkpoint"],
        items=manifest.items,
        rows=manifest.rows,
        quarantined=manifest.quarantined,
        speed=_speed(table, spec),
    )


def _closed_by(storage: Storage, run_id: str) -> Table:
    names = [*storage.names("manifests")]
    for name in reversed(names):
        number = int(name.rpartition("/")[2].removesuffix(".json"))
        found = numbered(storage, number)
        if found.run_id != run_id:
            continue
        if name != names[-1]:
            _check_there(storage, found)
        return _table(storage, found)
    raise ComparisonError(
        f"Run {run_id} in {storage.uri} has closed no table. Run its job to its end first: perceive resume {run_id}"
    )


def _check_there(storage: Storage, manifest: Manifest) -> None:
    """Whether an earlier table's files are all there still."""
    there = set(storage.names("data"))
    gone = [part.path for part in manifest.parts if part.path not in there]
    if gone:
        raise ComparisonError(
            f"{len(gone)} of the {len(manifest.parts)} files of run {manifest.run_id}'s table are not in {storage.uri} "
            "any more: a later run superseded them, and perceive gc has deleted them. Compare the newest table, or run "
            "the job again into another output."
        )


def _table(storage: Storage, manifest: Manifest) -> Table:
    record = read_record(storage, manifest.run_id)
    assert record  # a closed run has one
    return Table(
        storage=storage,
        manifest=manifest,
        record=record,
        index=read_index(manifest.index, storage),
        schema=schema_of(storage, manifest.parts[0].path),
    )


def _speed(table: Table, spec: dict[str, Any]) -> Speed:
    summary = read_summary(table.storage, table.record, spec["name"])
    last = summary.attempts[-1] if summary.attempts else None
    about = last.environment if last else {}
    processor = f"{about['cpu']}, {about['cores']} cores" if {"cpu", "cores"} <= about.keys() else ""
    return Speed(
        rate=summary.rate,
        seconds=summary.seconds,
        windows=summary.windows,
        device=last.device if last else "",
        machine=about.get("gpu", "") if last and last.device == "cuda" else processor,
        busy={name: stage.busy for name, stage in summary.stages.items() if stage.busy is not None},
    )
