"""The probe: some of a plan's shards go through the pipeline, into a folder that goes again, to learn what all take.

First some that are cut short, for a whole one of a slow model may take minutes; then whole ones, evenly from all of the
plan. With what they took, all of a run's shards are played through its stages, from its start to the last one's end.
"""

import heapq
import json
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.local import cores
from jobs import attempt
from jobs.events import Events, read
from jobs.pace import STAGES
from jobs.resolve import Resolved
from pipelines.contact_sheet import write_contact_sheet
from pipelines.decoding import Decoder
from pipelines.index import index_of, read_quarantine, write_index
from pipelines.manifest import Part, close
from pipelines.meter import Progress
from pipelines.plan import PLAN, by_shard, count_shards, count_windows
from pipelines.publish import publish
from pipelines.sink import Commit, Sink, as_table
from pipelines.storage import open_storage

_STEADY_S, _MOST_S = 12.0, 30.0  # of whole shards, from the first commit on: enough, and at most
#: A whole shard that would take longer is not waited for. Decoding runs ahead, and its first shards are slow ones:
#: the model's worker opens the weights meanwhile.
_LONG_S = (60.0, 20.0)  # in decode and in predict
_MOST_SHARDS = 256
_TOGETHER = 24  # shards of few long items that are measured, at least
_GOLDEN = (math.sqrt(5) - 1) / 2
SHEET_ITEMS = 16  # that a contact sheet shows
_PLAYED = 20_000  # shards: of more, only some are played through


@dataclass(frozen=True)
class Measured:
    """What the probe's shards took."""

    shards: int
    windows: int
    seconds: float  #: that it took to find out
    whole: bool  #: they are all that there is to do
    start_s: float  #: until workers could begin
    stage_s: tuple[float, ...]  #: that a worker of each stage takes for a window
    slower: float  #: how many times as long as its stages' own seconds the chain of them takes
    end_s: float  #: from the last commit until everything is shut down
    finish_s: float  #: that publishing and assembling take a window
    finish_items: int  #: that were assembled: fewer than there are cores leave some idle
    sheet_s: float  #: that an item takes on the contact sheet
    window_bytes: float  #: of the output
    staged_bytes: float  #: of parts that go once the table is there, a window
    spread: float  #: the standard error of a window's seconds, as a share of them


@dataclass(frozen=True)
class Sample:
    """Some of a plan's shards, as a plan of their own: `heads` that are cut short, then whole ones."""

    plan: pa.Table
    heads: int
    whole: bool  #: all of the plan's shards are among them


def measure(resolved: Resolved, plan: pa.Table, folder: Path, progress: Progress) -> Measured:
    """Run some shards of these rows of a plan into a new folder in `folder`, and delete it. Raises what a run does."""
    out = tempfile.mkdtemp(prefix=".perceive-plan-", dir=folder)
    try:
        return _measured(resolved, plan, out, progress)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _measured(resolved: Resolved, plan: pa.Table, out: str, progress: Progress) -> Measured:
    job, began = resolved.job, time.monotonic()
    storage = open_storage(out)
    storage.prepare()
    staged = job.options.staged
    about = json.dumps({"job": job.name})
    sink = Sink(storage, "probe", 1, "arrow" if staged else job.format, resolved.columns, about, staged)
    assembly = job.options.assembly
    sample = sample_of(
        plan, resolved.model.batch, resolved.pools.predict_workers, bool(assembly and assembly.whole_items)
    )
    windows = _windows(sample.plan)
    taken: list[tuple[float, Commit]] = []

    def take(commit: Commit) -> bool:
        taken.append((time.monotonic() - began, commit))
        return _go_on(taken, windows, sample.heads)

    events = Events(storage, "probe", 1)
    progress.stage("windows measured", None)
    attempt.execute(resolved, by_shard(sample.plan), sink, take, events, progress, 0, int(windows.sum()))
    ended = time.monotonic() - began
    events.flush()
    last = [event for event in read(storage, "probe") if event["event"] == "progress"][-1:]
    wholes = [commit for _, commit in taken if commit.shard >= sample.heads]
    used = wholes or [commit for _, commit in taken]
    kept = _kept(sample, {commit.shard for commit in used}, bool(assembly and assembly.whole_items))
    mine = [commit for commit in used if commit.shard in set(kept["shard"].to_pylist())]
    sizes = {commit.shard: storage.stat(sink.part(commit.shard)).size for commit in used}
    for _, commit in taken:
        if commit not in mine:
            storage.delete(sink.part(commit.shard))
    count = max(1, count_windows(kept))
    finish_s = _finish(kept, mine, sink, resolved, progress)
    sheet_s = _sheet(kept, sink, resolved) if job.options.reconstructs else 0.0
    written = sum(
        storage.stat(name).size for name in storage.names("") if not name.startswith(("runs/", "manifests/"))
    )
    done = max(1, sum(windows[commit.shard] for commit in used))
    part_bytes = sum(sizes.values()) / done
    stage_s = _stage_seconds(
        wholes or used[len(used) // 2 :], windows, last[0]["stages"]["write"] if last else None
    )
    workers = resolved.pools.at_once(cores(), len(windows))
    order = sorted(commit.shard for _, commit in taken)
    played = play([int(windows[shard]) for shard in order], stage_s, [workers[stage] for stage in STAGES])
    slower = _slower(taken, played)
    items = len(kept["item_id"].unique())
    return Measured(
        shards=len(used),
        windows=int(done),
        seconds=round(time.monotonic() - began, 1),
        whole=sample.whole and len(wholes) == len(windows) - sample.heads,
        start_s=max(0.0, taken[0][0] - slower * min(played)),
        stage_s=stage_s,
        slower=slower,
        end_s=ended - taken[-1][0],
        finish_s=finish_s / count,
        finish_items=items,
        sheet_s=sheet_s / min(SHEET_ITEMS, max(1, items)),
        window_bytes=written / count,
        staged_bytes=part_bytes if staged else 0.0,
        spread=_spread(wholes, windows, plan),
    )


def sample_of(plan: pa.Table, batch: int, heads: int, whole_items: bool) -> Sample:
    """Shards of a plan, evenly from all of it; of tasks that make files of whole items, from the beginnings of items.

    `heads` twice over of a batch's windows come before the whole ones, unless these are hardly larger.
    """
    ids = plan["shard"].to_numpy()
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    edges = [*starts.tolist(), len(ids)]
    units = [[i] for i in range(len(starts))]
    if whole_items:
        items = plan["item_id"].combine_chunks()
        new = [i for i, row in enumerate(starts.tolist()) if row == 0 or items[row] != items[row - 1]]
        units = [[*range(one, next_)] for one, next_ in zip(new, [*new[1:], len(starts)], strict=True)]
    each = max(1, -(-_TOGETHER // len(units)))
    chosen: list[int] = []
    for unit in _evenly(len(units), _MOST_SHARDS):
        chosen += units[unit][:each]
    chosen = chosen[:_MOST_SHARDS]
    shards = [plan.slice(edges[i], edges[i + 1] - edges[i]) for i in chosen]
    cut: list[pa.Table] = []
    if statistics.median(count_windows(shard) for shard in shards) > 2 * batch:
        pieces = [list(islice(_pieces(shard, batch), 2)) for shard in shards[: 2 * heads]]
        cut = [one[turn] for turn in (0, 1) for one in pieces if turn < len(one)][: 2 * heads]
    numbered = [
        rows.set_column(0, PLAN.field(0), pa.array([number] * rows.num_rows, pa.int32()))
        for number, rows in enumerate([*cut, *shards])
    ]
    return Sample(pa.concat_tables(numbered), len(cut), len(chosen) == len(starts))


def _evenly(count: int, most: int) -> list[int]:
    """Numbers below `count`, each once, all of them or `most`: as many as there are so far, they are spread evenly."""
    if count <= most:
        return sorted(range(count), key=lambda i: (i * _GOLDEN) % 1)
    return list(dict.fromkeys(int((i * _GOLDEN) % 1 * count) for i in range(most)))


def _pieces(shard: pa.Table, windows: int) -> Iterator[pa.Table]:
    """A shard in pieces of so many windows at most; what could not be probed counts as one."""
    rows, room = [], windows
    for row in shard.to_pylist():
        first = row["first"]
        while True:
            stop = min(row["stop"], first + room)
            rows.append(row | {"first": first, "stop": stop})
            room -= max(1, stop - first)
            if not room:
                yield pa.Table.from_pylist(rows, PLAN)
                rows, room = [], windows
            if stop == row["stop"]:
                break
            first = stop
    if rows:
        yield pa.Table.from_pylist(rows, PLAN)


def _windows(plan: pa.Table) -> np.ndarray:
    """How many windows each shard has."""
    counts = plan["stop"].to_numpy() - plan["first"].to_numpy()
    return np.bincount(plan["shard"].to_numpy(), counts, count_shards(plan)).astype(int)


def _go_on(taken: Sequence[tuple[float, Commit]], windows: np.ndarray, heads: int) -> bool:
    """Whether more is to be measured."""
    first, now = taken[0][0], taken[-1][0]
    whole = sum(commit.shard >= heads for _, commit in taken)
    if heads and not whole:
        if len(taken) < heads:
            return True
        warm = [commit for _, commit in taken][heads // 2 :]
        seconds = _stage_seconds(warm, windows, None)
        mean = float(windows[heads:].mean())
        return all(one * mean < most for one, most in zip(seconds[:2], _LONG_S, strict=True))
    return now - first < (_STEADY_S if whole >= 4 else _MOST_S)


def _stage_seconds(
    commits: Sequence[Commit], windows: np.ndarray, write: dict[str, float] | None
) -> tuple[float, ...]:
    """What a window takes in each stage, by the commits' notes, and by what was counted of writing."""
    count = max(1, sum(windows[commit.shard] for commit in commits))
    notes = [json.loads(commit.notes or "{}") for commit in commits]
    decode, predict = (sum(note.get(f"{stage}_s", 0.0) for note in notes) / count for stage in STAGES[:2])
    return decode, predict, write["busy_s"] / max(1, write["windows"]) if write else 0.0


def play(windows: Sequence[int], stage_s: Sequence[float], workers: Sequence[int]) -> list[float]:
    """When each shard would be through all stages, in seconds, where workers take the next one that is there."""
    ready = [0.0] * len(windows)
    for seconds, count in zip(stage_s, workers, strict=True):
        free = [0.0] * count
        for shard in sorted(range(len(windows)), key=ready.__getitem__):
            end = max(ready[shard], heapq.heappop(free)) + seconds * windows[shard]
            heapq.heappush(free, end)
            ready[shard] = end
    return ready


def played_through(plan: pa.Table, stage_s: Sequence[float], workers: Sequence[int]) -> float:
    """How long all shards of these rows of a plan take, by the same rule."""
    windows = _windows(plan)
    windows = windows[np.unique(plan["shard"].to_numpy())].tolist()  # those that are done are not among them
    some = windows[:: -(-len(windows) // _PLAYED)]
    return max(play(some, stage_s, workers)) * sum(windows) / max(1, sum(some))


def _slower(taken: Sequence[tuple[float, Commit]], played: Sequence[float]) -> float:
    """How many times as long as they should the shards took, between the first commit and the last."""
    should = max(played) - min(played)
    took = taken[-1][0] - taken[0][0]
    return min(3.0, max(0.7, took / should)) if should > 0.5 else 1.0


def _kept(sample: Sample, done: set[int], whole_items: bool) -> pa.Table:
    """The sample's rows that are done; of tasks that make files of whole items, as far as no window is left out."""
    rows = sample.plan.filter(pc.is_in(sample.plan["shard"], value_set=pa.array(sorted(done), pa.int32())))
    if not whole_items:
        return rows
    reached: dict[str, int] = {}
    keep = []
    for row in rows.select(["item_id", "first", "stop"]).to_pylist():
        keep.append(reached.get(row["item_id"], 0) == row["first"])
        if keep[-1]:
            reached[row["item_id"]] = row["stop"]
    shards = set(rows.filter(pa.array(keep, pa.bool_()))["shard"].to_pylist())
    return rows.filter(pc.is_in(rows["shard"], value_set=pa.array(sorted(shards), pa.int32())))


def _finish(
    kept: pa.Table, commits: Sequence[Commit], sink: Sink, resolved: Resolved, progress: Progress
) -> float:
    """Make of the parts what a run makes of them in the end; the seconds that it took."""
    began, task = time.monotonic(), resolved.job.options
    bad = read_quarantine(sink.storage, [commit.quarantine for commit in commits if commit.quarantine])
    incomplete = set(bad["item_id"].to_pylist())
    table = as_table(sorted(commits, key=lambda commit: commit.shard))
    shards = table["shard"].to_pylist()
    parts = [
        Part(sink.part(shard), rows) for shard, rows in zip(shards, table["rows"].to_pylist(), strict=True)
    ]
    held = [part.path for part in parts]
    if sink.staged:
        parts, held = publish(sink, table, resolved.job.format, incomplete)
    if task.assembly:
        task.assembly.write(kept, sink, [part.path for part in parts], incomplete, cores(), progress)
    by_number = dict(zip(shards, held, strict=True))  # those that were left out are between them
    holders = pa.array([by_number.get(number) for number in range(max(shards) + 1)], pa.string())
    name = f"runs/{sink.run_id}/index.parquet"
    index = index_of(kept, sink, holders, table)
    write_index(name, index, sink.storage)
    close(sink, None, index, name, parts, table["quarantine"].drop_null().to_pylist())
    return time.monotonic() - began


def _sheet(kept: pa.Table, sink: Sink, resolved: Resolved) -> float:
    job, began = resolved.job, time.monotonic()
    with closing(Decoder(job.options, resolved.config, job.limits)) as decoder:
        write_contact_sheet(kept, sink, job.options, resolved.config, resolved.source, decoder)
    return time.monotonic() - began


def _spread(wholes: Sequence[Commit], windows: np.ndarray, plan: pa.Table) -> float:
    """The standard error of a window's seconds over the shards that were measured; a guess where they are few."""
    each = [sum(_stage_seconds([commit], windows, None)) for commit in wholes if windows[commit.shard]]
    if len(each) < 3 or not (mean := statistics.mean(each)):
        return 0.15
    unseen = max(0.0, 1 - len(each) / max(1, len(plan["shard"].unique())))
    return statistics.stdev(each) / mean * math.sqrt(unseen / len(each))
