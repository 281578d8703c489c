"""What is wrong with a job, in sentences: where, what was expected, what came, and which name was meant."""

import dataclasses
import difflib
import re
import types
from collections.abc import Iterator, Sequence
from reprlib import Repr
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from perceiver_core.errors import PerceiverError

_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?")


class ProblemsError(PerceiverError, ValueError):
    """Raised with sentences that are found already, of a part that is validated on its own."""

    def __str__(self) -> str:
        return "\n".join(self.args)


@dataclasses.dataclass(frozen=True)
class _Problem:
    """One of pydantic's errors, with its place as a job's reader knows it."""

    place: tuple[str, ...]
    union: tuple[str, ...] | None  #: the place of the first field above it that may be of several kinds
    known: tuple[str, ...]  #: the names that there are at its place
    kind: Any  #: the type that is expected there, where it is known
    meaning: str  #: of the field there, where it is one of a job's sections
    detail: Any


def problems(error: ValidationError, model: type, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Every problem in a sentence; `model` is what was validated, and `above` where it stands in the job."""
    found = [_located(detail, model, above) for detail in error.errors()]
    told = set()
    for one in found:
        if one.union is None:
            yield from _told([one])
        elif one.union not in told:
            told.add(one.union)
            yield from _of_union([other for other in found if other.union == one.union])


def unknown(name: str, known: Sequence[str]) -> str:
    """That there is no such name, which one may have been meant, and which there are."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"no such option.{f' Did you mean {near[0]}?' if near else ''} There are: {', '.join(known)}."


def _of_union(found: list[_Problem]) -> Iterator[str]:
    """Of what is wrong with each kind that a value might be of, that which is deepest: it was meant to be of this."""
    deepest = max(len(one.place) for one in found)
    kept = [one for one in found if len(one.place) == deepest]
    kept = [
        one for one in kept if one.detail["type"] == "value_error"
    ] or kept  # it was of that kind, but for a rule
    for place in dict.fromkeys(one.place for one in kept):
        yield from _told([one for one in kept if one.place == place])


def _told(same: list[_Problem]) -> Iterator[str]:
    """One sentence of the problems at one place."""
    first = same[0]
    where, detail = ".".join(first.place), first.detail
    inner = detail.get("ctx", {}).get("error")
    if isinstance(inner, ProblemsError):
        yield from inner.args
    elif detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        yield f"{where}: {unknown(first.place[-1], first.known)}"
    elif detail["type"] == "missing":
        yield f"{where}: missing. {f'Expected {first.meaning}.' if first.meaning else ''}".rstrip()
    elif detail["type"] == "value_error":
        said = detail["msg"].removeprefix("Value error, ")
        yield f"{where}: {said}" if where else said
    else:
        expected = " or ".join(dict.fromkeys(_expected(one) for one in same))
        got = detail["input"]
        yield f"{where}: expected {expected}; got {_short(got)}.{_hint(same, got)}"


def _expected(one: _Problem) -> str:
    context = one.detail.get("ctx", {})
    said = {
        "string_type": "a text",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "list_type": "a list",
        "tuple_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "dataclass_type": "a mapping",
        "greater_than": f"more than {context.get('gt', 0):g}",
        "greater_than_equal": f"at least {context.get('ge', 0):g}",
        "less_than_equal": f"at most {context.get('le', 0):g}",
        "literal_error": str(context.get("expected")),
        "string_pattern_mismatch": "lower-case letters, digits and hyphens, beginning with a letter or digit, 63 at "
        "most",
    }.get(one.detail["type"], one.detail["msg"])
    names = [name for name, _ in _fields(one.kind)] if said == "a mapping" else []
    return f"{said} with {', '.join(names)}" if names else said


def _hint(same: list[_Problem], got: Any) -> str:
    """What to do about it, where it is a trap of YAML's or a near miss."""
    kinds = {one.detail["type"] for one in same}
    if isinstance(got, bool):
        quotes = ": write it in quotes if it is a text" if kinds & {"string_type", "literal_error"} else ""
        return f" YAML reads yes, no, on and off as true and false{quotes}."
    if isinstance(got, int | float):
        return " Write it in quotes if it is a text." if "string_type" in kinds else ""
    if not isinstance(got, str):
        return ""
    if kinds <= {"int_type", "float_type"} and _NUMBER.fullmatch(got):
        return " Leave the quotes out; a power of ten has a point and a sign, as 1.0e-3."
    if kinds <= {"list_type", "tuple_type"}:
        return f" Write it as a list: [{_short(got)[1:-1]}]."
    choices = [str(choice) for one in same for choice in _choices(one.kind)]
    near = difflib.get_close_matches(got, choices, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _short(value: Any) -> str:
    """A value as it was given, less the middle of a long one."""
    short = Repr()
    short.maxstring = short.maxother = 80
    short.maxlevel = 3
    return short.repr(value)


def _located(detail: Any, model: type, above: tuple[str, ...]) -> _Problem:
    """Where pydantic's path leads: less the names of a union's kinds, which no job has."""
    kind: Any = model
    place = list(above)
    union: tuple[str, ...] | None = None
    known: tuple[str, ...] = ()
    meaning = ""
    for step in detail["loc"]:
        kind = _plain(kind)
        fields = dict(_fields(kind))
        origin = get_origin(kind)
        if fields:
            known = tuple(fields)
            place.append(str(step))
            meaning = _meaning(kind, str(step))
            kind = fields.get(str(step))
        elif origin in (Union, types.UnionType):
            union = union or tuple(place)
            kind = next((one for one in get_args(kind) if _label(one) == step), None)
        else:
            place.append(str(step))
            inside = get_args(kind)
            kind = inside[-1] if origin is dict else inside[0] if inside else None
    return _Problem(tuple(place), union, known, _plain(kind), meaning, detail)


def _meaning(kind: Any, name: str) -> str:
    fields = kind.model_fields if issubclass(kind, BaseModel) else {}
    return fields[name].description or "" if name in fields else ""


def _plain(kind: Any) -> Any:
    """A type less Annotated and None; one that is left of a union, itself."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        left = [one for one in get_args(kind) if one is not type(None)]
        return _plain(left[0]) if len(left) == 1 else Union[tuple(left)]  # noqa: UP007
    return kind


def _fields(kind: Any) -> list[tuple[str, Any]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [(name, field.annotation) for name, field in kind.model_fields.items()]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return [(field.name, hints[field.name]) for field in dataclasses.fields(kind)]
    return []


def _label(kind: Any) -> str:
    """What pydantic calls one of a union's kinds in an error's path."""
    if get_origin(kind) is Literal:
        return f"literal[{','.join(map(repr, get_args(kind)))}]"
    return str(kind).replace("typing.", "") if get_origin(kind) else kind.__name__


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()
