"""Credentials of the environment are in nothing that a run leaves, says or answers."""

import io
import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.faults.processes import Attempt, Bench, Pace, Stop
from tests.faults.store import Store
from tests.faults.work import Work, beside, keys

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: What a user's environment may hold, each with a value that stands nowhere else.
CANARIES = {
    name: f"canary+{name.lower()}/7f3a9=="
    for name in (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_API_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN",
    )
}  # fmt: skip
#: As texts, addresses and JSON have them.
FORMS = {
    form.encode()
    for value in CANARIES.values()
    for form in (
        value,
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote(value),
        value.replace("/", "\\/"),
    )
}


def leaks(where: str, data: bytes) -> list[str]:
    """Which canaries are in some bytes; of a Parquet file, whose pages are compressed, in its rows as well."""
    if data[:4] == b"PAR1":
        file = pq.ParquetFile(io.BytesIO(data))
        data += repr((file.read().to_pylist(), file.metadata.metadata)).encode()
    return [f"{form.decode()} in {where}" for form in FORMS if form in data]


def below(folder: Path) -> dict[str, bytes]:
    """All files of a folder: what was said, drafts, and what Ray leaves."""
    found = {}
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                found[str(path)] = path.read_bytes()
        except FileNotFoundError:  # its run goes on
            continue
    return found


def in_bucket(store: Store) -> Iterator[tuple[str, bytes]]:
    """All objects."""
    files = beside(store)
    for key in keys(store, ""):
        with files.open_input_stream(key) as file:
            yield key, file.read()


def asked(attempt: Attempt) -> bytes:
    """All that Ray answers."""
    [raylet] = attempt.named("raylet")
    [address] = [word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--gcs-address=")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.asking", address],
        env=os.environ | CANARIES | {"RAY_AUTH_MODE": "token"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def take_away(store: Store) -> None:
    """Let the bucket be gone, with all that is in it."""
    urlopen(Request(f"{store.upstream}/moto-api/reset", method="POST"), timeout=10).close()


def test_no_credential_is_left_anywhere(bench: Bench, texts: Work, bucket: Store) -> None:
    bucket.put({f"in/{path.name}": path.read_bytes() for path in (texts.folder / "in").iterdir()})
    source = {"input": {"uri": "s3://bucket/in"}}
    job = texts.job("s3://bucket/secrets", **source)
    found: list[str] = []

    killed = bench.start("run", job, stops=[Stop("worker", "draft written", 3)], **CANARIES)
    killed.wait_until_stopped()
    killed.kill()
    left = below(bench.temporary)
    assert any("/perceive-drafts-" in name for name in left)
    assert any("/logs/worker-" in name for name in left)

    done = bench.start("run", job, paces=[Pace("predict begun", 0.4)], **CANARIES)
    done.wait_for(lambda: done.passed("part committed") >= 3)
    answers = asked(done)
    for known in (b"Counts", b"write_part", b"ActorClass:", b"session_name"):  # actors, tasks, code, values
        assert known in answers
    found += leaks("Ray's answers", answers)
    found += [leak for name, data in below(bench.temporary).items() for leak in leaks(name, data)]
    assert done.end() == 3, done.said
    objects = dict(in_bucket(bucket))
    for folder in ("quarantine", "manifests", "runs/leases", "data"):
        assert any(f"/secrets/{folder}/" in name for name in objects), folder
    assert b"s3://bucket/in/02.txt" in b"".join(objects.values())
    found += [leak for name, data in objects.items() for leak in leaks(name, data)]

    failed = bench.start(
        "run",
        texts.job("s3://bucket/again", **source),
        "--json",
        paces=[Pace("predict begun", 0.4)],
        **CANARIES,
    )
    failed.wait_for(lambda: failed.passed("part committed") >= 3)
    take_away(bucket)
    assert failed.end() == 5, failed.said
    told = json.loads(failed.printed)["error"]
    assert "its bucket isn't there" in told
    assert "Ray's logs of this run are in " in told
    left = below(bench.temporary)
    assert len([name for name in left if "/logs/worker-" in name]) > 10
    found += [leak for name, data in left.items() for leak in leaks(name, data)]
    assert found == []


def test_what_finds_leaks_finds_them(tmp_path: Path) -> None:
    secret = CANARIES["AWS_SECRET_ACCESS_KEY"]
    file = io.BytesIO()
    pq.write_table(pa.table({"message": [f"no {secret}"] * 1000}), file, compression="zstd")
    assert leaks("a table", file.getvalue())
    assert leaks("JSON", json.dumps({"a": secret}).encode())
    assert leaks("an address", f"https://host/?key={urllib.parse.quote(secret, safe='')}".encode())
    assert not leaks("nothing", b"canary")
