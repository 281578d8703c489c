"""perceive init writes jobs that say all there is, and that are valid as they stand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from jobs.cli import main
from jobs.schema import FILE, job_schema
from jobs.spec import Job, load_job
from pipelines.tasks import TASKS
from tests.e2e.command import perceive

ROOT = Path(__file__).parents[2]
EVERY = [task.name for task in TASKS]


def init(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)])


@pytest.mark.parametrize("task", EVERY)
def test_every_task_has_one_that_loads(task: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    done = init(task, file)
    assert done.exit_code == 0, done.output
    assert f"Next: perceive run {file}" in done.output
    job = load_job(str(file))
    assert (job.task, job.name, job.output.uri) == (task, task, str(tmp_path / f"{task}-output"))
    Draft202012Validator(job_schema()).validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("task", EVERY)
def test_with_every_default_written_out_it_is_the_same_job(task: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    init(task, file)
    job = load_job(str(file))
    lines = file.read_text().splitlines()
    every = [re.sub(r"^( *)#(?! )", r"\1", line) for line in lines]
    assert every != lines
    file.write_text("\n".join(every))
    assert load_job(str(file)) == job
    assert yaml.safe_load(file.read_text()).keys() == Job.model_fields.keys()
    for line in (line for line in lines if re.match(r" *#(?! )", line)):  # each alone, too
        one = [re.sub(r"^( *)#(?! )", r"\1", other) if other is line else other for other in lines]
        file.write_text("\n".join(one))
        assert load_job(str(file)) == job, line


def test_its_words_are_the_fields_own(tmp_path: Path) -> None:
    text = init("decode", "-").output
    assert text.startswith(f"# yaml-language-server: $schema={FILE.as_uri()}\n")
    assert FILE.is_file()
    flat = " ".join(text.replace("#", " ").split())
    for field in Job.model_fields.values():
        assert field.description
        assert field.description in flat
    assert "of the multimodal model, which pixels: all, {grid: s}, {frames: [...]}" in flat
    assert "that one item's decoding may take" in flat
    assert "windows per shard, the unit of commit and redo (int | null)" in flat


def test_the_places_that_are_given_are_written_as_the_file_says_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "own/weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    given = ("--input", "clips", "--output", "s3://bucket/out", "--checkpoint", "own/weights")
    done = init("latents", "jobs/job.yaml", *given, "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert told.pop("text") == Path("jobs/job.yaml").read_text()
    assert told == {
        "file": "jobs/job.yaml", "task": "latents", "checkpoint": "../own/weights", "input": "../clips",
        "output": "s3://bucket/out",
    }  # fmt: skip
    job = load_job("jobs/job.yaml")
    assert job.input.uri == str(tmp_path / "clips")
    assert job.model.checkpoint == str(tmp_path / "own/weights")
    assert "checkpoint: owner/name@main" in init("latents", "-", "--checkpoint", "owner/name@main").output
    assert "uri: texts\n" in init("latents", "-", "--checkpoint", "deepmind/language-perceiver").output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("latents", "there.yaml"),
            "there.yaml exists already, and init overwrites nothing. Name another file, or - to print the job.",
        ),
        (
            ("latents", "no/such/folder.yaml"),
            "no/such/folder.yaml can't be written: No such file or directory. Name a file in a folder that is there.",
        ),
        (("latent",), "No such task: latent. Did you mean latents? The tasks are: multimodal-autoencoding, "),
        (
            ("latents", "new.yaml", "--input", "s3://u:pw@b/x"),
            "input.uri: a s3:// address here holds a password",
        ),
    ],
)
def test_what_it_does_not_write(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").write_text("mine")
    done = init(*arguments)
    assert done.exit_code == 2
    assert expected in done.stderr
    assert done.stdout == ""
    assert Path("there.yaml").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert json.loads(init(*arguments, "--json").stdout)["exit_code"] == 2


@pytest.mark.sources
@pytest.mark.timeout(600)
def test_the_demos_jobs_run_as_they_stand(tmp_path: Path) -> None:
    for task in ("multimodal-autoencoding", "video-classification", "latents", "decode"):
        file = tmp_path / f"{task}.yaml"
        assert init(task, file).exit_code == 0
        done = perceive("run", file, "--json", "-o", "compute.predict_workers=1")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (result["rows"] > 0, result["quarantined"]) == (True, 0)
