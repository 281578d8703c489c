"""Manifests: the account of a run, closed when every item is either in a part or in quarantine.

The highest-numbered manifest of an output is its table; a number is claimed by creating its file.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.plan import shards
from pipelines.sink import Commit, OutputError, Sink, committed, create_if_absent, read_commit

_VERSION = 1


@dataclass(frozen=True)
class Part:
    """One file of the table, paths relative to the output."""

    path: str
    rows: int
    quarantined: int
    quarantine: str | None


@dataclass(frozen=True)
class Manifest:
    """The table: which files hold it, and how it adds up."""

    run_id: str
    items: int
    rows: int
    quarantined: int
    parts: tuple[Part, ...]


def newest(out: str) -> Manifest | None:
    """The output's table, or None while no run has been closed in it."""
    numbered = _numbered(out)
    return _read(numbered[max(numbered)]) if numbered else None


def close(plan: pa.Table, sink: Sink) -> Manifest:
    """Account for every span of the plan from the parts alone, and publish the manifest.

    Raises OutputError naming the shards that don't add up. Closing a closed run changes nothing.
    """
    files = committed(sink.out, sink.run_id)
    expected = shards(plan)
    commits = {shard: read_commit(files[shard]) for shard in expected if shard in files}
    wrong = [
        f"{shard} ({_account(commits.get(shard))} of {spans.num_rows} spans)"
        for shard, spans in expected.items()
        if shard not in commits or commits[shard].spans != spans.num_rows
    ]
    if wrong:
        raise OutputError(
            f"The output doesn't add up: of {len(expected)} shards, {len(wrong)} are missing or incomplete: "
            f"{', '.join(wrong[:10])}. Run the job again to resume; if it stays, report it as a bug."
        )
    parts = tuple(
        Part(sink.part(shard), commit.rows, commit.quarantined, commit.quarantine)
        for shard, commit in commits.items()
    )
    manifest = Manifest(
        run_id=sink.run_id,
        items=len(set(plan["item_id"].to_pylist())),
        rows=sum(part.rows for part in parts),
        quarantined=sum(part.quarantined for part in parts),
        parts=parts,
    )
    _drop_orphans(manifest, sink)
    while newest(sink.out) != manifest:
        number = max(_numbered(sink.out), default=0) + 1
        path = Path(sink.out, "manifests", f"{number:06d}.json")
        with create_if_absent(path, Path(sink.out, "runs", sink.run_id, "tmp")) as draft:
            draft.write_text(json.dumps({"version": _VERSION, **asdict(manifest)}, indent=1))
        if _read(path) == manifest:
            break
    return manifest


def _drop_orphans(manifest: Manifest, sink: Sink) -> None:
    """Remove quarantine files of this run that no part refers to: their attempt died before its commit."""
    kept = {part.quarantine for part in manifest.parts}
    for path in Path(sink.out, "quarantine").glob(f"{sink.run_id}-*"):
        if f"quarantine/{path.name}" not in kept:
            path.unlink()


def _read(path: Path) -> Manifest:
    text: dict[str, Any] = json.loads(path.read_text())
    if text.pop("version") != _VERSION:
        raise OutputError(
            f"{path} is not a manifest of version {_VERSION}: it was written by another perceiver-batch. "
            "Read it with that one, or choose another output."
        )
    parts = tuple(Part(**part) for part in text.pop("parts"))
    return Manifest(**text, parts=parts)


def _numbered(out: str) -> dict[int, Path]:
    return {int(path.stem): path for path in Path(out, "manifests").glob("*.json")}


def _account(commit: Commit | None) -> str:
    return f"{commit.spans}" if commit else "none"
