"""One run at a time works on an output; the dead are taken over."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import lease
from jobs.lease import (
    Holder,
    Lease,
    LeaseError,
    LeaseLostError,
    attempts,
    claim_attempt,
    held,
    last,
    wait_until_free,
)
from pipelines.storage import Storage, create_text, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "out"))
    storage.prepare()
    return storage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)
    monkeypatch.setattr(lease, "_SILENCE_S", 1.0)


def elsewhere(storage: Storage, number: int = 1) -> Lease:
    """A lease of a process on another host."""
    holder = Holder("far", "another boot", 7, 1.0)
    taken = Lease(number, "run9", holder, "2026-11-25T10:00:00+00:00")
    create_text(
        storage, f"runs/leases/{number:06d}.json", json.dumps({**vars(taken), "holder": vars(holder)})
    )
    return taken


_HOLD = """
import sys, time
from jobs.lease import held, wait_until_free
from pipelines.storage import open_storage
storage = open_storage(sys.argv[1])
with held(storage, "run1", wait_until_free(storage)):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(storage: Storage) -> Iterator[subprocess.Popen[str]]:
    """Another process of this host that holds the lease."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, storage.uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_new_output_is_free_and_a_released_one_too(storage: Storage) -> None:
    assert wait_until_free(storage) is None
    with held(storage, "run1", None) as check:
        check()
        found = last(storage)
        assert found
        assert (found.number, found.run_id, found.holder) == (1, "run1", Holder.me())
    before = wait_until_free(storage)
    assert before == found
    with held(storage, "run2", before):
        now = last(storage)
        assert now
        assert (now.number, now.run_id) == (2, "run2")


def test_a_live_process_of_this_host_is_refused_at_once(
    storage: Storage, other: subprocess.Popen[str]
) -> None:
    began = time.monotonic()
    with pytest.raises(
        LeaseError,
        match=rf"is being worked on: run run1, by process {other.pid} on .*, since .*, runs\. Wait for it or stop it, "
        r"or choose another output\.uri",
    ):
        wait_until_free(storage)
    assert time.monotonic() - began < 0.5


def test_a_dead_process_of_this_host_is_taken_over_at_once(
    storage: Storage, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGKILL)  # and nobody has waited for it: a zombie is as dead
    time.sleep(0.2)
    began = time.monotonic()
    before = wait_until_free(storage)
    assert before
    assert before.holder.pid == other.pid
    assert time.monotonic() - began < 0.5
    with held(storage, "run1", before) as check:
        check()


def test_a_process_number_that_came_again_is_not_the_holder(storage: Storage) -> None:
    me = Holder.me()
    assert me.lives_here()
    again = replace(me, started=me.started - 1)
    assert again.known_dead()
    assert not again.lives_here()


def test_another_hosts_holder_is_watched_for_a_sign_of_life(storage: Storage) -> None:
    taken = elsewhere(storage)
    said: list[str] = []
    began = time.monotonic()
    assert wait_until_free(storage, said.append) == taken
    assert 0.9 < time.monotonic() - began < 5
    assert said == ["waiting for a sign of life of far, which held this output last"]


def test_another_hosts_holder_that_beats_is_refused(storage: Storage) -> None:
    elsewhere(storage)
    code = (
        "import sys, time\nfrom pipelines.storage import open_storage\ns = open_storage(sys.argv[1])\n"
        "for i in range(100):\n    s.write('runs/leases/000001.beat', str(i).encode()); time.sleep(0.1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, storage.uri])
    try:
        while not storage.exists("runs/leases/000001.beat"):
            time.sleep(0.05)
        with pytest.raises(LeaseError, match=r"by process 7 on far, since .*, is alive"):
            wait_until_free(storage)
    finally:
        process.kill()
        process.wait()


def test_another_hosts_holder_that_releases_is_not_waited_for(storage: Storage) -> None:
    taken = elsewhere(storage)
    create_text(storage, "runs/leases/000001.released", "")
    assert wait_until_free(storage) == taken


def test_of_two_that_take_it_at_once_one_gets_it(storage: Storage) -> None:
    before = wait_until_free(storage)
    with (
        held(storage, "run1", before),
        pytest.raises(LeaseError, match="was faster"),
        held(storage, "run2", before),
    ):
        pass
    assert last(storage).run_id == "run1"  # type: ignore[union-attr]


def test_who_was_taken_over_is_told_and_releases_nothing(storage: Storage) -> None:
    with held(storage, "run1", None) as check:
        elsewhere(storage, 2)
        time.sleep(0.5)
        with pytest.raises(LeaseLostError, match=r"has been taken over by a process on far \(run run9\)"):
            check()
    assert not storage.exists("runs/leases/000001.released")
    assert not storage.exists("runs/leases/000002.released")


def test_attempts_are_numbered_once_each(storage: Storage) -> None:
    assert attempts(storage, "run1") == 0
    code = (
        "import sys\nfrom jobs.lease import claim_attempt\nfrom pipelines.storage import open_storage\n"
        "s = open_storage(sys.argv[1])\nprint(*[claim_attempt(s, 'run1') for _ in range(20)])"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, storage.uri], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    numbers = [int(number) for process in both for number in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 41))
    assert attempts(storage, "run1") == 40
    assert claim_attempt(storage, "run2") == 1


def test_an_outage_while_it_is_held_is_no_loss(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(self: object, name: str, data: bytes) -> None:
        raise OSError("down")

    with held(storage, "run1", None) as check:
        monkeypatch.setattr(type(storage), "write", down)
        time.sleep(0.2)
        check()
    assert os.path.exists(storage.where("runs/leases/000001.released"))
