"""What makes two runs the same: everything that the output's values depend on, and how to name a difference."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from jobs.spec import Job
from perceiver_core.checkpoint import CheckpointInfo
from pipelines.listing import compare, digest_of
from pipelines.stages import ModelPlan

INPUT, LIMIT = "input", "input.limit"


def fingerprint(job: Job, checkpoint: CheckpointInfo, model: ModelPlan, listing: pa.Table) -> dict[str, Any]:
    """The job's fingerprint, as plain values that JSON keeps."""
    return {
        "task": job.task,
        "options": json.loads(json.dumps(dataclasses.asdict(job.options))),  # tuples as lists
        "checkpoint": checkpoint.digest,
        "code": importlib.metadata.version("perceiver-batch"),
        "reference": model.reference,
        "fold": model.fold,
        "dtype": model.dtype,
        "batch": model.batch,
        "chunk": model.chunk,
        "format": job.format,
        "contents": job.input.model_dump(include={"format", "columns", "keep", "roots"}),
        "limits": dataclasses.asdict(job.limits),
        "shard_windows": job.compute.shard_windows,
        INPUT: digest_of(listing),
        **({LIMIT: job.input.limit} if job.input.limit else {}),
    }


def recipe(what: dict[str, Any]) -> dict[str, Any]:
    """A fingerprint less what rows don't depend on: the input, and limits, which say only what has rows at all."""
    return {name: value for name, value in what.items() if name not in (INPUT, LIMIT, "limits")}


def run_id(out: str, what: dict[str, Any], *more: Any) -> str:
    """A new run's id, of all that it is about to be."""
    return hashlib.sha256(json.dumps([out, what, *more], sort_keys=True).encode()).hexdigest()[:12]


def changes(old: dict[str, Any], new: dict[str, Any], then: pa.Table, now: pa.Table) -> Iterator[str]:
    """What differs between two fingerprints, by name; `then` and `now` are the inputs' listings."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if name == INPUT:
            yield f"input ({compare(then, now)})"
        elif name == "checkpoint":
            yield "checkpoint (other weights or config)"
        elif isinstance(before, dict) and isinstance(after, dict):
            for key in sorted(before.keys() | after.keys()):
                if before.get(key) != after.get(key):
                    yield f"{name}.{key} was {before.get(key)!r}, is {after.get(key)!r}"
        else:
            yield f"{name} was {before!r}, is {after!r}"
