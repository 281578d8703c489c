"""Credentials of the environment are in nothing that a run leaves, says or answers."""

import io
import os
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest

from tests.faults.processes import Attempt, Bench, Pace, Stop
from tests.faults.store import Store
from tests.faults.work import Work, beside, keys

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: What a user's environment may hold, each with a value that stands nowhere else.
CANARIES = {
    name: f"canary+{name.lower().replace('_', '/')}=7f3a9"
    for name in (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_CONNECTION_STRING", "GOOGLE_API_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN",
    )
}  # fmt: skip
#: Where they may be: AWS's signatures name the key's id, which is no secret, to the store that is asked.
FORMS = [
    form.encode()
    for name, value in CANARIES.items()
    for form in (value, urllib.parse.quote(value, safe=""), value.replace("/", "\\/"))
]


def leaks(where: str, data: bytes) -> list[str]:
    """Which canaries are in some bytes; of a Parquet file, whose pages are compressed, also in its rows."""
    if data[:4] == b"PAR1":
        file = pq.ParquetFile(io.BytesIO(data))
        data += repr((file.read().to_pylist(), file.metadata.metadata)).encode()
    return [f"{form.decode()} in {where}" for form in FORMS if form in data]


def below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files of a folder, but for sockets and what tells the processes of these tests what to do."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()


def in_bucket(store: Store) -> Iterator[tuple[str, bytes]]:
    files = beside(store)
    for key in keys(store, ""):
        with files.open_input_stream(key) as file:
            yield key, file.read()


def ask(attempt: Attempt) -> bytes:
    """All that Ray answers."""
    [raylet] = attempt.named("raylet")
    [address] = [word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--gcs-address=")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.asking", address],
        env={**os.environ, **CANARIES},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def empty(store: Store) -> None:
    """Delete the bucket, and all that is in it."""
    client: Any = boto3.client(
        "s3",
        endpoint_url=store.upstream,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    for key in keys(store, ""):
        client.delete_object(Bucket="bucket", Key=key.removeprefix("bucket/"))
    client.delete_bucket(Bucket="bucket")
    client.close()


def test_no_credential_is_left_anywhere(bench: Bench, texts: Work, bucket: Store) -> None:
    bucket.put({f"in/{path.name}": path.read_bytes() for path in (texts.folder / "in").iterdir()})
    source = {"input": {"uri": "s3://bucket/in"}}
    job = texts.job("s3://bucket/secrets", **source)

    killed = bench.start("run", job, stops=[Stop("worker", "draft written", 3)], **CANARIES)
    killed.wait_until_stopped()
    killed.kill()  # and drafts and Ray's logs stay

    done = bench.start("run", job, paces=[Pace("predict begun", 0.5)], **CANARIES)
    done.wait_for(lambda: done.passed("part committed") >= 5)
    told = ask(done)
    assert b"Counts" in told  # actors,
    assert b"write_part" in told  # tasks,
    assert b"RemoteFunction" in told  # and what they run
    done.wait_for(lambda: done.passed("part committed") >= 9)
    [session] = bench.temporary.glob("perceive-*/session_2*/logs/worker-*.out")[:1] or [None]
    shutil.copytree(bench.temporary, bench.temporary.with_suffix(".kept"), symlinks=True, ignore=_sockets)
    assert done.end() == 3, done.said
    objects = dict(in_bucket(bucket))
    assert any("quarantine" in key for key in objects)
