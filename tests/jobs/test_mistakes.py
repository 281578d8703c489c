"""What a new user gets wrong, through the real command: exit code 2, the whole sentence, and nothing written."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from cluster.local import cores
from jobs.cli import main
from jobs.lease import held
from pipelines.storage import open_storage
from pipelines.tasks import TASKS

TASK_NAMES = ", ".join(task.name for task in TASKS)
JOB: dict[str, Any] = {
    "name": "a-job",
    "task": "video-classification",
    "model": {"checkpoint": "demo"},
    "input": {"uri": "clips"},
    "output": {"uri": "out"},
}
SUFFIXES = (
    ".parquet, .arrow, .feather, .csv, .jsonl, .ndjson, .tar, .mp4, .m4v, .mov, .mkv, .webm, .tar.gz, .tgz, .tar.bz2, "
    ".tar.xz, .tar.zst"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a good job, a clip by its name, and what else mistakes need."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    shutil.copy(Path(__file__).parents[2] / "examples/media/bouncing-ball.mp4", tmp_path / "clips/ball.mp4")
    for name in ("empty", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures/cat.jpg").write_bytes(b"a cat")
    (tmp_path / "a-file").write_text("text")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)  # perceive run takes it over


def said(*arguments: str) -> str:
    """What the command says when it refuses; with --json it says the same."""
    done = CliRunner().invoke(main, arguments)
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("files listed", "waiting"))]
    again = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert again == {"error": "\n".join(lines), "exit_code": 2}
    assert not list(Path.cwd().glob("out/data"))
    return "\n".join(lines)


def in_job(sentence: str) -> str:
    return f"job.yaml is not a valid job:\n  {sentence}"


#: A file's text, and what is said of it.
FILES = {
    "a misspelt key": (
        yaml.safe_dump(JOB | {"optoins": {}}),
        in_job(
            "optoins: no such option. Did you mean options? There are: name, task, model, input, output, options, "
            "limits, compute, on_error, max_error_rate, schedule, kubernetes."
        ),
    ),
    "a misspelt option": (
        yaml.safe_dump(JOB | {"options": {"topk": 3}}),
        in_job(
            "options.topk: no such option. Did you mean top_k? There are: stream, audio, top_k, threshold, csv."
        ),
    ),
    "a misspelt key of an option's own": (
        yaml.safe_dump(JOB | {"task": "decode", "options": {"points": {"gird": 4}}}),
        in_job(
            "options.points.gird: no such option. Did you mean grid? There are: grid, frames, region, random, seed."
        ),
    ),
    "a misspelt limit": (
        yaml.safe_dump(JOB | {"limits": {"second": 60}}),
        in_job(
            "limits.second: no such option. Did you mean seconds? There are: bytes, pixels, frames, duration, streams, "
            "members, text, seconds, memory."
        ),
    ),
    "an unknown task": (
        yaml.safe_dump(JOB | {"task": "video-clasification"}),
        in_job(
            f"task: No such task: video-clasification. Did you mean video-classification? The tasks are: {TASK_NAMES}."
        ),
    ),
    "a wrong choice": (
        yaml.safe_dump(JOB | {"options": {"audio": "mixed"}}),
        in_job("options.audio: expected 'first' or 'mix'; got 'mixed'. Did you mean mix?"),
    ),
    "a word for a number": (
        yaml.safe_dump(JOB | {"options": {"top_k": "three"}}),
        in_job("options.top_k: expected a whole number; got 'three'."),
    ),
    "a number in quotes": (
        yaml.safe_dump(JOB | {"compute": {"batch": "8"}}),
        in_job(
            "compute.batch: expected a whole number; got '8'. Leave the quotes out; a power of ten has a point and a "
            "sign, as 1.0e-3."
        ),
    ),
    "a section that isn't there": (
        yaml.safe_dump({name: value for name, value in JOB.items() if name != "output"}),
        in_job("output: missing. Expected where the table goes."),
    ),
    "a schedule without times": (
        yaml.safe_dump(JOB | {"schedule": {"timezone": "Europe/Berlin"}}),
        in_job(
            "schedule.cron: missing. Expected minute, hour, day of the month, month and day of the week, such as 30 2 "
            "* * * (every day at 02:30)."
        ),
    ),
    "a nickname for times": (
        yaml.safe_dump(JOB | {"schedule": {"cron": "@daily"}}),
        in_job(
            "schedule.cron: expected five fields (minute, hour, day of the month, month, day of the week); got 1 in "
            '\'@daily\'. Write five fields, such as "30 2 * * *" (every day at 02:30) or "0 */6 * * MON-FRI".'
        ),
    ),
    "an hour that no day has": (
        yaml.safe_dump(JOB | {"schedule": {"cron": "30 24 * * *"}}),
        in_job(
            "schedule.cron: the hour can't be '24', in '30 24 * * *'. Write five fields, such as \"30 2 * * *\" (every "
            'day at 02:30) or "0 */6 * * MON-FRI".'
        ),
    ),
    "a city for a time zone": (
        yaml.safe_dump(JOB | {"schedule": {"cron": "30 2 * * *", "timezone": "Berlin"}}),
        in_job(
            "schedule.timezone: there is no time zone 'Berlin'. Did you mean Europe/Berlin? Expected a name such as "
            "UTC, Europe/Berlin or America/New_York."
        ),
    ),
    "a span of time without a unit": (
        yaml.safe_dump(JOB | {"schedule": {"cron": "30 2 * * *", "start_deadline": "90", "jitter": 5}}),
        in_job(
            "schedule.start_deadline: expected a span of time such as 90s, 30m, 2h or 1d; got '90'.\n  "
            "schedule.jitter: expected a text; got 5. Write it in quotes if it is a text."
        ),
    ),
    "no span of time at all": (
        yaml.safe_dump(JOB | {"schedule": {"cron": "30 2 * * *", "start_deadline": "0m"}}),
        in_job("schedule.start_deadline: expected a span of time longer than nothing; got '0m'."),
    ),
    "a wrong overlap": (
        yaml.safe_dump(JOB | {"schedule": {"cron": "30 2 * * *", "overlap": "forbidden"}}),
        in_job(
            "schedule.overlap: expected 'forbid', 'queue', 'replace' or 'allow'; got 'forbidden'. Did you mean forbid?"
        ),
    ),
    "a webhook's address": (
        yaml.safe_dump(
            JOB | {"schedule": {"cron": "30 2 * * *", "webhook": "https://hooks.example.com/T0/hush"}}
        ),
        in_job(
            "schedule.webhook: expected the name of an environment variable, such as PERCEIVER_WEBHOOK: an address may "
            "hold a secret, and a job file is stored and shown in many places. Put the address into that variable, "
            "where perceive tick is called."
        ),
    ),
    "a word for a section": (
        yaml.safe_dump(JOB | {"input": "clips"}),
        in_job(
            "input: expected a mapping with uri, format, columns, keep, roots, select, stale, deleted, limit; got "
            "'clips'."
        ),
    ),
    "a word for a list": (
        yaml.safe_dump(JOB | {"input": {"uri": "clips", "keep": "caption"}}),
        in_job("input.keep: expected a list; got 'caption'. Write it as a list: [caption]."),
    ),
    "negative numbers": (
        yaml.safe_dump(JOB | {"compute": {"batch": -1}, "limits": {"seconds": -5}}),
        in_job(
            "limits: seconds must be more than 0; got -5.0.\n  compute.batch: expected at least 1; got -1."
        ),
    ),
    "no for a name": (
        yaml.safe_dump(JOB).replace("name: a-job", "name: no"),
        in_job(
            "name: expected a text; got False. YAML reads yes, no, on and off as true and false: write it in quotes if "
            "it is a text."
        ),
    ),
    "on for a key": (
        yaml.safe_dump(JOB) + "on: error\n",
        in_job(
            "True: expected a key that is a text; got true or false. YAML reads yes, no, on and off as true and false: "
            "write it in quotes."
        ),
    ),
    "a date for a name": (
        yaml.safe_dump(JOB).replace("name: a-job", "name: 2024-01-31"),
        in_job("name: expected a text or a number; got a date. Write it in quotes if it is a text."),
    ),
    "a tab": (
        "name: a-job\nmodel:\n\tcheckpoint: demo\n",
        "job.yaml, line 3 is not YAML as it must be: it is indented by a tab. Indent it by spaces.",
    ),
    "a key twice": (
        yaml.safe_dump(JOB) + "input:\n  uri: other\n",
        "job.yaml, line 9 is not YAML as it must be: the key input is there already, in line 1. Remove one of the two.",
    ),
    "a path of Windows in double quotes": (
        'name: a-job\ninput:\n  uri: "C:\\data"\n',
        "job.yaml, line 3 is not YAML as it must be: in double quotes a backslash begins an escape, so a path of "
        "Windows can't be in them. Write it in single quotes, or with slashes.",
    ),
    "two jobs in a file": (
        yaml.safe_dump(JOB) + "---\n" + yaml.safe_dump(JOB),
        "job.yaml, line 9 is not YAML as it must be: a second document begins here (---). Write each job into a file "
        "of its own.",
    ),
    "a colon in a text": (
        "name: a-job\ntask: masked: lm\n",
        "job.yaml, line 2 is not YAML as it must be: a key can't be here. Check its indentation, and put texts with a "
        "colon and a space in quotes.",
    ),
    "a list at the top": (
        "- name: a-job\n",
        "job.yaml must be a mapping with name, task, model, input and output at its top level; got a list. perceive "
        "init TASK writes one to begin with.",
    ),
    "an empty file": (
        "# nothing yet\n",
        "job.yaml is empty: expected a job. perceive init TASK writes one to begin with.",
    ),
    "a password in an address": (
        yaml.safe_dump(JOB | {"input": {"uri": "s3://me:hunter2@bucket/clips"}}),
        in_job(
            "input.uri: a s3:// address here holds a password (user:password@), and a job file is stored and shown in "
            "many places. Take it out, and give credentials by the environment: AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        ),
    ),
    "a key in a checkpoint's address": (
        yaml.safe_dump(JOB | {"model": {"checkpoint": "https://host/model?token=hunter2"}}),
        in_job(
            "model.checkpoint: a https:// address here holds a key (token=...), and a job file is stored and shown in "
            "many places. Take it out, and refer to an environment variable that holds it: ${env:NAME}."
        ),
    ),
    "an access key as an option": (
        yaml.safe_dump(JOB | {"input": {"uri": "s3://b/x", "access_key_id": "AKIA" + "IOSFODNN7EXAMPLE"}}),
        in_job(
            "input.access_key_id: holds what looks like an AWS access key id, and a job is stored and shown in many "
            "places. Take it out, revoke it if it was shared, and give credentials by the environment."
        ),
    ),
    "a reference where rows would show it": (
        yaml.safe_dump(JOB | {"input": {"uri": "https://host/clips/?token=${env:A_TOKEN}"}}),
        in_job(
            "input.uri: ${env:...} is for model.checkpoint alone: what this address leads to is named by it in the "
            "output, for all who may read that. Give credentials by the environment (AWS_PROFILE, "
            "GOOGLE_APPLICATION_CREDENTIALS, ...), or copy the files to where these lead."
        ),
    ),
    "a reference to what is no secret": (
        yaml.safe_dump(JOB | {"name": "${env:USER}"}),
        in_job(
            "name: ${env:...} is for secrets in the web address of model.checkpoint, and only there. Write the value "
            "itself, or give it when you run the job: -o KEY=VALUE."
        ),
    ),
}


@pytest.mark.parametrize("mistake", FILES)
def test_in_the_file(mistake: str, here: Path) -> None:
    text, expected = FILES[mistake]
    (here / "job.yaml").write_text(text)
    assert said("run", "job.yaml") == expected


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


def test_the_file_itself(here: Path) -> None:
    (here / "jobs").mkdir()
    shutil.copy(here / "clips/ball.mp4", here / "ball.yaml")
    for file, expected in {
        "job.yml": "No such job file: job.yml. Check the path, or write one with perceive init TASK job.yml.",
        "jobs": "jobs is a folder: expected a job file. Name the file in it, such as jobs/job.yaml.",
        "ball.yaml": "ball.yaml is not UTF-8 text: expected a job file in YAML. Check the path.",
    }.items():
        assert said("run", file) == expected


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
