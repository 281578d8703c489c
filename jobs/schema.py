"""The job file's JSON Schema, for editors: of the same classes that check it, with each task's own options."""

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from jobs.spec import SECTIONS, Job
from pipelines.describing import meaning
from pipelines.limits import Limits
from pipelines.tasks import TASKS

#: What `perceive schema` prints, as it comes along: editors read it from there.
FILE = Path(__file__).parent / "job.schema.json"


def job_schema() -> dict[str, Any]:
    """The schema. What only a task or a checkpoint can tell, such as which options go together, isn't in it."""
    schema = Job.model_json_schema()
    defs = schema.pop("$defs")
    defs["Limits"] = _described(defs["Limits"], Limits)
    for task in TASKS:
        options = TypeAdapter(task).json_schema(ref_template="#/$defs/{model}")
        for name, inner in options.pop("$defs", {}).items():
            defs[name] = _described(inner, next(kind for kind in _inside(task) if kind.__name__ == name))
        defs[_options(task.name)] = _described(options, task)
    properties = schema["properties"]
    properties["task"] = {
        "description": Job.model_fields["task"].description,
        "enum": [t.name for t in TASKS],
    }
    properties["options"]["type"] = ["object", "null"]
    for name in SECTIONS[1:]:  # nothing in them is all of their defaults
        section = properties[name]
        properties[name] = {
            "anyOf": [{"$ref": section["$ref"]}, {"type": "null"}],
            "description": section["description"],
        }
    schema["allOf"] = [
        {
            "if": {"properties": {"task": {"const": task.name}}, "required": ["task"]},
            "then": {
                "properties": {
                    "options": {"anyOf": [{"$ref": f"#/$defs/{_options(task.name)}"}, {"type": "null"}]}
                }
            },
        }
        for task in TASKS
    ]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job of perceiver-batch",
    }
    found: dict[str, Any] = _untitled(
        head | {k: v for k, v in schema.items() if k != "title"} | {"$defs": defs}
    )
    return found


def _options(task: str) -> str:
    return f"options-of-{task}"


def _described(schema: dict[str, Any], kind: type) -> dict[str, Any]:
    """A dataclass's schema with its fields' meanings, and no other fields."""
    assert kind.__doc__
    properties = {
        field.name: {"description": meaning(field)} | schema["properties"][field.name]
        for field in dataclasses.fields(kind)
    }
    said = " ".join(kind.__doc__.split("\n\n")[0].split())
    return schema | {"description": said, "properties": properties, "additionalProperties": False}


def _inside(kind: type) -> list[type]:
    """The dataclasses that a dataclass's fields may be of."""
    every = (one for hint in get_type_hints(kind).values() for one in (hint, *getattr(hint, "__args__", ())))
    return [one for one in every if isinstance(one, type) and dataclasses.is_dataclass(one)]


def _untitled(value: Any, names: bool = False) -> Any:
    """Without pydantic's titles, which repeat the fields' names; `names` where keys are names."""
    if isinstance(value, list):
        return [_untitled(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _untitled(below, key in ("properties", "$defs") and not names)
        for key, below in value.items()
        if names or key != "title" or "$schema" in value
    }
