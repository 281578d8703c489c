"""The lease: one run at a time works on an output. It spares work; what keeps rows right are the conditional creates.

runs/leases/<n>.json      who took the lease, created if absent: the highest number is in force
runs/leases/<n>.beat      replaced every few seconds by whoever holds it
runs/leases/<n>.released  its holder is done
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from cluster.beside import beside
from pipelines.storage import OutputError, Storage, create_text

BEAT_S = 5.0
_SILENCE_S = 25.0  # of another host's holder, by our clock: then it is taken for dead, within 30 s in all
_FOLDER = "runs/leases"


class LeaseError(OutputError):
    """Another run works on this output."""


class LeaseLostError(OutputError):
    """Another process has taken this run over."""


@dataclass(frozen=True)
class Holder:
    """A process, so that others on its host can tell whether it lives."""

    host: str  #: its name
    space: str  #: the boot, and the process numbers' name space: two hosts may have one name
    pid: int
    started: float  #: when the process started: numbers come again

    @staticmethod
    def me() -> "Holder":
        return Holder(socket.gethostname(), _space(), os.getpid(), _started(psutil.Process()))

    def known_dead(self) -> bool:
        """Whether it is a process of this host that is no more; of other hosts nobody knows."""
        if self.space != _space():
            return False
        try:
            process = psutil.Process(self.pid)
            return _started(process) != self.started or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def lives_here(self) -> bool:
        return self.space == _space() and not self.known_dead()


@dataclass(frozen=True)
class Lease:
    """Who may work on an output."""

    number: int
    run_id: str
    holder: Holder
    began: str  #: in UTC
    token: str = ""  #: nobody else's: in a bucket, equal files count as one's own


def last(storage: Storage) -> Lease | None:
    """The lease in force, or the last one that was; None in a new output."""
    taken = [name for name in storage.names(_FOLDER) if name.endswith(".json")]
    return _read(storage, taken[-1]) if taken else None


def earlier(storage: Storage, lease: Lease) -> Iterator[Lease]:
    """The leases before one, the latest first."""
    for number in range(lease.number - 1, 0, -1):
        yield _read(storage, f"{_FOLDER}/{number:06d}.json")


def _read(storage: Storage, name: str) -> Lease:
    found: dict[str, Any] = json.loads(storage.read(name))
    return Lease(**found | {"holder": Holder(**found["holder"])})


def wait_until_free(storage: Storage, tell: Callable[[str], None] = lambda _: None) -> Lease | None:
    """The last lease, once nobody holds it; LeaseError if somebody does.

    A holder on this host is known to live or to be dead. Another host's is watched for its beat, 25 s at most.
    """
    lease = last(storage)
    how = lease and _sign_of_life(storage, lease, tell)
    if lease and how:
        raise _held(storage, lease, how)
    return lease


def holder_of(storage: Storage, run_id: str, tell: Callable[[str], None] = lambda _: None) -> Holder | None:
    """Who is at a run now, as `wait_until_free` finds it out; None if nobody is."""
    lease = last(storage)
    ours = lease is not None and lease.run_id == run_id
    return lease.holder if lease and ours and _sign_of_life(storage, lease, tell) else None


def _sign_of_life(storage: Storage, lease: Lease, tell: Callable[[str], None]) -> str | None:
    """By what it is known that a lease is held; None if it isn't."""
    released = f"{_FOLDER}/{lease.number:06d}.released"
    if storage.exists(released):
        return None
    if lease.holder.lives_here():
        return "runs"
    if lease.holder.known_dead():
        return None
    tell(f"waiting for a sign of life of {lease.holder.host}, which held this output last")
    before, deadline = _beat(storage, lease), time.monotonic() + _SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(0.5)
        if storage.exists(released):
            return None
        if _beat(storage, lease) != before:
            return "is alive"
    return None


@contextmanager
def held(storage: Storage, run_id: str, before: Lease | None) -> Iterator[Callable[[], None]]:
    """Hold the lease for a block, as the next one after `before`; yields a check that raises once it is lost."""
    lease = Lease(
        before.number + 1 if before else 1,
        run_id,
        Holder.me(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        uuid.uuid4().hex,
    )
    name = f"{_FOLDER}/{lease.number:06d}"
    if not create_text(storage, f"{name}.json", json.dumps(asdict(lease), indent=1)):
        now = last(storage)
        raise _held(storage, now, "was faster") if now else LeaseError(f"{storage.uri} has lost its leases.")
    lost: list[Lease] = []

    def beat(ended: threading.Event) -> None:
        count = 0
        while not ended.wait(BEAT_S if count else 0):
            count += 1
            with suppress(OSError):  # an outage is no loss: the work itself says when it is too long
                storage.write(f"{name}.beat", f"{lease.holder.pid} {count}\n".encode())
                now = last(storage)
                if now and now.number > lease.number:
                    lost.append(now)
                    return

    def check() -> None:
        if lost:
            raise LeaseLostError(
                f"{storage.uri} has been taken over by a process on {lost[0].holder.host} (run {lost[0].run_id}), "
                "because this one gave no sign of life for so long. What was committed stays; leave the rest to it."
            )

    try:
        with beside(beat):
            yield check
    finally:
        if not lost:
            with suppress(OSError):
                create_text(storage, f"{name}.released", "")


def claim_attempt(storage: Storage, run_id: str) -> int:
    """The number of a new attempt of a run, nobody else's."""
    number = attempts(storage, run_id) + 1
    text = json.dumps(asdict(Holder.me()) | {"token": uuid.uuid4().hex})
    while not create_text(storage, f"{_attempts(run_id)}/{number:06d}.json", text):
        number += 1
    return number


def attempts(storage: Storage, run_id: str) -> int:
    """How many attempts a run has had."""
    names = list(storage.names(_attempts(run_id)))
    return int(names[-1].rpartition("/")[2].removesuffix(".json")) if names else 0


def _attempts(run_id: str) -> str:
    return f"runs/{run_id}/attempts"


def _held(storage: Storage, lease: Lease, how: str) -> LeaseError:
    holder = lease.holder
    return LeaseError(
        f"{storage.uri} is being worked on: run {lease.run_id}, by process {holder.pid} on {holder.host}, since "
        f"{lease.began}, {how}. Wait for it or stop it, or choose another output.uri."
    )


def _beat(storage: Storage, lease: Lease) -> bytes:
    try:
        return storage.read(f"{_FOLDER}/{lease.number:06d}.beat")
    except FileNotFoundError:
        return b""


def _started(process: psutil.Process) -> float:
    """When a process started; on Linux in ticks since the boot, which no adjusted clock changes."""
    try:
        return float(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return process.create_time()


def _space() -> str:
    """This host's boot and name space of processes; where the system doesn't say, its name alone."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
