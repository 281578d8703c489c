"""One attempt of a run: do what is missing, close the account."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from cluster.beside import beside
from cluster.joined import joined_ray
from cluster.local import Resources, cores, local_ray
from jobs.budget import Budget, ErrorBudgetError, allowed, over
from jobs.environment import environment
from jobs.errors import of_cluster
from jobs.events import Events, recorded
from jobs.exit_codes import DONE, QUARANTINED
from jobs.lease import Lease, attempts, claim_attempt, held, wait_until_free
from jobs.metrics import Metrics
from jobs.nodes import growth, nodes_of, sent_to_all, threads
from jobs.pace import Marks
from jobs.planning import Planned, plan_of, sink_of, windows_of
from jobs.records import Record, read_record, read_table, write_record
from jobs.resolve import Resolved
from jobs.spec import Job
from jobs.store import RunStore
from jobs.summary import Live
from jobs.telling import told_to
from jobs.which import Found, which
from pipelines.commits import Commits, forget
from pipelines.contact_sheet import write_contact_sheet
from pipelines.decoding import Decoder
from pipelines.index import read_quarantine
from pipelines.manifest import Manifest, newest, numbered
from pipelines.meter import Meter, Progress
from pipelines.plan import by_shard, count_shards, count_windows
from pipelines.pools import NOTHING, Node
from pipelines.publish import drop_staged, finish
from pipelines.sink import Commit, Sink
from pipelines.storage import OutputError, Storage, check_conditions, open_storage
from pipelines.supersede import carry, nothing
from pipelines.watchdog import Watch

_DIED = (
    "Ray's {} died, as it does where the kernel ends it because memory is short (dmesg says so), or somebody else "
    "does. What is committed stays."
)

__all__ = ["ErrorBudgetError", "RunResult", "go_on", "run_job"]


@dataclass(frozen=True)
class RunResult:
    """How an attempt ended, from the manifest."""

    run_id: str
    output: str
    attempt: int
    items: int
    rows: int
    quarantined: int
    windows_now: int  #: done by this attempt; the rest was there
    seconds: float
    videos: str | None  #: the folder of MP4s, if the job asks for them
    items_without_video: int  #: of the items, how many have no MP4 because windows of theirs are quarantined
    files: str | None  #: what else is made of the rows, a file or a folder, if the job asks for it
    contact_sheet: str | None  #: a picture of what was reconstructed, if anything was
    #: Of `input.select: new`: what was new, as the event input_compared says it.
    news: dict[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """0 done, 3 done with quarantined rows."""
        return QUARANTINED if self.quarantined else DONE


def run_job(
    job: Job,
    progress: Progress,
    supersede: bool = False,
    store: RunStore | None = None,
    ray_address: str | None = None,
    fire: str = "",
) -> RunResult:
    """Execute one attempt of the job here, to its end.

    The same job on the same output resumes its run. Another one, or another input, is refused unless `supersede`: then
    it goes on from the table that is there where only the input has changed, and else takes its place. With `fire`, a
    schedule's time, it is that fire's run. It is told to the `store`. With `ray_address`, it runs on that cluster, of
    which this machine is a node.

    Raises SpecError before anything is written, LeaseError where another run works on the output, ErrorBudgetError
    where more items fail than the job allows; KeyboardInterrupt leaves the run resumable.
    """
    began = time.monotonic()
    if ray_address is None:
        return _run_on(None, job, progress, supersede, store, fire, began)
    lost = partial(_gave_up, progress)
    with of_cluster(), joined_ray(ray_address, lost) as cluster:
        return _run_on(cluster, job, progress, supersede, store, fire, began)


def _run_on(
    cluster: Resources | None,
    job: Job,
    progress: Progress,
    supersede: bool,
    store: RunStore | None,
    fire: str,
    began: float,
) -> RunResult:
    storage = open_storage(job.output.uri)
    nodes, held = (nodes_of(cluster.nodes), Node(*cluster.held)) if cluster else (None, NOTHING)
    found = which(job, progress, supersede, nodes, fire, held)
    if found.before:  # what it has begun stays what it was; what is new since is a run of its own
        result = _of(found.before, found, storage, progress, began, store)
        found = which(job, progress, supersede, nodes, fire, held)
        if found.table:
            return result
    if found.table:
        told = None if found.news is None else found.news.told()
        return replace(_end(found.table, found.record, found.resolved, storage, 0, began), news=told)
    return _of(found.record, found, storage, progress, began, store)


def _of(
    record: Record, found: Found, storage: Storage, progress: Progress, began: float, store: RunStore | None
) -> RunResult:
    """One attempt of a run that was found, new or not."""
    before = wait_until_free(storage, progress.say)
    table = newest(storage)
    if table and table.run_id == record.run_id:  # files of the table are gone
        forget(sink_of(storage, record, found.resolved, attempts(storage, record.run_id)))
    planned = plan_of(record, found.resolved, storage, found.listing, found.news, progress)
    return go_on(record, planned, found.resolved, before, progress, began, store)


def go_on(
    record: Record,
    planned: Planned | None,
    resolved: Resolved,
    before: Lease | None,
    progress: Progress,
    began: float,
    store: RunStore | None = None,
) -> RunResult:
    """One attempt of a run, a new one if it comes with what is planned."""
    storage = open_storage(resolved.job.output.uri)
    storage.prepare()
    check_conditions(storage)
    with held(storage, record.run_id, before) as check:
        if planned:
            write_record(storage, record, resolved.job, planned.plan, planned.listing, planned.replaced)
            # As it was kept, perhaps by a process that was lost after that.
            kept = read_record(storage, record.run_id)
            assert kept
            record = kept
        attempt = claim_attempt(storage, record.run_id)
        live = Live(storage, record, resolved.job.name, attempt, progress.say)
        metrics = Metrics(record.run_id, resolved.job.name, resolved.job.task, resolved.here, progress.say)
        events = Events(storage, record.run_id, attempt, live, metrics)
        if before and not storage.exists(f"runs/leases/{before.number:06d}.released"):
            dead = before.holder
            events.note("lease_taken_over", run_id_before=before.run_id, host=dead.host, pid=dead.pid)
        with told_to(store, record.run_id, resolved.job, attempt, progress.say) as told:
            with recorded(events):
                sink = sink_of(storage, record, resolved, attempt)
                plan = read_table(storage, record, "plan")
                manifest, to_do = _attempt(record, plan, resolved, sink, events, check, progress)
            result = _end(manifest, record, resolved, storage, to_do, began)
            told(result.exit_code)
        return result


def _attempt(
    record: Record,
    plan: pa.Table,
    resolved: Resolved,
    sink: Sink,
    events: Events,
    check: Callable[[], None],
    progress: Progress,
) -> tuple[Manifest, int]:
    job, shards = resolved.job, count_shards(plan)
    commits = Commits(sink, shards)
    budget = Budget(job, plan, sink.storage)
    windows = count_windows(plan)
    missing = by_shard(plan, commits.done)
    to_do = windows - windows_of(plan, commits.done)
    events.note(
        "attempt_started",
        host=socket.gethostname(),
        pid=os.getpid(),
        code=record.fingerprint["code"],
        device=resolved.device,
        environment=environment(),
        shards=shards,
        done=commits.count,
        windows=windows,
        items=budget.items,
    )

    def take(commit: Commit) -> bool:
        check()
        commits.add(commit)
        events.note(
            "shard_committed",
            shard=commit.shard,
            rows=commit.rows,
            quarantined=commit.quarantined,
            notes=json.loads(commit.notes or "{}"),
        )
        budget.add(commit)
        return True

    if record.news:
        events.note("input_compared", **record.news)
    try:
        for commit in commits.quarantined() if budget.most is not None else ():
            budget.add(commit)
        if missing.num_rows:
            progress.stage("windows", windows, done=windows - to_do)
            execute(resolved, missing, sink, take, events, progress, windows - to_do, windows)
            progress.at(windows)
    except ErrorBudgetError as error:
        events.note("budget_exceeded", items=budget.items, quarantined=budget.quarantined, message=str(error))
        raise
    finally:
        with suppress(OSError):  # the parts are the truth; what ended the attempt is told, not this
            commits.save()
    check()
    carried = nothing(record.base)
    if record.base is not None and record.kind in ("changed", "retry", "incremental"):
        base = numbered(sink.storage, record.base)
        carried = carry(base, read_table(sink.storage, record, "replaced"), sink)
    manifest = finish(plan, sink, job.options, job.format, cores(), progress, commits, carried)
    events.note(
        "manifest_published",
        number=manifest.number,
        items=manifest.items,
        rows=manifest.rows,
        quarantined=manifest.quarantined,
        items_quarantined=manifest.items_quarantined,
    )
    return manifest, to_do


def execute(
    resolved: Resolved,
    missing: pa.Table,
    sink: Sink,
    take: Callable[[Commit], bool],
    events: Events,
    progress: Progress,
    before: int,
    total: int,
) -> None:
    """Do the shards that are missing; each commit is given to `take` as it is made, which says whether to go on.

    `before` of the `total` windows are done.
    """
    job, pools = resolved.job, resolved.pools

    def lost(daemon: str) -> None:
        with suppress(OutputError):
            events.note("attempt_failed", error="DaemonError", message=_DIED.format(daemon), traceback="")
        _gave_up(progress, daemon)

    with of_cluster(), local_ray(cores(), resolved.gpus, lost) if resolved.here else nullcontext():
        from pipelines import pipeline  # ray is only imported once its environment is set

        patience = job.compute.stall_minutes and job.compute.stall_minutes * 60
        meter = Meter.start()
        workers = pools.at_once(sum(node.cpus for node in resolved.nodes), missing.num_rows)
        elsewhere = not resolved.here
        dataset = pipeline.build(
            missing,
            job.options,
            resolved.config,
            resolved.source,
            job.limits,
            sent_to_all(resolved) if elsewhere else resolved.model,
            resolved.device,
            threads(resolved),
            sink,
            pools,
            meter,
            Watch(patience, lambda state: events.note("stalled", state=state)),
            accelerator=job.compute.accelerator if elsewhere else None,  # here all are of one type
            growth=growth(resolved, workers, missing.num_rows, events) if elsewhere else None,
        )
        marks = Marks(meter, events, before, total, workers)
        show = partial(_show, meter=meter, progress=progress, events=events, marks=marks)
        with beside(show), closing(pipeline.commits(dataset)) as made:
            try:
                for commit in made:
                    if not take(commit):
                        break
            except Exception as error:
                cause = pipeline.cause_of(error)
                if cause is error:
                    raise
                raise cause from error


def _gave_up(progress: Progress, daemon: str) -> None:
    progress.give_up(_DIED.format(daemon))


def _show(ended: threading.Event, meter: Meter, progress: Progress, events: Events, marks: Marks) -> None:
    """Show what the model has done, and note what workers tell, twice a second, and once more in the end."""
    from ray.exceptions import RayError

    last = False
    while not last:
        last = ended.wait(0.5)
        # A meter that is lost, or a storage that is down: the run itself says what became of it.
        with suppress(RayError, OutputError):
            progress.at(marks.done())
            for told in meter.heard():
                events.note(told.pop("kind"), at=told.pop("time"), **told)
            if last:
                marks.note()
            else:
                marks.look()
            events.look()


def _end(
    manifest: Manifest, record: Record, resolved: Resolved, storage: Storage, windows_now: int, began: float
) -> RunResult:
    """What is left to do for a closed run, and how it ended."""
    job = resolved.job
    sink = sink_of(storage, record, resolved, attempts(storage, record.run_id))
    most = allowed(job, manifest.items)
    if most is not None and manifest.items_quarantined > most:
        row = read_quarantine(storage, manifest.quarantine).to_pylist()[0]
        raise over(job, manifest.items, manifest.items_quarantined, row["uri"], row["stage"], row["message"])
    sheet = None
    if job.options.reconstructs:
        plan = read_table(storage, record, "plan")
        with closing(Decoder(job.options, resolved.config, job.limits)) as decoder:
            sheet = write_contact_sheet(plan, sink, job.options, resolved.config, resolved.source, decoder)
    drop_staged(sink)
    assembly = job.options.assembly
    mp4s = assembly is not None and assembly.path == "video"
    return RunResult(
        run_id=manifest.run_id,
        output=storage.uri,
        attempt=sink.attempt,
        items=manifest.items,
        rows=manifest.rows,
        quarantined=manifest.quarantined,
        windows_now=windows_now,
        seconds=round(time.monotonic() - began, 1),
        videos=storage.where("video") if mp4s else None,
        items_without_video=manifest.items_quarantined if mp4s else 0,
        files=storage.where(assembly.path) if assembly and not mp4s else None,
        contact_sheet=storage.where(sheet) if sheet else None,
        news=record.news,
    )
