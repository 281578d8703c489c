"""The job file: YAML, Python object and command-line overrides are one model, checked here and nowhere else."""

import dataclasses
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from perceiver_core.errors import PerceiverError
from perceiver_core.sources import is_hub_id
from pipelines.limits import Limits
from pipelines.secrets import SecretError, check_no_secrets
from pipelines.tasks import TASKS, Task, task_named
from pipelines.tensors import Format


class SpecError(PerceiverError, ValueError):
    """The job file, or what it points to, can't be run as it is."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class ModelSpec(_Strict):
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


def _without_secrets(uris: str | list[str]) -> str | list[str]:
    for uri in [uris] if isinstance(uris, str) else uris:
        check_no_secrets(uri)
    return uris


class InputSpec(_Strict):
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
    limit: int | None = Field(
        default=None,
        ge=1,
        description="only so many items, the first as they are listed when the run is planned",
    )

    _no_secrets = field_validator("uri", "roots")(_without_secrets)


class OutputSpec(_Strict):
    """Where the table goes."""

    uri: str = Field(description="a folder: one job's output, resumed by running the same job again")
    _no_secrets = field_validator("uri")(_without_secrets)
    format: Format | None = Field(default=None, description="of the parts; by default what suits the task")


class ComputeSpec(_Strict):
    """How much of what is used; every default fits the machine."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: GPUs where there are any"
    )
    decode_workers: int | None = Field(default=None, ge=1, description="CPU workers that decode")
    predict_workers: int | None = Field(
        default=None, ge=1, description="workers that hold the model: one a GPU"
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


class JobSpec(_Strict):
    """A job: immutable, and the same job on the same output is the same run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="for lists and logs")
    task: str = Field(description=f"one of: {', '.join(task.name for task in TASKS)}")
    model: ModelSpec
    input: InputSpec
    output: OutputSpec
    options: Task = Field(default_factory=dict, validate_default=True, description="the task's own options")
    limits: Limits = Limits()
    compute: ComputeSpec = ComputeSpec()
    on_error: Literal["quarantine", "fail"] = Field(
        default="quarantine", description="a bad item becomes a quarantine row, or ends the run"
    )
    max_error_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="the share of items that may end in quarantine; one more ends the attempt",
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
        known = [field.name for field in dataclasses.fields(kind)]
        for name in options or {}:
            if name not in known:
                raise ValueError(f"{name}: {_unknown(name, known)}")
        return TypeAdapter(kind).validate_python(options or {})

    @property
    def format(self) -> Format:
        """The format of the output's parts."""
        return self.output.format or self.options.format

    @field_serializer("options")
    def _plain(self, options: Any) -> dict[str, Any]:
        return dataclasses.asdict(options)


def load_job(path: str, overrides: Sequence[str] = ()) -> JobSpec:
    """Read a job file and apply overrides such as "compute.batch=8".

    Paths in the file are relative to the file, paths in overrides to the working directory. Raises SpecError
    listing everything that is wrong with it.
    """
    try:
        document = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise SpecError(f"No such job file: {path}. Examples are in examples/.") from None
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise SpecError(
            f"{path} must be a mapping with name, task, model, input and output at its top level."
        )
    for place in _PATHS:
        below = document.get(place[0])
        if isinstance(below, dict) and place[1] in below:
            document = _with(document, place, _anchored(place, below[place[1]], Path(path).resolve().parent))
    return parse_job(overridden(document, overrides), path)


def overridden(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The document with overrides such as "compute.batch=8" applied; SpecError of one that is none."""
    for place, value in map(_override, overrides):
        document = _with(document, place, _anchored(place, value, Path.cwd()))
    return document


def parse_job(document: dict[str, Any], origin: str = "The job") -> JobSpec:
    """A document as a checked job; SpecError lists everything that is wrong with it."""
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        problems = "\n".join(f"  {line}" for line in _problems(error))
        raise SpecError(f"{origin} is not a valid job:\n{problems}") from error


def _problems(error: ValidationError, above: tuple[str, ...] = ()) -> Iterator[str]:
    for detail in error.errors():
        place = (*above, *map(str, detail["loc"]))
        where = ".".join(place)
        inner = detail.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):  # of the task's options
            yield from _problems(inner, place)
        elif detail["type"] == "extra_forbidden":
            parent: Any = JobSpec
            for name in place[:-1]:
                parent = parent.model_fields[name].annotation
            known = parent.model_fields if hasattr(parent, "model_fields") else parent.__dataclass_fields__
            yield f"{where}: {_unknown(place[-1], list(known))}"
        elif detail["type"] == "unexpected_keyword_argument":  # of an option that has fields itself
            yield f"{where}: no such option."
        elif detail["type"] == "missing":
            yield f"{where}: missing."
        else:
            got = "" if isinstance(inner, SecretError) else f" (got {detail['input']!r})"
            yield f"{where}: {detail['msg'].removeprefix('Value error, ')}{got}"


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"no such option.{f' Did you mean {near[0]}?' if near else ''} There are: {', '.join(known)}."


def _override(text: str) -> tuple[list[str], Any]:
    """ "compute.batch=8" as its path and value."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise SpecError(f"-o {text}: expected key=value with a dotted key, such as -o compute.batch=8.")
    return key.split("."), yaml.safe_load(value)


def _with(document: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """The document with one value replaced, copied along the path."""
    if len(path) == 1:
        return document | {path[0]: value}
    below = document.get(path[0])
    return document | {path[0]: _with(below if isinstance(below, dict) else {}, path[1:], value)}


_CHECKPOINT = ["model", "checkpoint"]
#: What in a job file is a path: relative to the file there, to the working directory in an override.
_PATHS = (_CHECKPOINT, ["input", "uri"], ["input", "roots"], ["output", "uri"])


def _anchored(path: list[str], value: Any, folder: Path) -> Any:
    if path not in _PATHS or value == "demo":  # a folder of that name is ./demo
        return value
    if isinstance(value, list):
        return [_anchored(path, one, folder) for one in value]
    if not isinstance(value, str) or "://" in value:
        return value
    anchored = os.path.normpath(folder / Path(value).expanduser())
    if path == _CHECKPOINT and is_hub_id(value) and not os.path.isdir(anchored):
        return value  # no folder, so a hub id
    return anchored
