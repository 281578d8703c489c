"""One attempt of a run: plan, refuse what changed, do what is missing, close the account."""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cluster.local import cores, local_ray
from jobs.events import attempts, recorded
from jobs.fingerprint import fingerprint, run_id
from jobs.spec import JobSpec, SpecError
from perceiver_core.checkpoint import CheckpointError, CheckpointInfo, inspect
from perceiver_core.config import PerceiverConfig
from pipelines import reader
from pipelines.contact_sheet import write_contact_sheet
from pipelines.contents import IMAGE
from pipelines.decoding import Decoder
from pipelines.items import InputError
from pipelines.manifest import Manifest, closed
from pipelines.meter import Meter, Progress
from pipelines.pictures import check_recipe
from pipelines.plan import Probed, count_windows, cut_shards, list_and_probe, shards
from pipelines.pools import PoolError, Pools, fit_pools
from pipelines.publish import drop_staged, finish
from pipelines.sink import Commit, Sink, committed, create_if_absent, prepare, read_commits
from pipelines.sources import Source
from pipelines.sources.choose import choose
from pipelines.stages import ModelPlan, check_kept
from pipelines.tensors import is_tensor

_SHARD_BYTES = 128 << 20  # of decoded windows: what a worker holds twice, and what a crash costs at most
_SHARD_WINDOWS = 64
#: What one decoder call may hold of scores and activations.
_DECODER_BYTES = {"cpu": 512 << 20, "cuda": 4 << 30}
#: Ray's switches for pickles in tables: code that runs when a stranger's file is read.
_UNPICKLING = ("RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR", "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA")


class ErrorBudgetError(RuntimeError):
    """More items failed than the job allows."""


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

    @property
    def exit_code(self) -> int:
        """0 done, 3 done with quarantined rows."""
        return 3 if self.quarantined else 0


def run_job(job: JobSpec, progress: Progress) -> RunResult:
    """Execute one attempt of the job here, to its end.

    Raises SpecError before anything is written, ErrorBudgetError where `on_error` says fail; KeyboardInterrupt
    leaves the run resumable: the same job on the same output does what is missing.
    """
    began = time.monotonic()
    _refuse_pickles()
    checkpoint = _checkpoint(job, progress)
    config = checkpoint.config
    gpus = _gpus(job)
    pools = _pools(job, gpus)
    model = _model_plan(job, checkpoint, "cuda" if gpus else "cpu")
    source = _source(job, checkpoint)
    plan = _plan(job, config, source, progress)
    what = fingerprint(job, checkpoint, model, plan)
    out = job.output.uri
    run = run_id(out, what, plan)
    folder = Path(out, "runs", run)
    sink = Sink(
        out=out,
        run_id=run,
        attempt=attempts(folder),
        format="arrow" if job.options.staged else job.format,
        columns=pa.schema([*source.kept, *job.options.output_schema(config)]),
        about=json.dumps({"job": job.name, "run_id": run, **what}),
        staged=job.options.staged,
    )
    prepare(sink)
    if not (folder / "run.json").exists():  # the last of the three, so a resume has them all
        _write_once(folder, "spec.yaml", yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False))
        with create_if_absent(folder / "plan.parquet", folder / "tmp") as draft:
            pq.write_table(plan, draft)
        _write_once(folder, "run.json", json.dumps({"run_id": run, "fingerprint": what}, indent=1))
    manifest, to_do = closed(sink), 0
    if manifest is None:
        sink = dataclasses.replace(sink, attempt=sink.attempt + 1)
        done = committed(sink)
        for path in done.values() if job.on_error == "fail" else ():
            for commit in read_commits(path):
                _check_budget(job, sink, commit)
        missing = [spans for shard, spans in shards(plan).items() if shard not in done]
        to_do = sum(count_windows(spans) for spans in missing)
        with recorded(folder, sink.attempt):
            if missing:
                _execute(job, missing, model, pools, config, source, sink, progress, count_windows(plan))
            manifest = finish(plan, sink, job.options, job.format, cores(), progress)
    if job.on_error == "fail" and manifest.quarantined:
        raise _budget_error(reader.quarantine(out).to_pylist()[0])
    sheet = None
    if job.options.reconstructs:
        with closing(Decoder(job.options, config, job.limits)) as decoder:
            sheet = write_contact_sheet(plan, sink, job.options, config, source, decoder)
    drop_staged(sink)
    return _result(manifest, sink, job, sheet, to_do, time.monotonic() - began)


def _execute(
    job: JobSpec,
    missing: list[pa.Table],
    model: ModelPlan,
    pools: Pools,
    config: PerceiverConfig,
    source: Source,
    sink: Sink,
    progress: Progress,
    windows: int,
) -> None:
    before = windows - sum(count_windows(spans) for spans in missing)
    progress.stage("windows", windows, done=before)
    gpus = int(pools.predict_gpus * pools.predict_workers)
    with local_ray(cores(), gpus):
        from pipelines.pipeline import build, commits  # ray is only imported once its environment is set

        meter = Meter.start()
        device, threads = "cuda" if gpus else "cpu", max(1, cores() // pools.predict_workers)
        dataset = build(
            missing, job.options, config, source, job.limits, model, device, threads, sink, pools, meter
        )
        with _shown(meter, progress, before), closing(commits(dataset)) as made:
            for commit in made:
                _check_budget(job, sink, commit)
    progress.at(windows)


@contextmanager
def _shown(meter: Meter, progress: Progress, before: int) -> Iterator[None]:
    """Show what the model has done, twice a second, while the block runs."""
    stop = threading.Event()

    def show() -> None:
        from ray.exceptions import RayError

        with suppress(RayError):  # the count is lost with its node; the run itself says what became of it
            while not stop.wait(0.5):
                progress.at(before + meter.read().get("predict", 0))

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _refuse_pickles() -> None:
    for name in _UNPICKLING:
        if os.environ.get(name, "").lower() in ("1", "true"):
            raise SpecError(
                f"The environment has {name}={os.environ[name]}: with it, Ray runs whatever code a Parquet file "
                f"brings along. Unset it: perceive reads no pickles. (unset {name})"
            )


def _checkpoint(job: JobSpec, progress: Progress) -> CheckpointInfo:
    try:
        found = inspect(job.model.checkpoint, progress=progress)
    except CheckpointError as error:
        raise SpecError(f"model.checkpoint: {error}") from error
    if found.architecture not in job.options.architectures:
        why = getattr(job.options, "refused", {}).get(
            found.architecture, "Choose another checkpoint or another task."
        )
        raise SpecError(
            f"model.checkpoint: {job.model.checkpoint} holds a {found.architecture}, but the task {job.task} runs "
            f"on {' or '.join(job.options.architectures)}. {why}"
        )
    try:
        job.options.check(found.config)
    except ValueError as error:
        raise SpecError(f"options: {error}") from error
    return found


def _gpus(job: JobSpec) -> int:
    """How many GPUs the run uses; 0 is the CPU."""
    wanted = job.compute.device
    if wanted == "cpu" or (wanted == "auto" and not Path("/proc/driver/nvidia").exists()):
        return 0
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise SpecError(
            "compute.device asks for cuda, but PyTorch sees no GPU here. Install a CUDA build of PyTorch, check "
            "nvidia-smi, or set compute.device to cpu."
        )
    return torch.cuda.device_count()


def _pools(job: JobSpec, gpus: int) -> Pools:
    try:
        return fit_pools(cores(), gpus, job.compute.decode_workers, job.compute.predict_workers)
    except PoolError as error:
        raise SpecError(str(error)) from error


def _dtype(job: JobSpec, device: str) -> str:
    if job.model.dtype != "auto":
        return job.model.dtype
    if device == "cpu":
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def _model_plan(job: JobSpec, checkpoint: CheckpointInfo, device: str) -> ModelPlan:
    batch = job.compute.batch or job.options.batch(device)
    chunk = job.compute.chunk or job.options.chunk(checkpoint.config, batch, _DECODER_BYTES[device])
    reference = job.model.reference or checkpoint.config.reference
    # The folder that was inspected: whatever becomes of a URL meanwhile, workers open what the fingerprint names.
    return ModelPlan(str(checkpoint.path), _dtype(job, device), batch, chunk, reference, job.model.fold)


def _source(job: JobSpec, checkpoint: CheckpointInfo) -> Source:
    uris = [job.input.uri] if isinstance(job.input.uri, str) else job.input.uri
    about = job.input
    # The task of every checkpoint, latents, is given what this one reads.
    given = getattr(job.options, "contents_for", lambda _: job.options.contents)(checkpoint.config)
    if (IMAGE,) in given:
        try:
            check_recipe(checkpoint.path, checkpoint.config)
        except ValueError as error:
            raise SpecError(f"model.checkpoint: {error}") from error
    try:
        source = choose(uris, about.format, about.columns, about.keep, given, job.limits, about.roots)
        check_kept(source.kept, job.options, checkpoint.config)
        return source
    except InputError as error:
        raise SpecError(f"input: {error}") from error


def _plan(job: JobSpec, config: PerceiverConfig, source: Source, progress: Progress) -> pa.Table:
    progress.stage("items planned", None)
    decoders = [Decoder(job.options, config, job.limits) for _ in range(cores())]
    asked = job.compute.shard_windows
    size = asked or _shard_windows(job.options.input_schema(config))
    try:
        probed = _watched(list_and_probe(source, decoders), job, progress)
        return cut_shards(probed, size, None if asked else _SHARD_BYTES)
    except InputError as error:
        raise SpecError(f"input: {error}") from error
    finally:
        for decoder in decoders:
            decoder.close()


def _watched(probed: Iterable[Probed], job: JobSpec, progress: Progress) -> Iterator[Probed]:
    done = 0
    for done, one in enumerate(probed, 1):
        if one.error and job.on_error == "fail":
            raise _budget_error(dataclasses.asdict(one.error) | {"uri": one.item.uri})
        yield one
        progress.at(done)
    progress.total(done)


def _shard_windows(columns: pa.Schema) -> int:
    window = sum(
        field.type.storage_type.list_size * field.type.value_type.bit_width // 8
        for field in columns
        if is_tensor(field.type)
    )
    return max(1, min(_SHARD_WINDOWS, _SHARD_BYTES // max(1, window)))


def _check_budget(job: JobSpec, sink: Sink, commit: Commit) -> None:
    if commit.quarantine and job.on_error == "fail":
        raise _budget_error(pq.read_table(Path(sink.out, commit.quarantine)).to_pylist()[0])


def _budget_error(row: dict[str, Any]) -> ErrorBudgetError:
    return ErrorBudgetError(
        f"on_error is fail, and {row['uri']} could not be processed ({row['stage']}): {row['message'].rstrip('.')}. "
        "Remove or mend it, or set on_error to quarantine."
    )


def _write_once(folder: Path, name: str, text: str) -> None:
    with create_if_absent(folder / name, folder / "tmp") as draft:
        draft.write_text(text)


def _result(
    manifest: Manifest, sink: Sink, job: JobSpec, sheet: Path | None, windows_now: int, seconds: float
) -> RunResult:
    assembly = job.options.assembly
    mp4s = assembly is not None and assembly.path == "video"
    return RunResult(
        run_id=manifest.run_id,
        output=sink.out,
        attempt=sink.attempt,
        items=manifest.items,
        rows=manifest.rows,
        quarantined=manifest.quarantined,
        windows_now=windows_now,
        seconds=round(seconds, 1),
        videos=str(Path(sink.out, "video")) if mp4s else None,
        items_without_video=len(set(reader.quarantine(sink.out)["item_id"].to_pylist())) if mp4s else 0,
        files=str(Path(sink.out, assembly.path)) if assembly and not mp4s else None,
        contact_sheet=str(sheet) if sheet else None,
    )
