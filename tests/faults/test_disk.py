"""Disks that are full or can't be written to: the run says so, nothing half-written is there, and it is resumed."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.faults.processes import Attempt, Bench, Pace
from tests.faults.store import Store
from tests.faults.work import Work

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


class Disk:
    """A file system of a size, in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mount(self, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)], check=True)

    def remounted(self, options: str) -> bool:
        """Whether it could be: not to read only, while a file is open."""
        done = subprocess.run(
            ["mount", "-o", f"remount,{options}", str(self.path)], check=False, capture_output=True
        )
        return done.returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Needs root: who has none is told so by a failure, for a skipped test would look like one that passed."""
    path = tmp_path / "a-folder-that-is-a-disk-of-its-own"
    path.mkdir()
    made = Disk(path)
    made.mount("size=3m")
    yield made
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def assert_whole(out: Path) -> int:
    """Every file that is there under its name is whole; how many parts there are."""
    parts = sorted((out / "data").iterdir())
    for part in parts:
        with pa.memory_map(str(part)) as file:
            table = pa.ipc.open_file(file).read_all()
            assert table.num_rows == 1 or b'"rows": 0' in table.schema.metadata[b"perceive"]
    return len(parts)


def test_a_full_disk_is_told_and_resumed_from(bench: Bench, clips: Work, disk: Disk) -> None:
    out = disk.path / "out"
    job = clips.job(str(out))
    full = bench.run("run", job)
    assert full.process.returncode == 5, full.said
    assert f"{out} can't be written to: No space left on device. Make room if the disk is full" in full.said
    assert f"To resume: perceive run {job}" in full.said
    assert "Traceback" not in full.said
    assert 3 <= assert_whole(out) < clips.shards
    again = bench.run("run", job)  # and nobody has made room
    assert again.process.returncode == 5, again.said
    assert f"{out} can't be written to: No space left on device" in again.said
    assert disk.remounted("size=64m")
    last = bench.run("run", job)
    assert last.process.returncode == 3, last.said
    clips.check(str(out))
    clips.check_redone(str(out), bench)
    assert assert_whole(out) == clips.shards


def test_an_output_that_becomes_read_only_is_told_and_resumed_from(
    bench: Bench, clips: Work, disk: Disk
) -> None:
    assert disk.remounted("size=64m")
    out = disk.path / "out"
    job = clips.job(str(out))
    attempt = bench.start("run", job, paces=[Pace("predict begun", 0.2)])
    attempt.wait_for(lambda: attempt.passed("part committed") >= 3)
    attempt.wait_for(lambda: disk.remounted("ro"))
    before = names(out)
    assert attempt.end() == 5, attempt.said
    told(attempt, out)
    assert names(out) == before
    assert_whole(out)
    again = bench.run("run", job)
    assert again.process.returncode == 5, again.said
    told(again, out)
    assert disk.remounted("rw")
    last = bench.run("run", job)
    assert last.process.returncode == 3, last.said
    clips.check(str(out))
    clips.check_redone(str(out), bench)


def told(attempt: Attempt, out: Path) -> None:
    """What is wrong, and what to do."""
    said = attempt.said
    assert f"{out} can't be written to: Read-only file system." in said, said
    assert "check its permissions and whether it is mounted, then run the job again to resume" in said
    assert "Traceback" not in said


def names(out: Path) -> list[str]:
    """The names of all files, but for drafts."""
    found = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[:2] != ("runs", "tmp"))


def test_a_bucket_needs_room_for_drafts_and_says_where(
    bench: Bench, clips: Work, disk: Disk, bucket: Store
) -> None:
    """Ray doesn't take a temporary folder with such a long name; drafts do."""
    (disk.path / "ballast").write_bytes(bytes((3 << 20) - (64 << 10)))
    job = clips.job("s3://bucket/drafts")
    full = bench.run("run", job, TMPDIR=str(disk.path))
    assert full.process.returncode == 5, full.said
    assert f"{disk.path}/perceive-drafts-" in full.said, full.said
    assert "No space left on device. Make room there, or set TMPDIR, then run the job again" in full.said
    if "Ray's logs of this run are in " in full.said:
        shutil.rmtree(full.said.partition("Ray's logs of this run are in ")[2].split()[0].rstrip("."))
    (disk.path / "ballast").unlink()
    last = bench.run("run", job)
    assert last.process.returncode == 3, last.said
    clips.check("s3://bucket/drafts", bucket)
    clips.check_redone("s3://bucket/drafts", bench)
