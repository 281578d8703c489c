"""What a run would come to, before anything is spent: its work and output, whether it fits, time, size and price."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.local import cores
from jobs.lease import attempts
from jobs.pace import STAGES
from jobs.planning import plan_of, sink_of, windows_of
from jobs.probe import SHEET_ITEMS, Measured, measure, played_through
from jobs.records import Kind, read_table
from jobs.resolve import Resolved
from jobs.spec import Job
from jobs.which import which
from pipelines.commits import Commits
from pipelines.describing import meaning
from pipelines.meter import Progress
from pipelines.plan import count_shards, count_windows
from pipelines.pools import Node, lasting
from pipelines.stages import ITEM
from pipelines.storage import open_storage
from pipelines.tensors import is_tensor, type_name

_NOISE = 0.1  # of any time, from one run to the next
_OPEN_S = 0.5  # for the lease, the records and the manifest

Does = Literal["new", "resume", "nothing", "changed", "incremental", "all"]
_DOES: dict[Kind, Does] = {  # a retry is no plan
    "first": "new", "changed": "changed", "incremental": "incremental", "all": "all",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of the output."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Asks:
    """What a stage asks for."""

    stage: str
    workers: int
    cpus: float  #: each
    gpus: float  #: each


@dataclass(frozen=True)
class Range:
    """A number that is not known exactly."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> "Range":
        return Range(self.low * factor, self.likely * factor, self.high * factor)


@dataclass(frozen=True)
class Plan:
    """What a run would do and take."""

    job: str
    task: str
    output: str
    run_id: str
    #: A new run; one that is resumed, or done; of a table that is there, what has changed, what is new, or all again.
    does: Does
    items: int
    unreadable: int  #: of the items, those whose headers say that they will be in quarantine
    windows: int
    shards: int
    input_bytes: int
    done_windows: int  #: of the windows, those that are in the output
    done_shards: int
    format: str
    columns: tuple[Column, ...]
    device: str
    dtype: str
    batch: int  #: windows per call of the model
    nodes: tuple[Node, ...]  #: the CPUs, the GPUs and their type of each
    lasting: Node  #: what of these is left with the largest node gone, which all stages fit into
    stages: tuple[Asks, ...]
    seconds: Range | None  #: of the run, from now on to its end; None: not measured
    output_bytes: Range | None  #: that are added to the output
    staged_bytes: float | None  #: of these, and beside them, what goes when the table is there
    usd: Range | None
    measured: Measured | None

    @property
    def fits(self) -> str:
        """That all stages can run beside each other, and with how much to spare: what can't is refused."""
        cpus = sum(one.workers * one.cpus for one in self.stages)
        gpus = sum(one.workers * one.gpus for one in self.stages)
        device = f" and {gpus:g} of {self.lasting.gpus:g} GPUs" if gpus else ""
        gone = f", with the largest of {len(self.nodes)} nodes gone" if len(self.nodes) > 1 else ""
        return f"It fits: all stages beside each other ask for {cpus:.2f} of {self.lasting.cpus:g} CPUs{device}{gone}."


def plan(
    job: Job,
    progress: Progress,
    *,
    supersede: bool = False,
    probe: bool = True,
    usd_per_gpu_hour: float | None = None,
    nodes: tuple[Node, ...] | None = None,
) -> Plan:
    """Say what `run_job` would do, having done nothing: the output is read, never written to.

    Time and size are measured, by some shards that are run here into a folder that goes again; not for other `nodes`
    than this machine. Raises what `run_job` would raise before it begins, so SpecError where the stages don't fit.
    """
    began = time.monotonic()
    found = which(job, progress, supersede, nodes)
    record, resolved, storage = found.before or found.record, found.resolved, open_storage(job.output.uri)
    planned = plan_of(record, resolved, storage, found.listing, found.news, progress)
    rows = planned.plan if planned else read_table(storage, record, "plan")
    does: Does = "nothing" if found.table else _DOES[record.kind] if planned else "resume"
    if found.table:
        done = np.ones(count_shards(rows), bool)
    else:
        sink = sink_of(storage, record, resolved, attempts(storage, record.run_id))
        done = Commits(sink, count_shards(rows)).done
    before_s = time.monotonic() - began
    missing = rows.filter(pa.array(~done[rows["shard"].to_numpy()]))
    measured = None
    if probe and missing.num_rows and nodes is None:
        measured = measure(resolved, missing, _beside(job.output.uri), progress)
    seconds = _seconds(resolved, rows, missing, before_s, measured, does)
    hours = None if seconds is None else seconds.times(1 / 3600)
    size = None
    if measured:
        left = count_windows(missing) * measured.window_bytes
        spread = 0.05 if measured.whole else 0.1 + measured.spread
        size = Range(left * (1 - spread), left, left * (1 + spread))
    pools, asked = resolved.pools, usd_per_gpu_hour is not None and resolved.gpus > 0
    return Plan(
        job=job.name,
        task=job.task,
        output=storage.uri,
        run_id=record.run_id,
        does=does,
        items=len(rows["item_id"].unique()),
        unreadable=len(rows.filter(pc.is_valid(rows["error"]))["item_id"].unique()),
        windows=count_windows(rows),
        shards=count_shards(rows),
        input_bytes=_bytes(rows),
        done_windows=windows_of(rows, done),
        done_shards=int(done.sum()),
        format=job.format,
        columns=_columns(resolved),
        device=resolved.device,
        dtype=resolved.model.dtype,
        batch=resolved.model.batch,
        nodes=resolved.nodes,
        lasting=lasting(resolved.nodes),
        stages=(
            Asks("feed", 1, pools.feed_cpus, 0.0),
            Asks("decode", pools.decode_workers, pools.decode_cpus, 0.0),
            Asks("predict", pools.predict_workers, pools.predict_cpus, pools.predict_gpus),
            Asks("write", 1, pools.write_cpus, 0.0),
        ),
        seconds=seconds,
        output_bytes=size,
        staged_bytes=count_windows(missing) * measured.staged_bytes if measured else None,
        usd=hours.times((usd_per_gpu_hour or 0.0) * resolved.gpus) if hours and asked else None,
        measured=measured,
    )


def _seconds(
    resolved: Resolved,
    rows: pa.Table,
    missing: pa.Table,
    before_s: float,
    measured: Measured | None,
    does: Does,
) -> Range | None:
    """How long the run takes, with what it takes to list and plan it."""
    if not missing.num_rows and does == "nothing":
        return Range(before_s, before_s, before_s)
    if measured is None:
        return None
    workers = resolved.pools.at_once(cores(), len(missing["shard"].unique()))
    working = measured.slower * played_through(
        missing, measured.stage_s, [workers[stage] for stage in STAGES]
    )
    # Files of items are assembled beside each other: of fewer items than cores, some cores had nothing to do.
    items = len(rows["item_id"].unique())
    crowded = min(cores(), max(1, measured.finish_items)) / min(cores(), max(1, items))
    finishing = count_windows(rows) * measured.finish_s * crowded + min(SHEET_ITEMS, items) * measured.sheet_s
    fixed = before_s + _OPEN_S + measured.start_s + measured.end_s
    varies = 2 * measured.spread * (working + finishing)
    likely = fixed + working + finishing
    return Range(max(fixed, likely * (1 - _NOISE) - varies), likely, likely * (1 + _NOISE) + varies)


def _bytes(rows: pa.Table) -> int:
    """Of the input, each item once."""
    sizes = rows.group_by("item_id").aggregate([("size", "max")])["size_max"]
    return int(pc.sum(sizes, min_count=0).as_py())


def _columns(resolved: Resolved) -> tuple[Column, ...]:
    """The table's: of staged parts, tensors are not in it."""
    fields = [*ITEM, *resolved.columns]
    if resolved.job.options.staged:
        fields = [field for field in fields if not is_tensor(field.type)]
    return tuple(Column(field.name, type_name(field.type), meaning(field)) for field in fields)


def _beside(output: str) -> Path:
    """Where the probe's folder goes: on the output's own disk if it is local and can be written to."""
    if "://" not in output:
        above = next(folder for folder in Path(os.path.abspath(output)).parents if folder.is_dir())
        if os.access(above, os.W_OK):
            return above
    return Path(tempfile.gettempdir())
