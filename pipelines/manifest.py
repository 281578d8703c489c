"""Manifests: the account of a run, closed when every item is either in a part or in quarantine.

The highest-numbered manifest of an output is its table; a number is claimed by creating its file.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.sink import Commit, OutputError, Sink, create_if_absent, read_commits

_VERSION = 2


@dataclass(frozen=True)
class Part:
    """One file of the table."""

    path: str  #: relative to the output
    rows: int


@dataclass(frozen=True)
class Manifest:
    """The table: which files hold it, and how it adds up."""

    run_id: str
    items: int
    rows: int
    quarantined: int
    parts: tuple[Part, ...]
    quarantine: tuple[str, ...]  #: the files of the quarantine table, relative to the output


def newest(out: str) -> Manifest | None:
    """The output's table, or None while no run has been closed in it."""
    numbered = _numbered(out)
    return _read(numbered[max(numbered)]) if numbered else None


def closed(sink: Sink) -> Manifest | None:
    """The newest manifest, if it is this run's and the table's files are there: then nothing is left to do."""
    found = newest(sink.out)
    if found is None or found.run_id != sink.run_id:
        return None
    return found if all(Path(sink.out, part.path).exists() for part in found.parts) else None


def account(plan: pa.Table, commits: Sequence[Commit]) -> None:
    """Raise OutputError, naming the shards, unless every span of the plan is in the commits exactly once."""
    expected = Counter(plan["shard"].to_pylist())
    found = Counter[int]()
    for commit in commits:
        found[commit.shard] += commit.spans
    wrong = [
        f"{shard} ({found[shard] or 'none'} of {expected[shard]} spans)"
        for shard in sorted(expected | found)
        if found[shard] != expected[shard]
    ]
    if wrong:
        raise OutputError(
            f"The output doesn't add up: of {len(expected)} shards, {len(wrong)} are missing or incomplete: "
            f"{', '.join(wrong[:10])}. Run the job again to resume; if it stays, report it as a bug."
        )


def close(plan: pa.Table, sink: Sink, files: Sequence[Path]) -> Manifest:
    """Account for every span of the plan from the table's files alone, and publish the manifest.

    Raises OutputError naming the shards that don't add up. Closing a closed run changes nothing.
    """
    held = {str(path.relative_to(sink.out)): read_commits(path) for path in files}
    commits = [commit for part in held.values() for commit in part]
    account(plan, commits)
    parts = tuple(Part(path, sum(commit.rows for commit in part)) for path, part in held.items())
    manifest = Manifest(
        run_id=sink.run_id,
        items=len(set(plan["item_id"].to_pylist())),
        rows=sum(part.rows for part in parts),
        quarantined=sum(commit.quarantined for commit in commits),
        parts=parts,
        quarantine=tuple(commit.quarantine for commit in commits if commit.quarantine),
    )
    _drop_orphans(manifest, sink)
    while newest(sink.out) != manifest:
        number = max(_numbered(sink.out), default=0) + 1
        path = Path(sink.out, "manifests", f"{number:06d}.json")
        with create_if_absent(path, sink.tmp) as draft:
            draft.write_text(json.dumps({"version": _VERSION, **asdict(manifest)}, indent=1))
        if _read(path) == manifest:
            break
    return manifest


def _drop_orphans(manifest: Manifest, sink: Sink) -> None:
    """Remove quarantine files of this run that no commit refers to: their attempt died before its commit."""
    for path in Path(sink.out, "quarantine").glob(f"{sink.run_id}-*"):
        if f"quarantine/{path.name}" not in manifest.quarantine:
            path.unlink()


def _read(path: Path) -> Manifest:
    text: dict[str, Any] = json.loads(path.read_text())
    if text.pop("version") != _VERSION:
        raise OutputError(
            f"{path} is not a manifest of version {_VERSION}: it was written by another perceiver-batch. "
            "Read it with that one, or choose another output."
        )
    parts = tuple(Part(**part) for part in text.pop("parts"))
    return Manifest(**text | {"parts": parts, "quarantine": tuple(text["quarantine"])})


def _numbered(out: str) -> dict[int, Path]:
    return {int(path.stem): path for path in Path(out, "manifests").glob("*.json")}
