"""A store: what runs rest on, tried with files of the doctor's own below runs/tmp, which all go again."""

import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from jobs.doctor.check import Check, in_bytes, looked
from perceiver_core.errors import PerceiverError
from pipelines.storage import Storage, check_conditions, open_storage
from pipelines.storage.local import LocalStorage

_SIZE = 4 << 20
_PATIENCE_S = 15.0  # a run is more patient
_LEAST_ROOM = 2 << 30
_SKEW_S = 60.0
_CHECK = "Check the address, what the credentials in the environment allow, and the mounts of disks."
_SAME = (
    "Choose another output; of an S3-compatible store, check its version and "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required."
)


def store(uri: str) -> Iterator[Check]:
    """Reach; write, read back, compare; spans; create only if absent; replace, append, list, delete; room."""
    storage = open_storage(uri, _PATIENCE_S)
    looks: dict[str, Callable[[Storage, str], Check]] = {
        "store: write and read": _write_and_read,
        "store: read spans": _spans,
        "store: create if absent": _conditions,
        "store: replace, append, list, delete": _small_files,
        "store: room": _room,
    }
    with _leaving_nothing(storage) as folder:
        reached = looked("store: reach", partial(_reach, storage), _CHECK)
        yield reached
        for name, look in looks.items():
            if reached.state == "ok":
                yield looked(name, partial(look, storage, folder), _SAME)
            else:
                yield Check(name, "skipped", "The store can't be used.")


def _reach(storage: Storage) -> Check:
    storage.prepare()
    return Check("store: reach", "ok", f"{storage.uri} is there, or can be made.")


@contextmanager
def _leaving_nothing(storage: Storage) -> Iterator[str]:
    """A folder for probes; in the end they are deleted, and so are the folders that were not there before."""
    folder = f"runs/tmp/doctor-{uuid.uuid4().hex}"
    new = _not_there(Path(storage.uri, "runs/tmp")) if isinstance(storage, LocalStorage) else []
    try:
        yield folder
    finally:
        with suppress(PerceiverError, OSError):  # what is the matter was told
            for name in list(storage.names(folder)):
                storage.delete(name)
        if isinstance(storage, LocalStorage):
            for path in (Path(storage.uri, folder), *new):
                with suppress(OSError):  # somebody else's file is in it, or it never came to be
                    path.rmdir()


def _not_there(path: Path) -> list[Path]:
    """This folder and those above it that are not there, the innermost first."""
    return [one for one in (path, *path.parents) if not one.exists()]


def _data() -> bytes:
    return random.Random(0).randbytes(_SIZE)


def _write_and_read(storage: Storage, folder: str) -> Check:
    name = "store: write and read"
    data = _data()
    began = time.monotonic()
    with storage.draft() as draft:  # as parts of a table are written
        draft.write_bytes(data)
        storage.create(f"{folder}/data", draft)
    written = time.monotonic() - began
    back = storage.read(f"{folder}/data")
    read = time.monotonic() - began - written
    if back != data:
        at = next(
            (n for n, (a, b) in enumerate(zip(back, data, strict=False)) if a != b), min(len(back), len(data))
        )
        found = (
            f"{storage.uri} gives back other bytes than were written: {len(back):,} of {len(data):,}, the first that "
            f"differs at {at:,}."
        )
        return Check(name, "failed", found, _SAME)
    speed = f"{_SIZE / written / 2**20:.0f} MiB/s written, {_SIZE / read / 2**20:.0f} MiB/s read"
    return Check(name, "ok", f"{in_bytes(_SIZE)} came back the same ({speed}).")


def _spans(storage: Storage, folder: str) -> Check:
    name, data = "store: read spans", _data()
    with storage.open(f"{folder}/data") as file:
        for at, size in ((_SIZE // 2 + 17, 65_536), (0, 16), (_SIZE - 9, 9)):
            file.seek(at)
            got = file.read(size)
            if got != data[at : at + size]:
                found = f"{size:,} bytes from {at:,} of a file in {storage.uri} are not those that lie there."
                return Check(
                    name,
                    "failed",
                    found,
                    "Its ranged reads are broken: check its version, or choose another.",
                )
    return Check(
        name, "ok", "Bytes from the middle, the start and the end of a file are those that lie there."
    )


def _conditions(storage: Storage, folder: str) -> Check:
    check_conditions(storage)
    return Check(
        "store: create if absent", "ok", "What exists is not overwritten, and a second writer is told so."
    )


def _small_files(storage: Storage, folder: str) -> Check:
    name, late = "store: replace, append, list, delete", "Choose a store that shows at once what was written."
    lines = [b"one\n", b"two\n"]
    for line in lines:
        storage.append(f"{folder}/log", line)
        storage.write(f"{folder}/replaced", line)
    there = storage.appended(f"{folder}/log"), storage.read(f"{folder}/replaced")
    if there != (b"".join(lines), lines[-1]):
        found = f"Of two lines {storage.uri} gives back {there[0]!r} where they were appended, and {there[1]!r} where "
        return Check(name, "failed", f"{found}the second took the place of the first.", late)
    names = list(storage.names(folder))
    if f"{folder}/data" not in names or names != sorted(names):
        found = f"{storage.uri} lists {len(names)} files, without those that were written or not in order."
        return Check(name, "failed", found, late)
    skew = abs(time.time() - storage.stat(f"{folder}/data").modified)
    for one in names:
        storage.delete(one)
    if left := list(storage.names(folder)):
        found = (
            f"{len(left)} of {len(names)} files of {storage.uri} are still listed after they were deleted."
        )
        return Check(
            name, "failed", found, "Check that the credentials may delete, and that no retention forbids it."
        )
    if skew > _SKEW_S:
        found = f"The clocks of {storage.uri} and of this machine differ by {skew:,.0f} s."
        return Check(name, "warning", found, "Set them (NTP): perceive gc goes by the age of files.")
    return Check(name, "ok", f"{len(names)} files were replaced, appended to, listed in order and deleted.")


def _room(storage: Storage, folder: str) -> Check:
    name = "store: room"
    if not isinstance(storage, LocalStorage):
        return Check(name, "skipped", "A bucket does not say how much room it has.")
    room = shutil.disk_usage(storage.uri)
    inodes = os.statvfs(storage.uri)
    found = f"{in_bytes(room.free)} of {in_bytes(room.total)} are free."
    if room.free < _LEAST_ROOM:
        return Check(name, "warning", found, "Make room, or choose an output on another disk.")
    if inodes.f_files and inodes.f_favail < 10_000:
        found = f"{found} But only {inodes.f_favail:,} more files can be made."
        return Check(name, "warning", found, "Delete small files, or choose an output on another disk.")
    return Check(name, "ok", found)
