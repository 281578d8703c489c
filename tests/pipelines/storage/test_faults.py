"""What an output's storage promises, though its store fails: one creates, no read is wrong, errors are clear."""

import errno
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines import transient
from pipelines.storage import OutputError, check_conditions, open_storage
from pipelines.storage.objects import ObjectStorage, _drafts
from tests.faults.proxy import Fault, Proxy
from tests.pipelines.storage.backends import CONTENT, LAST, LISTING, UPLOAD, failing, put, scheme_of

# gcsfs hands aiohttp whole files.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")


def s3_only(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("remote", ["s3"], indirect=True)(test)


def in_parts(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("remote", [*LAST], indirect=True)(test)


def test_stores_that_ignore_conditions_are_refused(remote: ObjectStorage, proxy: Proxy) -> None:
    proxy.faults[:] = [Fault("unconditional", "PUT|POST", 1000)]
    with pytest.raises(OutputError, match=rf"^{remote.uri} overwrites files that exist .*If-None-Match\.$"):
        check_conditions(remote)


def test_stores_that_corrupt_are_refused(
    remote: ObjectStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transient, "PATIENCE_S", 0.3)
    proxy.faults[:] = [Fault("corrupt", CONTENT[scheme_of(remote)], 1000)]
    said = "can't be read: FlexibleChecksumError" if scheme_of(remote) == "s3" else "does not give back what"
    with pytest.raises(OutputError, match=said):
        check_conditions(remote)


@pytest.mark.parametrize("kind", ["slow down", "reset", "reply lost"])
def test_one_creates_though_requests_fail(remote: ObjectStorage, proxy: Proxy, kind: Any) -> None:
    proxy.faults[:] = [Fault(kind, UPLOAD[scheme_of(remote)], 2)]
    assert put(remote, "data/x", b"mine")
    assert proxy.faults[0].done == 2 if kind != "reply lost" else proxy.faults[0].done
    proxy.faults[:] = [Fault(kind, UPLOAD[scheme_of(remote)], 1)]
    assert not put(remote, "data/x", b"others")
    assert remote.read("data/x") == b"mine"


@in_parts
@pytest.mark.parametrize("kind", ["slow down", "reset", "reply lost"])
def test_one_creates_in_parts_though_requests_fail(remote: ObjectStorage, proxy: Proxy, kind: Any) -> None:
    if scheme_of(remote) == "az":
        remote._fs.service_client._config.max_single_put_size = 1 << 20
    mine, others = os.urandom(6 << 20), os.urandom(6 << 20)
    proxy.faults[:] = [Fault(kind, LAST[scheme_of(remote)], 1)]
    assert put(remote, "data/x", mine)
    assert proxy.faults[0].done == 1
    proxy.faults[:] = [Fault(kind, LAST[scheme_of(remote)], 1)]
    assert not put(remote, "data/x", others)
    assert put(remote, "data/x", mine[:-1] + b"\0") is (mine[-1:] == b"\0")
    assert remote.read("data/x") == mine
    with ThreadPoolExecutor(2) as pool:  # the second one's parts may be gone with the first one's completion
        won = list(pool.map(lambda data: put(remote, "data/y", data), (mine, others)))
    assert remote.read("data/y") == (mine, others)[won.index(True)]
    assert sorted(won) == [False, True]


@s3_only
def test_large_files_are_created_once(remote: ObjectStorage, proxy: Proxy) -> None:
    """S3 takes them in parts, and the condition with the completion."""
    data = bytearray(os.urandom(1 << 20) * 101)
    completion = r"POST \S*uploadId="
    proxy.faults[:] = [Fault("conflict", completion, 1), Fault("reply lost", completion, 1)]
    assert put(remote, "data/large", data)
    assert [fault.done for fault in proxy.faults] == [1, 1]
    data[50 << 20] ^= 1
    assert not put(remote, "data/large", data)
    assert remote.stat("data/large").size == len(data)


@s3_only
def test_refusals_that_name_no_condition_are_understood(remote: ObjectStorage, proxy: Proxy) -> None:
    proxy.faults[:] = [Fault("unnamed", "PUT", 1000)]
    assert put(remote, "data/x", b"mine")
    assert not put(remote, "data/x", b"others")
    assert put(remote, "data/x", b"mine")
    assert not put(remote, "data/x", b"mine, and more")


@pytest.mark.parametrize("kind", ["slow down", "reset", "cut", "short"])
def test_reads_survive(remote: ObjectStorage, proxy: Proxy, kind: Any) -> None:
    data = os.urandom(5 << 20)
    assert put(remote, "data/x", data)
    remote.append("log", b"one\n")
    remote.append("log", b"two\n")
    reading, listing = CONTENT[scheme_of(remote)], LISTING[scheme_of(remote)]
    faults = [Fault(kind, reading, 2)]
    if kind != "short":  # what is no answer at all no store sends
        faults.append(Fault(kind, listing, 1))
    proxy.faults[:] = faults
    with remote.open("data/x") as file:
        assert file.read(10) == data[:10]
        proxy.faults[:] = [Fault(kind, reading, 1)]
        assert file.read() == data[10:]
    proxy.faults[:] = [Fault(kind, reading, 1)]
    assert remote.read("data/x") == data
    proxy.faults[:] = faults
    assert remote.appended("log") == b"one\ntwo\n"
    assert all(fault.done == fault.times for fault in faults)


def test_outages_are_survived(remote: ObjectStorage, proxy: Proxy) -> None:
    put(remote, "data/0", b"0")
    proxy.outage(1)
    with ThreadPoolExecutor(5) as pool:
        asked = [
            pool.submit(put, remote, "data/1", b"1"),
            pool.submit(remote.read, "data/0"),
            pool.submit(remote.write, "runs/state", b"s"),
            pool.submit(remote.append, "log", b"l\n"),
            pool.submit(lambda: next(remote.names("data"))),
        ]
    assert [one.result() for one in asked] == [True, b"0", None, None, "data/0"]
    assert remote.appended("log") == b"l\n"


def test_when_patience_ends_it_is_said(
    remote: ObjectStorage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(remote, "data/0", b"0")
    monkeypatch.setattr(transient, "PATIENCE_S", 0.3)
    proxy.outage(60)
    ends = r".*\. It was tried for 0 s: once its store answers, run the job again to resume\.$"
    with pytest.raises(OutputError, match=rf"^{remote.uri}/data/1 can't be created: \w+: {ends}"):
        put(remote, "data/1", b"1")
    with pytest.raises(OutputError, match=rf"^{remote.uri}/data/0 can't be read: \w+: {ends}"):
        remote.read("data/0")
    with pytest.raises(OutputError, match=rf"^{remote.uri}/data can't be listed: \w+: {ends}"):
        list(remote.names("data"))


def test_what_cannot_be_an_output_is_said(remote: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ObjectStorage(f"{scheme_of(remote)}://nobucket/out")
    said = (
        rf"^{gone.uri}\S* can't be \w+: its bucket isn't there \(.*\)\. Create it, or correct output\.uri\.$"
    )
    for ask in (gone.prepare, lambda: put(gone, "data/x", b"x"), lambda: gone.write("x", b"x")):
        with pytest.raises(OutputError, match=said):
            ask()
    denied = PermissionError("Access Denied")
    monkeypatch.setattr(remote._fs, "info", lambda *_: (_ for _ in ()).throw(denied))
    with pytest.raises(
        OutputError, match=r"read: PermissionError: Access Denied\. Check the address and what the cre"
    ):
        remote.stat("x")


@pytest.mark.parametrize("uri", ["memory://out", "file:///tmp/out"])
def test_other_drivers_are_refused(uri: str) -> None:
    with pytest.raises(
        OutputError, match=rf"^{uri} can't be an output: .* S3, GCS and Azure\. Name .*or az://\.$"
    ):
        open_storage(uri).prepare()


def test_drafts_that_have_no_room_are_said(remote: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "touch", failing(errno.ENOSPC))
    with pytest.raises(
        OutputError, match=r"drafts-\d+, where .* go to .*: No space left .*TMPDIR, .* resume\.$"
    ):
        put(remote, "data/x", b"x")


def test_drafts_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"perceive-drafts-{os.getuid()}"
    folder.mkdir()
    space = os.stat("/proc/self/ns/pid").st_ino
    with subprocess.Popen(["true"]) as dead:
        (folder / f"{space}-{dead.pid}-dead").touch()
    # In another container that number is somebody else's, who may live.
    kept = {f"{space}-{os.getppid()}-alive", f"{space + 1}-{dead.pid}-elsewhere"}
    for name in kept:
        (folder / name).touch()
    storage = ObjectStorage("s3://bucket/out")
    with storage.draft() as draft:
        assert draft.parent == folder
        assert {path.name for path in folder.iterdir()} == {draft.name, *kept}
        assert re.fullmatch(rf"{space}-{os.getpid()}-\w{{32}}", draft.name)
    assert not draft.exists()


def test_drafts_go_to_no_one_elses_folder(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"perceive-drafts-{os.getuid()}").symlink_to(tmp_path / "theirs")
    with pytest.raises(
        OutputError, match=r"can't be written to: it is another user's\. Set TMPDIR to a folder"
    ):
        _drafts(str(tmp_path), os.getpid())
