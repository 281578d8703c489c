"""What makes two runs the same: everything that the output's values depend on, and how to name a difference."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.spec import JobSpec, SpecError
from perceiver_core.checkpoint import CheckpointInfo
from pipelines.plan import digest
from pipelines.stages import ModelPlan


def fingerprint(job: JobSpec, checkpoint: CheckpointInfo, model: ModelPlan, plan: pa.Table) -> dict[str, Any]:
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
        "input": digest(plan),
    }


def run_id(out: str, new: dict[str, Any], plan: pa.Table) -> str:
    """The id of the run that this output holds, or of a new one; SpecError if it holds another job's."""
    for path in sorted(Path(out, "runs").glob("*/run.json")):
        known = json.loads(path.read_text())
        if known["fingerprint"] == new:
            return str(known["run_id"])  # also where the output was moved since
        changes = "; ".join(_changes(known["fingerprint"], new, path.parent / "plan.parquet", plan))
        raise SpecError(
            f"output: {out} already holds run {known['run_id']}, which differs from this job: {changes}. "
            "Choose another output.uri, or run the job as it was to resume it."
        )
    text = json.dumps([out, new], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _changes(old: dict[str, Any], new: dict[str, Any], old_plan: Path, plan: pa.Table) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if name == "input":
            yield _input_change(_versions(pq.read_table(old_plan)), _versions(plan))
        elif name == "checkpoint":
            yield "checkpoint (other weights or config)"
        elif isinstance(before, dict) and isinstance(now, dict):
            for key in sorted(before.keys() | now.keys()):
                if before.get(key) != now.get(key):
                    yield f"{name}.{key} was {before.get(key)!r}, is {now.get(key)!r}"
        else:
            yield f"{name} was {before!r}, is {now!r}"


def _input_change(then: dict[str, str], now: dict[str, str]) -> str:
    changed = sum(then[item] != now[item] for item in then.keys() & now.keys())
    added, removed = len(now.keys() - then.keys()), len(then.keys() - now.keys())
    if not (added or removed or changed):
        return "input (the same items, cut into other shards)"
    return f"input ({added} items added, {removed} removed, {changed} changed)"


def _versions(plan: pa.Table) -> dict[str, str]:
    return dict(zip(plan["item_id"].to_pylist(), plan["version"].to_pylist(), strict=True))
