"""What a new user gets wrong in overrides, on this machine and by names: exit code 2, and the whole sentence."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cluster.local import cores
from jobs.cli import main
from jobs.lease import held
from pipelines.storage import open_storage
from tests.jobs.mistaken import in_job, said

SUFFIXES = (
    ".parquet, .arrow, .feather, .csv, .jsonl, .ndjson, .tar, .mp4, .m4v, .mov, .mkv, .webm, .tar.gz, .tgz, .tar.bz2, "
    ".tar.xz, .tar.zst"
)


#: An override of a good job, and what is said of it; {here} is the job's folder.
OVERRIDES = {
    "compute.batch": "-o compute.batch: expected key=value with a dotted key, such as -o compute.batch=8.",
    "compute.bach=8": in_job(
        "compute.bach: no such option. Did you mean batch? There are: device, decode_workers, predict_workers, "
        "gpus_per_worker, accelerator, batch, chunk, shard_windows, stall_minutes."
    ),
    "compute=[": "-o compute, line 1 is not YAML as it must be: while parsing a flow node, expected the node content, "
    "but found '<stream end>'.",
    "input.uri=nowhere": (
        "input: No such file or folder: {here}/nowhere. Check input.uri, or whether it is mounted here."
    ),
    "input.uri=empty": f"input: No input in {{here}}/empty: expected files that end in {SUFFIXES}; found nothing. Name "
    "another folder, or a glob such as {here}/empty/*.",
    "input.uri=pictures": f"input: No input in {{here}}/pictures: expected files that end in {SUFFIXES}; found 1 other "
    "files (ending in .jpg). Name another folder, or a glob such as {here}/pictures/*. Images are for "
    "image-classification, latents.",
    "input.uri=clips/*.avi": (
        "input: Nothing matches {here}/clips/*.avi: expected at least one file. Check the pattern."
    ),
    "input.uri=[]": "input: input.uri is an empty list: name at least one file, folder or glob.",
    "input.uri=C:\\data\\clips": in_job(
        "input.uri: C:\\data\\clips is a path of Windows, and this is not: write it as it is here, such as "
        "/mnt/c/data/clips under WSL."
    ),
    "input.keep=[caption]": "input: input.keep is for tables and tars; this input is read as files. If it is a table, "
    "say input.format: table.",
    "task=masked-lm": "model.checkpoint: demo holds a PerceiverForMultimodalAutoencoding, but the task masked-lm runs "
    "on PerceiverForMaskedLM. Choose another checkpoint (deepmind/language-perceiver) or another task "
    "(multimodal-autoencoding, video-classification, latents, decode).",
    "model.checkpoint=gone": 'model.checkpoint: A checkpoint must be a folder, "demo", a URL or a hub id such as '
    "owner/name; got '{here}/gone', which is none of these here. Check the path.",
    "model.checkpoint=empty": "model.checkpoint: {here}/empty must have a config.json; got nothing. Give the folder "
    "that save_pretrained wrote.",
    "options.top_k=99": "options: top_k is 99, but the checkpoint has 8 labels: set options.top_k to at most 8.",
    "output.uri=clips/out": in_job(
        "output.uri: {here}/clips/out lies in input.uri, {here}/clips: what is written there would be read as input by "
        "the next run. Choose a folder outside of it, or name the input by a glob."
    ),
    "output.uri=a-file/out": "output.uri: {here}/a-file/out can't be a folder, for {here}/a-file is a file. Choose "
    "another output.uri: one that isn't there is made.",
    "output.uri=nfs://host/out": "output.uri: nfs://host/out can't be opened: Protocol not known: nfs. Schemes are "
    "such as s3, gs, az, https, hf.",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_in_an_override(override: str, here: Path) -> None:
    assert said("run", "job.yaml", "-o", override) == OVERRIDES[override].replace("{here}", str(here))


def test_a_key_in_an_override_is_not_repeated(here: Path) -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLE"
    for override in (f"input.uri=s3://{key}/x", f"{key}=3", key, f"input={{{key}: 3}}", f"input=[{key}"):
        assert key not in said("run", "job.yaml", "-o", override)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one here")
def test_a_gpu_where_there_is_none(here: Path) -> None:
    assert said("run", "job.yaml", "-o", "compute.device=cuda") == (
        "compute.device asks for cuda, but PyTorch sees no GPU here. Install a CUDA build of PyTorch, check "
        "nvidia-smi, or set compute.device to cpu."
    )


def test_too_many_workers(here: Path) -> None:
    text = said("run", "job.yaml", "-o", "compute.decode_workers=999")
    assert text.startswith("compute.decode_workers asks for 999 workers of 0.5 CPUs, but of ")
    assert f"of {cores()} CPUs " in text
    assert "are left beside feeding, predicting and writing: set it to at most " in text


@pytest.mark.parametrize(
    ("override", "module", "expected"),
    [
        (
            "input.uri=s3://bucket/clips", "s3fs",
            "input: s3://bucket/clips needs a driver that is not installed: Install s3fs to access S3. pip install "
            "'perceiver-batch[s3]'.",
        ),
        (
            "output.uri=s3://bucket/out", "s3fs",
            "output.uri: s3://bucket/out needs a driver that is not installed: Install s3fs to access S3. pip install "
            "'perceiver-batch[s3]'.",
        ),
        (
            "model.checkpoint=deepmind/multimodal-perceiver", "huggingface_hub",
            "model.checkpoint: 'deepmind/multimodal-perceiver' is no folder here, and as a hub id it needs "
            "huggingface_hub; got none. Check the path, or pip install 'perceiver-batch[hub]'.",
        ),
    ],
)  # fmt: skip
def test_an_extra_that_is_not_installed(
    override: str, module: str, expected: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(
        sys.modules["fsspec.registry"]._registry, "s3", raising=False
    )  # as if never used before
    monkeypatch.setitem(sys.modules, module, None)
    assert said("run", "job.yaml", "-o", override) == expected


def test_an_output_that_another_job_works_on(here: Path) -> None:
    storage = open_storage(str(here / "out"))
    storage.prepare()
    with held(storage, "0123456789ab", None):
        text = said("run", "job.yaml")
    assert text.startswith(f"{here}/out is being worked on: run 0123456789ab, by process {os.getpid()} on ")
    assert text.endswith(", runs. Wait for it or stop it, or choose another output.uri.")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_an_output_that_may_not_be_written(here: Path) -> None:
    (here / "theirs").mkdir(mode=0o500)
    assert said("run", "job.yaml", "-o", "output.uri=theirs/out") == (
        f"output.uri: {here}/theirs/out can't be written to: this user may not write to {here}/theirs, or it is "
        "mounted read-only. Choose another output.uri, or change its permissions."
    )


def test_an_output_on_what_is_mounted_read_only(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system says it, also to root."""
    real: Callable[..., bool] = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(here) and real(path, mode))
    assert said("run", "job.yaml").startswith(
        f"output.uri: {here}/out can't be written to: this user may not write to"
    )


def test_outputs_that_are_named_where_none_is(here: Path) -> None:
    for verb in ("errors", "retry"):
        assert said(verb, "nowhere") == (
            f"No finished run in {here}/nowhere: expected manifests/<n>.json there. Name an output's folder or URI; of "
            "a run that is not done, run its job to its end first."
        )
    assert said("gc", "nowhere") == (
        f"No run in {here}/nowhere: expected runs/leases there. Name an output's folder or URI."
    )
    assert said("tasks", "optical_flow").startswith(
        "No such task: optical_flow. Did you mean optical-flow? The tasks"
    )


def test_schedules_that_are_named_where_none_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_STATE", str(here / "state"))
    for verb in ("pause", "resume", "remove", "history", "run-now"):
        assert said("schedule", verb, "nightly") == (
            "There is no schedule nightly here. There are none. One is made of a job file with a section schedule: "
            "perceive schedule apply FILE."
        )
    assert said("schedule", "apply", "job.yaml") == (
        'The job a-job has no schedule: expected a section schedule with cron, such as schedule: {cron: "30 2 * * *", '
        "timezone: Europe/Berlin}. To run it once: perceive submit."
    )
    scheduled = ("schedule", "apply", "job.yaml", "-o", "schedule.cron=0 3 * * *")
    assert said(*scheduled, "--env", "A_TOKEN") == (
        "--env A_TOKEN: what is called so is a secret, and a target shows its submissions' variables to all who may "
        "look. Give it to the target's own processes."
    )
    assert said(*scheduled, "--target", "ray") == (
        "The target ray needs the address of the head's dashboard, such as http://head:8265; got ''. Give --address, "
        "or set RAY_API_SERVER_ADDRESS."
    )
    assert CliRunner().invoke(main, [*scheduled]).exit_code == 0
    assert CliRunner().invoke(main, ["schedule", "remove", "a-job"]).exit_code == 0
    assert said("schedule", "pause", "a-job") == (
        "The schedule a-job was removed: its history is there, but it fires no more. Apply its job file again: "
        "perceive schedule apply FILE."
    )
    assert said("schedule", "history", "nightly").startswith(
        "There is no schedule nightly here. There are: a-job."
    )
