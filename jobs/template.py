"""A job file to begin with: all that a job can say, in the words of the fields themselves, defaults commented out."""

import dataclasses
import shlex
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.schema import FILE
from jobs.spec import Job
from perceiver_core.config import PUBLISHED
from pipelines.contents import VIDEO
from pipelines.describing import meaning, plain_default, type_in_words
from pipelines.multimodal import ARCHITECTURE
from pipelines.tasks import Task

_WIDE = 100  # columns of a comment
_OWN_WEIGHTS = "my-weights"


@dataclasses.dataclass(frozen=True)
class _Field:
    """What a template says of a field."""

    name: str
    meaning: str
    type: str
    default: Any


def checkpoint_for(task: type[Task]) -> str:
    """What comes along and the task runs on, else what was published for it, else a folder of one's own."""
    if ARCHITECTURE in task.architectures:
        return "demo"
    fitting = (name for name, one in PUBLISHED.items() if one.architecture in task.architectures)
    return next(fitting, _OWN_WEIGHTS)


def input_for(task: type[Task], checkpoint: str, media: str | None) -> dict[str, Any]:
    """Where a template's items lie: of videos in `media`, which come along, if they do."""
    content = task.contents[0][0]
    of_checkpoint = getattr(task(), "contents_for", None)
    if checkpoint in PUBLISHED and of_checkpoint:
        content = of_checkpoint(PUBLISHED[checkpoint].config)[0][0]
    if content.kind == "tensor":  # the rows of what the template of latents makes
        return {"uri": "latents-output/data", "keep": ["window"]}
    if content == VIDEO and media:
        return {"uri": media}
    return {"uri": f"{content.kind}s"}


def job_text(task: type[Task], checkpoint: str, input: Mapping[str, Any], output: str, file: str) -> str:
    """The text of a job file; `file` is what it will be called, for the command that runs it."""
    given: dict[str, Any] = {
        "name": task.name,
        "task": task.name,
        "model": {"checkpoint": checkpoint},
        "input": input,
        "output": {"uri": output},
    }
    assert task.__doc__
    does = " ".join(task.__doc__.split("\n\n")[0].split())
    lines = [
        f"# yaml-language-server: $schema={FILE.as_uri()}",
        *_prose(f"{task.name}: {does} What its columns mean: perceive tasks {task.name}", ""),
        *_prose(f"Run it: perceive run {shlex.quote(file)}", ""),
        *_prose("Where a # is right before a name, that is the default: take the # away to change it.", ""),
        *_prose(f"Checkpoints that it runs on: {', '.join(_known(task))}", ""),
        "",
    ]
    for field in _fields(Job):
        kind = task if field.name == "options" else get_type_hints(Job)[field.name]
        if type(None) in get_args(kind) and (optional := _section_of(kind)):
            told = f"{field.meaning} (to have it, take the first # away from its name and from every line below it)"
            lines += ["", *_section(field.name, told, optional), ""]
            continue
        inside = list(_fields(kind))
        if not inside:
            lines += _entry(field, given, "")
            continue
        lines += [*([""] if lines[-1] else []), *_prose(field.meaning, ""), f"{field.name}:"]
        for one in inside:
            lines += _entry(one, given.get(field.name, {}), "  ")
        lines.append("")
    return "\n".join(lines) + "\n"


def _section_of(kind: Any) -> type[BaseModel] | None:
    """The section that stands there, or may."""
    every = (kind, *get_args(kind)) if get_origin(kind) in (None, types.UnionType) else ()
    return next((one for one in every if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _section(name: str, meaning: str, kind: type[BaseModel]) -> list[str]:
    """A section that need not be there: commented out as a whole, and what has a default in it once more."""
    lines = []
    for one in _fields(kind):
        if inner := _section_of(kind.model_fields[one.name].annotation):
            lines += [f"  {line}" for line in _section(one.name, one.meaning, inner)]
        else:
            lines += _entry(one, _required(kind), "  ")
    return [*_prose(meaning, ""), f"#{name}:", *(f"#{line}" for line in lines)]


def _required(kind: type[BaseModel]) -> dict[str, Any]:
    """The fields without a default, by their examples."""
    return {name: field.examples[0] for name, field in kind.model_fields.items() if field.examples}


def _known(task: type[Task]) -> list[str]:
    published = [name for name, one in PUBLISHED.items() if one.architecture in task.architectures]
    demo = ["demo"] if ARCHITECTURE in task.architectures else []
    own = [] if published else [f"your own of {' or '.join(task.architectures)}"]
    return [*demo, *published, *own]


def _fields(kind: Any) -> Iterator[_Field]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield _Field(name, field.description or "", type_in_words(field.annotation), _default(field))
    elif dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        for one in dataclasses.fields(kind):
            yield _Field(one.name, meaning(one), type_in_words(hints[one.name]), plain_default(one))


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _entry(field: _Field, given: Mapping[str, Any], indent: str) -> list[str]:
    """A field: what it means, and its value, or its default commented out."""
    told = f"{field.meaning} ({field.type})" if field.type != "str" else field.meaning
    value = given.get(field.name, field.default)
    off = "" if field.name in given else "#"
    return [*_prose(told, indent), f"{indent}{off}{field.name}: {_yaml(value)}"]


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _prose(text: str, indent: str) -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(
        text,
        _WIDE,
        initial_indent=mark,
        subsequent_indent=mark,
        break_long_words=False,
        break_on_hyphens=False,
    )
