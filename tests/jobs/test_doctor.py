"""perceive doctor: what it says of a machine, a job and a store that are well, and of those that aren't."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs

from jobs.doctor import devices, local_cluster, machine, media, store, subject, versions
from jobs.doctor.apart import run_apart
from jobs.doctor.check import Check, Probe
from jobs.spec import Job, load_job
from tests.clips import write_clip
from tests.e2e.command import PERCEIVE, perceive, write_job
from tests.faults.proxy import Fault
from tests.faults.store import Store, s3
from tests.jobs import looks
from tests.test_house import ROOT

STORE = [
    "store: reach",
    "store: write and read", "store: read spans", "store: create if absent", "store: replace, append, list, delete",
    "store: room",
]  # fmt: skip


def by_name(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks}


def states(checks: Any) -> list[str]:
    return [check.state for check in checks]


def under(limits: str, *arguments: str | Path, **environment: str) -> tuple[int, dict[str, Check]]:
    """`perceive doctor --json` under a shell's limits and another environment."""
    command = shlex.join([PERCEIVE, "doctor", "--json", *map(str, arguments)])
    done = subprocess.run(
        ["bash", "-c", f"{limits}; exec {command}"],
        env=os.environ | environment, capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == done.returncode
    return done.returncode, by_name(Check(**one) for one in answer["checks"])


# How it looks


def test_a_look_that_hangs_is_cut_off_with_all_that_it_started(tmp_path: Path) -> None:
    probe = Probe("hanging", looks.hangs, "Do so.", 3, (str(tmp_path / "started"),))
    first, last = run_apart(probe, str(tmp_path))
    assert first.found == "This was seen before."
    assert (last.name, last.state) == ("hanging", "failed")
    assert (last.found, last.advice) == ("It took more than 3 s, and was stopped.", "Do so.")
    sleeper = int((tmp_path / "started").read_text())
    assert not psutil.pid_exists(sleeper) or psutil.Process(sleeper).status() == psutil.STATUS_ZOMBIE


def test_a_look_goes_when_the_doctor_is_killed(tmp_path: Path) -> None:
    code = (
        "from jobs.doctor.apart import run_apart\nfrom jobs.doctor.check import Probe\nfrom tests.jobs import looks\n"
        f"list(run_apart(Probe('hanging', looks.hangs, '', 60, ({str(tmp_path / 'started')!r},)), None))"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    while not (tmp_path / "started").exists():
        time.sleep(0.1)
    [look] = psutil.Process(killed.pid).children()
    others = look.children()
    killed.kill()
    killed.wait()
    assert psutil.wait_procs([look], timeout=10)[1] == []
    for one in others:
        one.kill()


def test_a_look_that_dies_says_of_what() -> None:
    first, last = run_apart(Probe("crashing", looks.crashes, "Do so."), None)
    assert first.state == "ok"
    assert (last.name, last.state, last.advice) == ("crashing", "failed", "Do so.")
    assert last.found.startswith('Its process was killed by signal 6, at File "')
    assert last.found.endswith(" in crashes.")
    [only] = run_apart(Probe("exiting", looks.exits, "Do so."), None)
    assert only.found == "Its process exited with code 3; it said: what a library has to say."


def test_a_look_that_raises_says_the_first_line() -> None:
    first, last = run_apart(Probe("raising", looks.raises, "Do so."), None)
    assert first.state == "ok"
    assert last == Check("raising", "failed", "LookupError: no such thing.", "Do so.", last.seconds)


# Versions


def installed(folder: Path, *needed: str, python: str = ">=3.11") -> str:
    """A package whose metadata says what it needs."""
    about = folder / "strange_batch-9.9.dist-info"
    about.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1", "Name: strange-batch", "Version: 9.9", f"Requires-Python: {python}",
        "Provides-Extra: near", "Provides-Extra: far", "Provides-Extra: old", "Provides-Extra: dev",
        *(f"Requires-Dist: {one}" for one in needed),
    ]  # fmt: skip
    (about / "METADATA").write_text("\n".join(lines) + "\n")
    return "strange-batch"


def test_versions_of_this_package() -> None:
    found = by_name(versions.packages())
    assert {check.state for check in found.values()} == {"ok"}
    assert found["ray"].found == "2.60.0 (==2.60.0 is supported)."
    assert " with FFmpeg " in found["av"].found
    assert "packaging" in found["other packages"].found or "click" in found["other packages"].found
    assert found["extras"].found.startswith("There: s3, gcs, azure, http, ")


def test_versions_that_are_not_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ("ray==1.0", "torch>=2", "no-such-package>=3", "click>=99", 's3fs>=1; extra == "near"')
    more = ('no-such-driver>=1; extra == "far"', 'fsspec>=9999; extra == "old"', 'nothing; extra == "dev"')
    package = installed(tmp_path, *needed, *more, python=">=3.99")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = by_name(versions.packages(package))
    assert found[package] == Check(package, "ok", "9.9.")
    assert found["python"].state == "failed"
    assert found["python"].found.endswith(", but >=3.99 is supported.")
    assert found["python"].advice == "Make the environment anew with a Python that is >=3.99."
    assert (found["ray"].state, found["torch"].state) == ("failed", "ok")
    assert found["ray"].found == "ray 2.60.0 is installed, but ==1.0 is supported."
    assert found["ray"].advice == "Install what is supported: pip install 'ray==1.0'."
    others = found["other packages"]
    assert others.state == "failed"
    assert "no-such-package is not installed, but >=3 is needed." in others.found
    assert others.advice == "Install what is supported: pip install 'no-such-package>=3' 'click>=99'."
    extras = found["extras"]
    assert extras.state == "failed"
    assert extras.found.startswith(
        "There: near; not there: far (pip install 'perceiver-batch[far]'). fsspec "
    )
    assert extras.advice == "Install what is supported: pip install 'fsspec>=9999'."


def test_an_extra_that_is_not_there_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = installed(tmp_path, 'no-such-driver>=1; extra == "far"')
    monkeypatch.syspath_prepend(str(tmp_path))
    extras = by_name(versions.packages(package))["extras"]
    assert (extras.state, extras.advice) == ("ok", "")
    assert extras.found == "There: near, old; not there: far (pip install 'perceiver-batch[far]')."


def test_a_package_that_is_not_installed_is_told() -> None:
    [check] = versions.packages("no-such-package")
    assert check.state == "warning"
    assert check.found == "It is not installed as a package, so what versions it supports isn't known."


# The machine


def test_a_machine_that_is_short_of_things(tmp_path: Path) -> None:
    memory = machine._memory(least=1 << 60)
    assert memory.state == "warning"
    assert memory.advice.startswith("End what else uses memory: a run needs 1048576.0 TiB at least")
    shared = machine._shared(Path("/sys"))  # a file system without room
    assert shared.state == "warning"
    assert shared.found.startswith("/sys has 0 bytes free; Ray's object store wants ")
    assert shared.advice.startswith("Give it more: docker run --shm-size")
    assert machine._shared(tmp_path / "none").state == "skipped"
    room = machine._writable("folder", tmp_path, "Make room.", least=1 << 60)
    assert (room.state, room.advice) == ("warning", "Make room.")
    assert list(tmp_path.iterdir()) == []


def test_a_whole_command_where_much_is_wrong(tmp_path: Path) -> None:
    """Nothing that is wrong keeps it from looking at the rest."""
    code, found = under(
        "ulimit -n 1000",
        TMPDIR="/sys", PERCEIVER_CACHE="/sys/cache", RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR="1",
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1",
    )  # fmt: skip
    assert code == 5
    assert {name for name, check in found.items() if check.state == "failed"} == {
        "pickles", "temporary folder", "cache folder", "ray",
    }  # fmt: skip
    assert found["open files"].state == "warning"
    assert found["open files"].found == "A process may open 1000 files."
    assert found["open files"].advice.startswith("The hard limit is 1000: have the administrator raise it")
    assert found["pickles"].advice == "Unset it: unset RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR."
    assert found["temporary folder"].found.startswith("/sys can't be written to: ")
    assert (
        found["temporary folder"].advice
        == "Set TMPDIR to a folder on a disk with room that can be written to."
    )
    assert found["cache folder"].advice.startswith("Set PERCEIVER_CACHE to a folder that can be written to")
    assert found["ray"].found.startswith(
        "Ray was imported before RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 was set"
    )
    assert found["decoder process"].state == found["h264 and aac"].state == "ok"
    assert found["cpu"].state in ("ok", "skipped")


# Media and devices


def test_codecs() -> None:
    assert states(media.codecs()) == ["ok", "ok", "ok"]


def test_codecs_that_are_not_there() -> None:
    check = media.decoders({"hevc": ("hevc",), "strange": ("no-such", "nor-this")})
    assert check.state == "warning"
    assert check.found.endswith(" has no decoder for strange.")
    assert check.advice.startswith(
        "Items in these end in quarantine. Install the builds of the package index"
    )
    check = media.images((".png", ".strange"))
    assert (check.state, check.found) == ("warning", "Pillow can't write and read .strange.")


def test_media_that_can_not_be_written(tmp_path: Path) -> None:
    found = by_name(run_apart(Probe("codecs", looks.codecs_without_room, "Do so."), str(tmp_path)))
    check = found["h264 and aac"]
    assert check.state == "failed"
    assert check.found.startswith("H.264 and AAC could not be encoded and decoded again: ")
    assert "File too large" in check.found
    assert check.advice.startswith("Install the builds of the package index anew: pip install")
    assert (found["other codecs"].state, found["images"].state) == ("ok", "ok")


def test_the_decoders_process() -> None:
    [check] = media.decoder_process()
    assert check.state == "ok"
    assert check.found.startswith("It started, decoded 2 windows, and may have ")
    [check] = run_apart(
        Probe("decoder process", media.decoder_process, "Do so.", given=("tests.none",)), None
    )
    assert (check.state, check.advice) == ("failed", "Do so.")
    assert check.found.startswith("The decoder's process did not start (GoneError): expected it to be ready")


def test_devices() -> None:
    found = by_name(devices.device(lambda: False))
    if "cpu" in found:  # else there is a GPU
        assert (found["gpu"].state, found["cpu"].state) == ("skipped", "ok")
        gpu = by_name(devices.device(lambda: True))["gpu"]
        assert gpu.state == "warning"
        assert gpu.found.startswith("There is an NVIDIA driver, but this PyTorch (")
        assert gpu.advice.startswith("Install a build of PyTorch for CUDA")
    wrong = devices._cpu({"float32": 0.0})
    assert (wrong.state, wrong.found) == ("failed", "It multiplies matrices wrongly in float32.")


# A job


@pytest.fixture(scope="module")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4", frames=20, audio_codec="aac")
    (folder / "worse.mp4").write_text("this is no video")
    return folder


def job(folder: Path, media_at: Path, model: Path | str) -> Job:
    return load_job(str(write_job(folder, media_at, Path(model))))


@pytest.mark.e2e
def test_a_whole_command_on_a_job(media_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    file = write_job(tmp_path, media_folder, checkpoint, output={"uri": str(tmp_path / "deep/er/out")})
    before = {path.name for path in Path("/tmp").glob("pd-*")}
    done = perceive("doctor", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "\nok       checkpoint: PerceiverForMultimodalAutoencoding for multimodal-autoencoding, "
        in done.stdout
    )
    assert f"\nok       input: It lists {media_folder}/clip.mp4, {media_folder}/worse.mp4.\n" in done.stdout
    assert f"\nok       first item: {media_folder}/clip.mp4 has 2 windows; 1 was decoded.\n" in done.stdout
    assert "\nok       ray: It started in " in done.stdout
    for name in STORE:
        assert f"\nok       {name}: " in done.stdout
    assert re.fullmatch(r"\d+ checks in [\d.]+ s: .*\d+ ok.*", done.stdout.splitlines()[-1])
    assert done.stderr.splitlines()[0] == "looking at: versions"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml"]
    assert {path.name for path in Path("/tmp").glob("pd-*")} <= before


def test_a_job_that_is_none_is_refused() -> None:
    done = perceive("doctor", "no-such.yaml", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"].startswith("No such job file: no-such.yaml.")
    both = perceive("doctor", "job.yaml", "--store", "out")
    assert both.returncode == 2
    assert "Give FILE, or --store, --address and --target: with a job its output is looked at" in both.stderr
    secret = perceive("doctor", "--store", "s3://me:password@bucket/out")
    assert secret.returncode == 2
    assert "holds a password" in secret.stderr
    assert "me:password" not in secret.stderr


def test_a_job_whose_input_is_bad(media_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    bad = job(tmp_path / "bad", media_folder / "worse.mp4", checkpoint)
    listed, first = subject.inputs(bad)
    assert listed.state == "ok"
    assert first.state == "warning"
    assert first.found.startswith(f"{media_folder}/worse.mp4 can't be decoded: probe: ")
    assert first.advice.startswith("A run would put it in quarantine")
    none = Probe(
        "input", subject.inputs, "Look.", given=(job(tmp_path / "none", tmp_path / "gone", checkpoint),)
    )
    [check] = run_apart(none, None)
    assert check.state == "failed"
    assert check.found.startswith("input: ")
    assert f"{tmp_path}/gone" in check.found


def test_a_job_whose_checkpoint_is_bad(media_folder: Path, tmp_path: Path) -> None:
    bad = job(tmp_path, media_folder, tmp_path / "weights")
    [check] = run_apart(Probe("checkpoint", subject.checkpoint, "Look.", given=(bad,)), None)
    assert check.state == "failed"
    assert check.found.startswith("model.checkpoint: A checkpoint must be a folder")


# A store


def test_a_folder_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out/runs/tmp").mkdir(parents=True)
    (tmp_path / "out/data").mkdir()
    (tmp_path / "out/data/part.arrow").write_bytes(b"data")
    before = {str(path): path.stat().st_ino for path in tmp_path.rglob("*")}
    checks = list(store.store(str(tmp_path / "out")))
    assert [check.name for check in checks] == STORE
    assert states(checks) == ["ok"] * 6
    assert {str(path): path.stat().st_ino for path in tmp_path.rglob("*")} == before
    assert states(store.store(str(tmp_path / "new/out"))) == ["ok"] * 6
    assert not (tmp_path / "new").exists()


def test_a_folder_that_can_not_be_written_to() -> None:
    code, found = under("true", "--store", "/sys/out")
    assert code == 5
    first, *rest = found.values()
    assert (first.name, first.state) == ("store: reach", "failed")
    assert first.found.startswith("/sys/out can't be written to: ")
    assert "check its permissions and whether it is mounted" in first.found
    assert states(rest) == ["skipped"] * 5
    assert {check.found for check in rest} == {"The store can't be used."}


def test_a_disk_without_room(tmp_path: Path) -> None:
    """As a full disk ends a write: in the middle, with an error."""
    code, found = under("ulimit -f 1000", "--store", tmp_path / "out")
    assert code == 5
    first = found["store: write and read"]
    assert first.found.startswith(f"{tmp_path}/out can't be written to: File too large. Make room")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def bucket() -> Iterator[Store]:
    with s3() as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield made
        s3fs.S3FileSystem.clear_instance_cache()


def look(bucket: Store, *faults: Fault, uri: str = "s3://bucket/out") -> list[Check]:
    bucket.proxy.faults[:] = faults
    try:
        return list(store.store(uri))
    finally:
        bucket.proxy.faults.clear()


def test_a_bucket_that_is_well(bucket: Store) -> None:
    checks = look(bucket)
    assert states(checks) == ["ok", "ok", "ok", "ok", "ok", "skipped"]
    assert checks[-1].found == "A bucket does not say how much room it has."
    assert s3fs.S3FileSystem(use_listings_cache=False).ls("bucket") == []


def test_a_bucket_that_ignores_conditions(bucket: Store) -> None:
    checks = by_name(look(bucket, Fault("unconditional", "PUT|POST", 1_000_000)))
    assert checks["store: write and read"].state == "ok"
    bad = checks["store: create if absent"]
    assert bad.state == "failed"
    assert bad.found.startswith("s3://bucket/out overwrites files that exist where it was asked not to")
    assert "or a store that honours If-None-Match." in bad.found
    assert checks["store: replace, append, list, delete"].state == "ok"
    assert s3fs.S3FileSystem(use_listings_cache=False).ls("bucket") == []


def test_a_bucket_that_gives_back_other_bytes(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody's checksums: they would find it before the doctor does."""
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    s3fs.S3FileSystem.clear_instance_cache()
    checks = look(bucket, Fault("corrupt", r"GET /bucket/out/runs/tmp/doctor\S*/data", 1_000_000))
    assert states(checks[:3]) == ["ok", "failed", "failed"]
    assert checks[1].found == (
        "s3://bucket/out gives back other bytes than were written: 4,194,304 of 4,194,304, the first that differs at 0."
    )
    assert "AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in checks[1].advice
    assert checks[2].found.startswith(
        "65,536 bytes from 2,097,169 of a file in s3://bucket/out are not those"
    )


def test_a_bucket_that_is_not_there(bucket: Store) -> None:
    checks = look(bucket, uri="s3://nobucket/out")
    assert states(checks) == ["failed", *["skipped"] * 5]
    assert "its bucket isn't there" in checks[0].found


def test_a_driver_that_is_not_installed() -> None:
    first, *rest = store.store("dropbox://bucket/out")
    assert first.state == "failed"
    assert first.found.startswith("dropbox://bucket/out needs a driver that is not installed: ")
    assert states(rest) == ["skipped"] * 5


def test_a_store_that_does_not_answer(bucket: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    checks = look(bucket, Fault("slow down", "", 1_000_000))
    assert states(checks) == ["failed", *["skipped"] * 5]
    assert "It was tried for 1 s: once its store answers" in checks[0].found
    assert checks[0].advice.startswith("Check the address, what the credentials in the environment allow")


def test_ray_that_starts_and_stops() -> None:
    [check] = run_apart(Probe("ray", local_cluster.ray_here, "Do so."), None)
    assert check.state == "ok", check
    assert check.found.endswith(" s.")
