"""A job file as a document: YAML without its traps, overrides, and paths relative to where they were written."""

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

import yaml

from perceiver_core.errors import PerceiverError
from perceiver_core.sources import is_hub_id
from pipelines.secrets import check_references, found_in, names_secret, redacted, strings

CHECKPOINT = ("model", "checkpoint")
#: What in a job is a path: relative to the file there, to the working directory in an override.
PATHS = (CHECKPOINT, ("input", "uri"), ("input", "roots"), ("output", "uri"))
_LONGEST = 1 << 20  # bytes of a job file: what is larger is something else, given by mistake
_DEEPEST, _MOST = 32, 1_000_000  # levels and values of a document, each repetition by an anchor counted


class SpecError(PerceiverError, ValueError):
    """The job file, or what it points to, can't be run as it is."""


class _Loader(yaml.SafeLoader):
    """YAML, but for a key that is there twice, of which PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value} is there already, in line {seen[key.value]}. Remove one of the "
                        "two",
                        problem_mark=key.start_mark,
                    )
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def read_document(path: str) -> dict[str, Any]:
    """A job file, its paths made absolute. Raises SpecError."""
    document = _yaml(_text(path), path)
    if document is None:
        raise SpecError(f"{path} is empty: expected a job. perceive init TASK writes one to begin with.")
    if not isinstance(document, dict):
        raise SpecError(
            f"{path} must be a mapping with name, task, model, input and output at its top level; got "
            f"{kind_of(document)}. perceive init TASK writes one to begin with."
        )
    for place in PATHS:
        below = document.get(place[0])
        if isinstance(below, dict) and place[1] in below:
            document = _with(document, place, _anchored(place, below[place[1]], Path(path).resolve().parent))
    return document


def overridden(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The document with overrides such as "compute.batch=8" applied; SpecError of one that is none."""
    for place, value in map(_override, overrides):
        document = _with(document, place, _anchored(place, value, Path.cwd()))
    return document


def check_document(document: Mapping[Any, Any], origin: str) -> None:
    """Raise SpecError where a document holds what no job may: keys of any kind, references, values of other types."""
    wrong = list(_strange(document)) or list(wrong_texts(document))
    if wrong:
        lines = "\n".join(f"  {'.'.join(place)}: {what}" for place, what in wrong)
        raise SpecError(f"{origin} is not a valid job:\n{lines}")


def wrong_texts(document: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where values look like keys, or refer to the environment where that can't be kept out of the output."""
    yield from found_in(document, naming=("kubernetes",))
    for place, text in strings(document):
        if place == ("kubernetes", "env") and names_secret(text):
            yield (
                place,
                (
                    f"{text} is by its name a secret, and all who may look at the cluster would see it. Keep it in a "
                    f"Secret, and name that: kubernetes.secrets.{text}: {{name: ..., key: ...}}."
                ),
            )
        if "${env:" not in text:
            continue
        if place == CHECKPOINT:
            try:
                check_references(text)
            except ValueError as error:
                yield place, str(error)
        elif place[:2] in PATHS:
            yield (
                place,
                (
                    "${env:...} is for model.checkpoint alone: what this address leads to is named by it in the "
                    "output, for all who may read that. Give credentials by the environment (AWS_PROFILE, "
                    "GOOGLE_APPLICATION_CREDENTIALS, ...), or copy the files to where these lead."
                ),
            )
        else:
            yield (
                place,
                (
                    "${env:...} is for secrets in the web address of model.checkpoint, and only there. Write the value "
                    "itself, or give it when you run the job: -o KEY=VALUE."
                ),
            )


def kind_of(value: Any) -> str:
    """What a value is, for people."""
    if value is None:
        return "nothing"
    kinds = {
        "a mapping": dict,
        "a list": list | tuple,
        "a text": str,
        "true or false": bool,
        "a number": int | float,
        "a date": date | time,
    }
    return next(
        (name for name, kind in kinds.items() if isinstance(value, kind)), f"a {type(value).__name__}"
    )


def _text(path: str) -> str:
    try:
        if os.path.getsize(path) > _LONGEST:
            raise SpecError(f"{path} is larger than {_LONGEST} bytes: expected a job file. Check the path.")
        return Path(path).read_text("utf-8")
    except FileNotFoundError:
        raise SpecError(
            f"No such job file: {path}. Check the path, or write one with perceive init TASK {path}."
        ) from None
    except IsADirectoryError:
        raise SpecError(
            f"{path} is a folder: expected a job file. Name the file in it, such as {os.path.join(path, 'job.yaml')}."
        ) from None
    except UnicodeDecodeError:
        raise SpecError(f"{path} is not UTF-8 text: expected a job file in YAML. Check the path.") from None
    except OSError as error:
        raise SpecError(f"{path} can't be read: {error.strerror}. Check its permissions.") from error


def _yaml(text: str, origin: str) -> Any:
    try:
        return _finite(yaml.load(text, _Loader), origin)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise SpecError(f"{origin}{line} is not YAML as it must be: {_said(error)}.") from None
    except yaml.YAMLError as error:  # of characters that no YAML may have
        what = getattr(error, "reason", "characters that YAML can't have")
        raise SpecError(f"{origin} is not YAML: {what}. Check that it is a job file.") from None
    except RecursionError:
        raise SpecError(f"{origin} is nested too deeply to be a job.") from None
    except ValueError as error:  # of a date that is none
        raise SpecError(f"{origin} is not YAML: {error}. Write it in quotes if it is a text.") from None


def _finite(document: Any, origin: str) -> Any:
    """The document; SpecError if anchors make it endless, or all but."""
    values, level = [document], 0
    count = 1
    while values:
        below = [
            one
            for value in values
            if isinstance(value, dict | list)
            for one in (value.values() if isinstance(value, dict) else value)
        ]
        count, level, values = count + len(below), level + 1, below
        if level > _DEEPEST or count > _MOST:
            raise SpecError(
                f"{origin} has more than {_DEEPEST} levels or {_MOST} values, counting what its anchors repeat: "
                "expected a job. Check its anchors (&, *)."
            )
    return document


def _said(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, and what to do. The line itself, which may hold anything, is not repeated."""
    problem = error.problem or "it can't be read"
    if "'\\t'" in problem:
        return "it is indented by a tab. Indent it by spaces"
    if "unknown escape character" in problem:
        return (
            "in double quotes a backslash begins an escape, so a path of Windows can't be in them. Write it in single "
            "quotes, or with slashes"
        )
    if "expected a single document" in f"{error.context} {problem}":
        return "a second document begins here (---). Write each job into a file of its own"
    if "mapping values are not allowed" in problem:
        return "a key can't be here. Check its indentation, and put texts with a colon and a space in quotes"
    return f"{f'{error.context}, ' if error.context else ''}{problem}"


def _override(text: str) -> tuple[tuple[str, ...], Any]:
    """ "compute.batch=8" as its path and value."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        shown = "..." if any(found_in(text)) else redacted(text)
        raise SpecError(f"-o {shown}: expected key=value with a dotted key, such as -o compute.batch=8.")
    return tuple(key.split(".")), _yaml(value, f"-o {key}")


def _with(document: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The document with one value replaced, copied along the path."""
    if len(path) == 1:
        return document | {path[0]: value}
    below = document.get(path[0])
    return document | {path[0]: _with(below if isinstance(below, dict) else {}, path[1:], value)}


def _anchored(path: tuple[str, ...], value: Any, folder: Path) -> Any:
    if path not in PATHS or (value == "demo" and path == CHECKPOINT):  # a folder of that name is ./demo
        return value
    if isinstance(value, list):
        return [_anchored(path, one, folder) for one in value]
    if not isinstance(value, str) or "://" in value:
        return value
    anchored = os.path.normpath(folder / Path(value).expanduser())
    if path == CHECKPOINT and is_hub_id(value) and not os.path.isdir(anchored):
        return value  # no folder, so a hub id
    return anchored


def _strange(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where a document has what JSON hasn't: YAML makes dates, and keys that are true or 5, of what looks like text."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            if isinstance(key, str) and _encodes(key):
                yield from _strange(below, (*place, key))
            else:
                yield (
                    (*place, ascii(key) if isinstance(key, str) else str(key)),
                    (
                        f"expected a key that is a text; got {kind_of(key)}. YAML reads yes, no, on and off as "
                        "true and false: write it in quotes."
                    ),
                )
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _strange(below, (*place, str(index)))
    elif isinstance(value, str) and not _encodes(value):
        yield place, "expected a text; got half of a character (a surrogate). Write the character itself."
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, f"expected a finite number; got {value}."
    elif not (value is None or isinstance(value, str | int | float | bool)) and not hasattr(
        value, "__dataclass_fields__"
    ):
        yield place, f"expected a text or a number; got {kind_of(value)}. Write it in quotes if it is a text."


def _encodes(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
