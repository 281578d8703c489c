"""The job file: YAML, Python object and command-line overrides are one model, checked here and nowhere else."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from cluster.kuberay.settings import Kubernetes
from jobs.document import SpecError, check_document, kind_of, overridden, read_document, wrong_texts
from jobs.problems import ProblemsError, problems, unknown
from jobs.scheduling.spec import ScheduleSpec
from jobs.strict import Strict, address
from pipelines.limits import Limits
from pipelines.tasks import TASKS, Task, task_named
from pipelines.tensors import Format

__all__ = ["Job", "SpecError", "load_job", "overridden", "parse_job"]

#: What may stand there with nothing in it: all of their fields have defaults.
SECTIONS = ("options", "limits", "compute")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_GLOB = re.compile(r"[*?\[]")


class ModelSpec(Strict):
    """Which weights, and how they are computed with."""

    checkpoint: str = Field(
        description="a folder with config.json and weights, its URL, a hub id (owner/name[@revision]), or demo"
    )
    reference: Literal["hf", "deepmind"] | None = Field(
        default=None,
        description="whose answers: transformers' or the original model's; by default as config.json says, else hf",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="auto: bfloat16 on GPUs that have it, float32 elsewhere"
    )
    fold: bool = Field(
        default=True,
        description="compute what is constant once; false, or --no-fold, is the plain model, to compare",
    )

    @field_validator("checkpoint")
    @classmethod
    def _checked(cls, checkpoint: str) -> str:
        return address(checkpoint, may_refer=True)


class InputSpec(Strict):
    """What is processed."""

    uri: str | list[str] = Field(description="a file, a folder, a glob, or a list of them")
    format: Literal["auto", "files", "table", "webdataset", "lines"] = Field(
        default="auto", description="what lies there; auto: as the names of the files say"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="where a table or a tar has the task's contents, such as image: jpg; by default of their names",
    )
    keep: list[str] = Field(default_factory=list, description="columns of the input that the output has, too")
    roots: list[str] = Field(
        default_factory=list,
        description="folders, beside the input's own, that links found in the data may lead to",
    )
    select: Literal["all", "new"] = Field(
        default="all",
        description="all: the table is of all of it, and a changed input is refused; new: go on from the table that is "
        "there, with what is new, changed or stale, and what failed in passing",
    )
    stale: Literal["redo", "keep"] = Field(
        default="redo",
        description="with select: new, what becomes of rows that another checkpoint, other options or another version "
        "of this code made",
    )
    deleted: Literal["keep", "drop"] = Field(
        default="keep",
        description="with select: new, what becomes of the rows of files that are not there any more",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="only so many items, the first as they are listed when the run is planned",
    )

    _checked = field_validator("uri", "roots")(address)


class OutputSpec(Strict):
    """Where the table goes."""

    uri: str = Field(description="a folder: one job's output, resumed by running the same job again")
    format: Format | None = Field(default=None, description="of the parts; by default what suits the task")

    _checked = field_validator("uri")(address)


class ComputeSpec(Strict):
    """How much of what is used; every default fits the machine."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: GPUs where there are any"
    )
    decode_workers: int | None = Field(default=None, ge=1, description="CPU workers that decode")
    predict_workers: int | None = Field(
        default=None,
        ge=1,
        description="workers that hold the model: by default, as many as the GPUs have room for",
    )
    gpus_per_worker: float = Field(
        default=1.0,
        gt=0,
        description="GPUs of each worker that holds the model: a part of one, such as 0.5, or a whole number",
    )
    accelerator: str | None = Field(
        default=None,
        description="only GPUs of this type, by Ray's label ray.io/accelerator-type, such as H100",
    )
    batch: int | None = Field(default=None, ge=1, description="windows per call of the model")
    chunk: int | None = Field(default=None, ge=1, description="output points per call of the decoder")
    shard_windows: int | None = Field(
        default=None, ge=1, description="windows per shard, the unit of commit and redo"
    )
    stall_minutes: float | None = Field(
        default=None,
        gt=0,
        description="without any progress for so long, the attempt fails, naming the stage; by default 10 minutes more "
        "than limits.seconds",
    )

    @field_validator("accelerator")
    @classmethod
    def _label(cls, accelerator: str | None) -> str | None:
        if accelerator is not None and not _LABEL.fullmatch(accelerator):
            raise ValueError(
                f"must be a type as Ray's label has it, such as H100 or RTX-PRO-6000; got {accelerator!r}."
            )
        return accelerator

    @field_validator("gpus_per_worker")
    @classmethod
    def _as_ray_has_it(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"must be a part of a GPU, less than 1, or a whole number of them; got {gpus:g}."
            )
        return gpus


class Job(Strict):
    """A job: immutable, and the same job on the same output is the same run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="for lists and logs")
    task: str = Field(description=f"one of: {', '.join(task.name for task in TASKS)}")
    model: ModelSpec = Field(description="which weights, and how they are computed with")
    input: InputSpec = Field(description="what is processed")
    output: OutputSpec = Field(description="where the table goes")
    options: Task = Field(default_factory=dict, validate_default=True, description="the task's own options")
    limits: Limits = Field(
        default=Limits(), description="how much of a stranger's file is believed, of one item"
    )
    compute: ComputeSpec = Field(
        default=ComputeSpec(), description="how much of what is used; every default fits the machine"
    )
    on_error: Literal["quarantine", "fail"] = Field(
        default="quarantine", description="a bad item becomes a quarantine row, or ends the run"
    )
    max_error_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="the share of items that may end in quarantine; one more ends the attempt",
    )
    schedule: ScheduleSpec | None = Field(
        default=None,
        description="when it is run again and again, once it is applied: perceive schedule apply",
    )
    kubernetes: Kubernetes | None = Field(
        default=None,
        description="where and how the run goes on in Kubernetes; no part of what it computes",
    )

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        return task_named(name).name

    @field_validator("options", mode="plain")
    @classmethod
    def _typed(cls, options: Any, info: ValidationInfo) -> Any:
        if "task" not in info.data:
            return options  # without a task there are no options to know; the task's own error says so
        kind = task_named(info.data["task"])
        if isinstance(options, kind):
            return options
        given = {} if options is None else options
        if not isinstance(given, Mapping):
            raise ValueError(f"expected a mapping of options; got {kind_of(given)}.")
        known = [field.name for field in dataclasses.fields(kind)]
        lines = [f"options.{name}: {unknown(name, known)}" for name in given if name not in known]
        try:
            typed = TypeAdapter(kind).validate_json(to_json(given), strict=True)
        except ValidationError as error:
            lines += problems(error, kind, ("options",))
        if lines:
            raise ProblemsError(*lines)
        return typed

    @model_validator(mode="after")
    def _safe(self) -> Self:
        """What a document is checked for before, of an object that is made in Python."""
        for place, what in wrong_texts(self.model_dump(mode="json")):
            raise ValueError(f"{'.'.join(place)}: {what}")
        for uri in [self.input.uri] if isinstance(self.input.uri, str) else self.input.uri:
            if not _GLOB.search(uri) and f"{self.output.uri.rstrip('/')}/".startswith(f"{uri.rstrip('/')}/"):
                raise ValueError(
                    f"output.uri: {self.output.uri} lies in input.uri, {uri}: what is written there would be read as "
                    "input by the next run. Choose a folder outside of it, or name the input by a glob."
                )
        return self

    @staticmethod
    def load(path: str, overrides: Sequence[str] = ()) -> "Job":
        """A job file, with overrides such as "compute.batch=8". Raises SpecError."""
        return load_job(path, overrides)

    @property
    def format(self) -> Format:
        """The format of the output's parts."""
        return self.output.format or self.options.format

    @field_serializer("options")
    def _plain(self, options: Any) -> dict[str, Any]:
        return dataclasses.asdict(options)


def load_job(path: str, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and apply overrides such as "compute.batch=8".

    Paths in the file are relative to the file, paths in overrides to the working directory. Raises SpecError
    listing everything that is wrong with it.
    """
    return parse_job(overridden(read_document(path), overrides), path)


def parse_job(document: Mapping[str, Any], origin: str = "The job") -> Job:
    """A document as a checked job; SpecError lists everything that is wrong with it."""
    check_document(document, origin)
    given = {name: value for name, value in document.items() if value is not None or name not in SECTIONS}
    try:
        # As JSON, so that a list is fit for a tuple, but neither "8" nor true for a number.
        return Job.model_validate_json(to_json(given), strict=True)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in problems(error, Job))
        raise SpecError(f"{origin} is not a valid job:\n{lines}") from error
