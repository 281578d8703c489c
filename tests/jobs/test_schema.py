"""The published JSON Schema is the model's, and both say the same of a document."""

import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from jobs.cli import main
from jobs.schema import FILE, job_schema
from jobs.spec import SECTIONS, SpecError, parse_job
from pipelines.tasks import TASKS

GOOD: dict[str, Any] = {
    "name": "a-job",
    "task": "multimodal-autoencoding",
    "model": {"checkpoint": "demo"},
    "input": {"uri": ["clips", "s3://bucket/more"]},
    "output": {"uri": "/out"},
}
VALIDATOR = Draft202012Validator(job_schema())


def test_it_is_published_as_it_is() -> None:
    Draft202012Validator.check_schema(job_schema())
    assert json.loads(FILE.read_text()) == job_schema(), "perceive schema > jobs/job.schema.json"
    for arguments in ([], ["--json"]):
        done = CliRunner().invoke(main, ["schema", *arguments])
        assert json.loads(done.stdout) == job_schema()


def test_every_field_has_its_meaning() -> None:
    def mappings(value: Any, place: str = "") -> Any:
        if isinstance(value, dict):
            if "properties" in value and "if" not in place and "then" not in place:
                yield place, value
            for key, below in value.items():
                yield from mappings(below, f"{place}.{key}")
        elif isinstance(value, list):
            for one in value:
                yield from mappings(one, place)

    for place, mapping in mappings(job_schema()):
        assert mapping.get("additionalProperties") is False, place
        for name, field in mapping["properties"].items():
            assert field.get("description"), f"{place}.{name}"
            assert "title" not in field, f"{place}.{name}"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"options": {"points": {"grid": [1, 4, 4]}, "outputs": ["video", "labels"]}},
        {"options": {"points": {"frames": [0, 8]}, "stream": None}},
        {"options": None, "limits": None, "compute": None},
        {"limits": {"seconds": 60, "duration": 1.5}},
        {"compute": {"batch": 8, "stall_minutes": 1}},
        {"input": {"uri": "a", "columns": {"video": "mp4"}, "keep": ["id"], "roots": ["/b"]}},
        {"task": "masked-lm", "options": {"positions": [[52, 60]]}},
        {"task": "decode", "options": {"points": {"random": 9, "seed": 3}}},
        {"task": "latents", "options": {"dtype": "float16"}, "max_error_rate": 0.5, "on_error": "fail"},
        {"schedule": {"cron": "30 2 * * *"}},
        {
            "schedule": {
                "cron": "0 */6 * * MON-FRI",
                "timezone": "Australia/Lord_Howe",
                "overlap": "queue",
                "catch_up": "all",
                "max_catch_up": 3,
                "start_deadline": "2h",
                "jitter": "10m",
                "webhook": "TEAM_WEBHOOK",
            }
        },
        {"schedule": None},
        *({"task": task.name} for task in TASKS),
    ],
)
def test_what_the_model_takes_the_schema_takes(change: dict[str, Any]) -> None:
    document = GOOD | change
    parse_job(document)
    VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"name": "No Spaces"},
        {"name": 7},
        {"task": "cook"},
        {"model": {}},
        {"model": "demo"},
        {"model": {"checkpoint": "a", "referense": "hf"}},
        {"input": {"uri": 3}},
        {"input": {"uri": [3]}},
        {"input": {"uri": "x", "keep": "id"}},
        {"input": {"uri": "x", "columns": {"video": 1}}},
        {"output": None},
        {"output": {"uri": "x", "format": "csv"}},
        {"options": []},
        {"options": {"topk": 1}},
        {"options": {"top_k": "3"}},
        {"options": {"top_k": True}},
        {"options": {"points": "some"}},
        {"options": {"points": {"gird": 3}}},
        {"options": {"points": {"grid": [1, 2]}}},
        {"options": {"outputs": ["vidoe"]}},
        {"task": "latents", "options": {"top_k": 3}},
        {"limits": {"secnds": 3}},
        {"limits": {"seconds": "3"}},
        {"compute": {"batch": 0}},
        {"compute": {"batch": "8"}},
        {"compute": {"stall_minutes": 0}},
        {"compute": {"device": "tpu"}},
        {"on_error": False},
        {"max_error_rate": 2},
        {"schedule": {}},
        {"schedule": "30 2 * * *"},
        {"schedule": {"cron": "30 2 * * *", "overlap": "maybe"}},
        {"schedule": {"cron": "30 2 * * *", "max_catch_up": 0}},
        {"schedule": {"cron": "30 2 * * *", "retries": 3}},
    ],
)
def test_what_the_schema_refuses_the_model_refuses(change: dict[str, Any]) -> None:
    document = GOOD | change
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(SpecError):
        parse_job(document)


def test_what_is_stored_is_valid_too() -> None:
    stored = parse_job(GOOD).model_dump(mode="json")
    assert yaml.safe_load(yaml.safe_dump(stored)) == stored
    VALIDATOR.validate(stored)
    assert parse_job(stored).model_dump(mode="json") == stored
    assert {*SECTIONS} <= stored.keys()
