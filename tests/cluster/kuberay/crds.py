"""What an API server says of a document: KubeRay 1.7's own schemas, and Kubernetes' for kinds of its own.

Structural schemas as a server applies them to what kubectl sends: defaults first, unknown fields refused, keyed lists
without doubles, then the rules in CEL; those that compare with what was there before only where that is given.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from openapi_schema_validator import OAS30Validator, oas30_format_checker

#: Beside the checkout; not all have it.
FOLDER = Path(__file__).parents[4] / "shared/crds"
KINDS = {"RayJob": "rayjobs", "RayCronJob": "raycronjobs", "RayCluster": "rayclusters"}

needs_crds = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"KubeRay's schemas are not in {FOLDER}")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_MISSING = object()


def problems(kind: str, document: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> list[str]:
    """Why a server would refuse the document, as a new one or in place of what was there before."""
    wrong = [*_identity(kind, document)]
    if kind not in KINDS:
        try:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{'.'.join(map(str, error.path))}: {error.message}")
        return wrong
    schema = _schema(kind)
    complete = defaulted(document, schema)
    validator = OAS30Validator(schema, format_checker=oas30_format_checker)
    wrong += [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(complete)]
    if not wrong:  # the rules are for what is of the right types
        wrong += _doubles(complete, schema, ())
        wrong += _rules(complete, schema, defaulted(before, schema) if before else _MISSING, ())
    return wrong


def with_defaults(kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as a server stores it."""
    found: dict[str, Any] = defaulted(document, _schema(kind)) if kind in KINDS else copy.deepcopy(document)
    return found


def _identity(kind: str, document: Mapping[str, Any]) -> Iterator[str]:
    version = "ray.io/v1" if kind in KINDS else document.get("apiVersion")
    if (document.get("apiVersion"), document.get("kind")) != (version, kind):
        yield f"expected {version} {kind}; got {document.get('apiVersion')} {document.get('kind')}"
    metadata = document.get("metadata", {})
    if not _NAME.fullmatch(metadata.get("name", "")) and not metadata.get("generateName"):
        yield f"metadata.name: {metadata.get('name')!r} is no name"
    for field in ("labels", "annotations"):
        for key, value in metadata.get(field, {}).items():
            if not _KEY.fullmatch(key) or not isinstance(value, str):
                yield f"metadata.{field}.{key}: no key with a text"
            elif field == "labels" and not _VALUE.fullmatch(value):
                yield f"metadata.labels.{key}: {value!r} is no label"


@cache
def _schema(kind: str) -> dict[str, Any]:
    """The schema of version v1, closed."""
    text = (FOLDER / f"ray.io_{KINDS[kind]}.v1.7.0.yaml").read_text()
    versions = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]
    found = next(one for one in versions if one["name"] == "v1")
    return _closed(found["schema"]["openAPIV3Schema"])


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with no other fields than it names."""
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {name: _closed(below) for name, below in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            closed[name] = _closed(schema[name])
    return closed


def defaulted(value: Any, schema: dict[str, Any]) -> Any:
    """The value with what it leaves out and the schema has a default of."""
    if isinstance(value, Mapping):
        fields = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        complete = {
            name: defaulted(below, fields.get(name) or (rest if isinstance(rest, dict) else {}))
            for name, below in value.items()
        }
        for name, field in fields.items():
            if name not in complete and "default" in field:
                complete[name] = copy.deepcopy(field["default"])
        return complete
    if isinstance(value, list):
        return [defaulted(below, schema.get("items", {})) for below in value]
    return value


def _below(value: Any, schema: dict[str, Any]) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """What a value holds: each by its key, with its schema."""
    if isinstance(value, Mapping):
        rest = schema.get("additionalProperties")
        for name, one in value.items():
            found = schema.get("properties", {}).get(name) or rest
            if isinstance(found, dict):
                yield name, one, found
    elif isinstance(value, Sequence) and not isinstance(value, str) and "items" in schema:
        for index, one in enumerate(value):
            yield index, one, schema["items"]


def _doubles(value: Any, schema: dict[str, Any], place: tuple[Any, ...]) -> Iterator[str]:
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if schema.get("x-kubernetes-list-type") in ("map", "set") and isinstance(value, list):
        seen = []
        for one in value:
            key = [one.get(name) for name in keys] if keys else one
            if key in seen:
                yield f"{'.'.join(map(str, place))}: {key} is there twice"
            seen.append(key)
    for name, one, found in _below(value, schema):
        yield from _doubles(one, found, (*place, name))


def _rules(value: Any, schema: dict[str, Any], before: Any, place: tuple[Any, ...]) -> Iterator[str]:
    import celpy

    for rule in schema.get("x-kubernetes-validations", ()):
        names = {"self": value}
        if "oldSelf" in rule["rule"]:
            if before is _MISSING:
                continue
            names["oldSelf"] = before
        context = {name: celpy.json_to_cel(one) for name, one in names.items()}
        if not _program(rule["rule"]).evaluate(context):
            yield f"{'.'.join(map(str, place))}: {rule['message']}"
    for name, one, found in _below(value, schema):
        was = before.get(name, _MISSING) if isinstance(before, Mapping) else _MISSING
        yield from _rules(one, found, was, (*place, name))


@cache
def _program(rule: str) -> Any:
    import celpy

    environment = celpy.Environment()
    return environment.program(environment.compile(rule))
