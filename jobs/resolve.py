"""A job as this machine can run it: its checkpoint, device, dtype, workers and source, or why it can't."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cluster.local import cores, gpu_type, nvidia_driver
from jobs.spec import Job, SpecError
from perceiver_core.checkpoint import CheckpointError, CheckpointInfo, inspect
from perceiver_core.config import PUBLISHED, PerceiverConfig
from pipelines.contents import IMAGE, SUFFIXES
from pipelines.items import InputError, locate
from pipelines.meter import Progress
from pipelines.pictures import check_recipe
from pipelines.pools import NOTHING, Node, PoolError, Pools, fit_pools, only_type
from pipelines.sources import Source
from pipelines.sources.choose import choose
from pipelines.stages import ModelPlan, check_kept
from pipelines.tasks import TASKS

#: What one decoder call may hold of scores and activations.
_DECODER_BYTES = {"cpu": 512 << 20, "cuda": 4 << 30}
#: Ray's switches for pickles in tables: code that runs when a stranger's file is read.
_UNPICKLING = ("RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR", "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA")


@dataclass(frozen=True)
class Resolved:
    """A job, and what it comes to here."""

    job: Job
    checkpoint: CheckpointInfo
    model: ModelPlan
    source: Source
    nodes: tuple[Node, ...]  #: what the run has
    here: bool  #: on this machine, in a Ray of its own
    pools: Pools
    held: Node = NOTHING  #: what others use of the nodes

    @property
    def config(self) -> PerceiverConfig:
        return self.checkpoint.config

    @property
    def columns(self) -> pa.Schema:
        """What is kept of the input, then the task's columns."""
        return pa.schema([*self.source.kept, *self.job.options.output_schema(self.config)])

    @property
    def gpus(self) -> int:
        """0 is the CPU."""
        return int(sum(node.gpus for node in self.nodes))

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"


def resolve(
    job: Job, progress: Progress, nodes: Sequence[Node] | None = None, held: Node = NOTHING
) -> Resolved:
    """What the job comes to on these nodes, of which others hold something; by default, on this machine.

    Raises SpecError, also where its workers could not all run beside each other with the largest node gone.
    """
    _refuse_pickles()
    _check_output(job.output.uri)
    checkpoint = checkpoint_of(job, progress)
    here = nodes is None
    used = used_of(job, [this_machine(job)] if nodes is None else nodes)
    pools = pools_of(job, used, held, grows=not here)
    model = _model_plan(job, checkpoint, "cuda" if any(node.gpus for node in used) else "cpu", here)
    return Resolved(job, checkpoint, model, source_of(job, checkpoint), used, here, pools, held)


def pickle_switches() -> list[str]:
    """Which of Ray's switches for pickles in tables are on in this environment."""
    return [name for name in _UNPICKLING if os.environ.get(name, "").lower() in ("1", "true")]


def _refuse_pickles() -> None:
    for name in pickle_switches():
        raise SpecError(
            f"The environment has {name}={os.environ[name]}: with it, Ray runs whatever code a Parquet file "
            f"brings along. Unset it: perceive reads no pickles. (unset {name})"
        )


def _check_output(uri: str) -> None:
    """Whether files can appear there, as far as can be told without writing: the driver, the folder above."""
    if "://" in uri:
        try:
            locate(uri)
        except InputError as error:
            raise SpecError(f"output.uri: {error}") from error
        return
    above = next(folder for folder in (Path(uri), *Path(uri).absolute().parents) if os.path.lexists(folder))
    if not above.is_dir():
        raise SpecError(
            f"output.uri: {uri} can't be a folder, for {above} is a file. Choose another output.uri: one that isn't "
            "there is made."
        )
    begun = os.path.isdir(
        os.path.join(uri, "runs")
    )  # what is done already can be shown where nobody may write
    if not begun and not os.access(above, os.W_OK | os.X_OK):
        raise SpecError(
            f"output.uri: {uri} can't be written to: this user may not write to {above}, or it is mounted read-only. "
            "Choose another output.uri, or change its permissions."
        )


def checkpoint_of(job: Job, progress: Progress) -> CheckpointInfo:
    """What the job's checkpoint holds, fetched if it is not here. Raises SpecError."""
    try:
        found = inspect(job.model.checkpoint, progress=progress)
    except CheckpointError as error:
        raise SpecError(f"model.checkpoint: {error}") from error
    if found.architecture not in job.options.architectures:
        why = getattr(job.options, "refused", {}).get(found.architecture) or _choice(job, found)
        raise SpecError(
            f"model.checkpoint: {job.model.checkpoint} holds a {found.architecture}, but the task {job.task} runs "
            f"on {' or '.join(job.options.architectures)}. {why}"
        )
    try:
        job.options.check(found.config)
    except ValueError as error:
        raise SpecError(f"options: {error}") from error
    return found


def _choice(job: Job, found: CheckpointInfo) -> str:
    """Which published checkpoints the task has, and which tasks the checkpoint."""
    named = [name for name, one in PUBLISHED.items() if one.architecture in job.options.architectures]
    tasks = [task.name for task in TASKS if found.architecture in task.architectures]
    of_task = f" ({', '.join(named)})" if named else ""
    of_checkpoint = f" ({', '.join(tasks)})" if tasks else ""
    return f"Choose another checkpoint{of_task} or another task{of_checkpoint}."


def gpus_of(job: Job) -> int:
    """How many GPUs the run uses; 0 is the CPU."""
    wanted = job.compute.device
    if wanted == "cpu" or (wanted == "auto" and not nvidia_driver()):
        return 0  # without a driver torch need not be asked, nor loaded
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise SpecError(
            "compute.device asks for cuda, but PyTorch sees no GPU here. Install a CUDA build of PyTorch, check "
            "nvidia-smi, or set compute.device to cpu."
        )
    return torch.cuda.device_count()


def this_machine(job: Job) -> Node:
    """What the run uses of this machine, if it runs here."""
    return Node(cores(), gpus_of(job), gpu_type())


def used_of(job: Job, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """What the run uses of its nodes. Raises SpecError."""
    if job.compute.device == "cpu":
        nodes = [node._replace(gpus=0.0) for node in nodes]
    if job.compute.device == "cuda" and not any(node.gpus for node in nodes):
        raise SpecError(
            f"compute.device asks for cuda, but none of the target's {len(nodes)} nodes has a GPU. Choose another "
            "target, or set compute.device to cpu."
        )
    if job.compute.accelerator is None:
        return tuple(nodes)
    try:
        return only_type(nodes, job.compute.accelerator)
    except PoolError as error:
        raise SpecError(str(error)) from error


def pools_of(job: Job, nodes: Sequence[Node], held: Node = NOTHING, grows: bool = False) -> Pools:
    """How many workers each stage has. Raises SpecError."""
    asked = job.compute
    try:
        return fit_pools(
            nodes,
            asked.decode_workers,
            asked.predict_workers,
            gpus_per_worker=asked.gpus_per_worker,
            held=held,
            grows=grows,
        )
    except PoolError as error:
        raise SpecError(str(error)) from error


def _dtype(job: Job, device: str, here: bool) -> str:
    if job.model.dtype != "auto":
        return job.model.dtype
    if device == "cpu":
        return "float32"
    if not here:
        return "bfloat16"  # every card since 2020 has it
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def _model_plan(job: Job, checkpoint: CheckpointInfo, device: str, here: bool) -> ModelPlan:
    batch = job.compute.batch or job.options.batch(device)
    chunk = job.compute.chunk or job.options.chunk(checkpoint.config, batch, _DECODER_BYTES[device])
    reference = job.model.reference or checkpoint.config.reference
    # The folder that was inspected: whatever becomes of a URL meanwhile, workers open what the fingerprint names.
    return ModelPlan(str(checkpoint.path), _dtype(job, device, here), batch, chunk, reference, job.model.fold)


def source_of(job: Job, checkpoint: CheckpointInfo) -> Source:
    """Where the items lie. Raises SpecError."""
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
        raise SpecError(f"input: {error}{_read_by(error.found)}") from error


def _read_by(found: Sequence[str]) -> str:
    """Which tasks read what lies there instead of what was looked for."""
    for kind, suffixes in SUFFIXES.items():
        tasks = [
            task.name
            for task in TASKS
            if any(len(contents) == 1 and contents[0].kind == kind for contents in task.contents)
        ]
        if {*found} & {*suffixes}:
            return f" {kind.capitalize()}s are for {', '.join(tasks)}."
    return ""
