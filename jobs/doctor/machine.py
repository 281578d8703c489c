"""The machine: cores, memory, what Ray shares memory by, open files, folders; and Ray's switches for pickles."""

import resource
import shutil
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from cluster.local import cores
from jobs.doctor.check import Check, in_bytes, looked
from jobs.resolve import pickle_switches
from perceiver_core.sources import cache_folder

_SHARED = Path("/dev/shm")
_LEAST_MEMORY = 2 << 30  # Ray alone takes half of it
_LEAST_ROOM = 2 << 30
_LEAST_FILES = 4096  # Ray's own advice for a node is 65536; its daemons and drivers each have their own
_UNLIMITED = 1 << 60
#: Where control groups say what a container may have.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def resources() -> Iterator[Check]:
    """Cores, memory, shared memory, open files, and Ray's switches for pickles."""
    advice = "The system does not say: is /proc mounted?"
    yield looked("cores and memory", _memory, advice)
    yield looked("shared memory", _shared, advice)
    yield looked("open files", _files, advice)
    yield looked("pickles", _pickles, advice)


def folders(temporary: str | None) -> Iterator[Check]:
    """The folder of temporary files, if there is one, and that of checkpoints that were fetched."""
    yield looked("temporary folder", partial(_temporary, temporary), "Set TMPDIR to another folder.")
    advice = "Set PERCEIVER_CACHE to a folder that can be written to, or make room."
    yield looked("cache folder", lambda: _writable("cache folder", cache_folder(), advice, 0), advice)


def _memory(least: int = _LEAST_MEMORY) -> Check:
    limit = min([_number(path) or _UNLIMITED for path in _LIMITS])
    memory = psutil.virtual_memory()
    total = min(memory.total, limit)
    free = min(memory.available, total)
    found = f"{cores()} cores, {in_bytes(total)} of memory, of which {in_bytes(free)} are free."
    if free < least:
        advice = f"End what else uses memory: a run needs {in_bytes(least)} at least, and then its model's."
        return Check("cores and memory", "warning", found, advice)
    return Check("cores and memory", "ok", found)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _shared(folder: Path = _SHARED) -> Check:
    """Ray's object store wants 30% of the memory, and more than 10 GB only where the folder has it; else it is slow."""
    if not folder.is_dir():
        return Check("shared memory", "skipped", f"There is no {folder} on this system.")
    room = shutil.disk_usage(folder).free
    wanted = min(0.3 * psutil.virtual_memory().available, max(1e10, 0.95 * room))
    found = f"{folder} has {in_bytes(room)} free; Ray's object store wants {in_bytes(wanted)}."
    if room < wanted:
        advice = (
            "Give it more: docker run --shm-size, an emptyDir with medium: Memory in Kubernetes, or mount -o "
            "remount,size=. Until then Ray uses files on the disk, which is slower."
        )
        return Check("shared memory", "warning", found, advice)
    return Check("shared memory", "ok", found)


def _files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    may = "any number of" if soft == unlimited else str(soft)
    found = f"A process may open {may} files."
    if soft != unlimited and soft < _LEAST_FILES:
        advice = f"Raise it before perceive starts: ulimit -n {_LEAST_FILES}."
        if hard != unlimited and hard < _LEAST_FILES:
            advice = f"The hard limit is {hard}: have the administrator raise it to {_LEAST_FILES} at least."
        return Check("open files", "warning", found, advice)
    return Check("open files", "ok", found)


def _pickles() -> Check:
    on = pickle_switches()
    if on:
        found = (
            f"The environment has {' and '.join(on)} on: Ray would run whatever code a table brings along."
        )
        return Check("pickles", "failed", found, f"Unset it: unset {' '.join(on)}.")
    return Check("pickles", "ok", "Ray's switches for pickles in tables are off.")


def _temporary(folder: str | None) -> Check:
    advice = "Set TMPDIR to a folder on a disk with room that can be written to."
    if folder is None:
        return Check("temporary folder", "failed", "None of the usual ones can be written to.", advice)
    return _writable("temporary folder", Path(folder), advice, _LEAST_ROOM)


def _writable(name: str, folder: Path, advice: str, least: int) -> Check:
    """Whether a folder, or where it would be made, can be written to, and has room."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    probe = there / f".perceive-doctor-{uuid.uuid4().hex}"
    try:
        if not there.is_dir():
            raise NotADirectoryError(0, "it is no folder")
        probe.write_bytes(bytes(4096))
        if probe.read_bytes() != bytes(4096):
            return Check(name, "failed", f"{there} does not give back what is written to it.", advice)
    except OSError as error:
        return Check(name, "failed", f"{there} can't be written to: {error.strerror}.", advice)
    finally:
        if there.is_dir():
            probe.unlink(missing_ok=True)
    room = shutil.disk_usage(there).free
    new = "" if there == folder else f"{folder} is not there yet; "
    found = f"{new}{there} can be written to, and has {in_bytes(room)} free."
    return Check(name, "warning", found, advice) if room < least else Check(name, "ok", found)
