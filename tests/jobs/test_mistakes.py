"""What a new user gets wrong in a job file, through the real command: exit code 2, and the whole sentence."""

import shutil
from pathlib import Path

import pytest
import yaml

from pipelines.tasks import TASKS
from tests.jobs.mistaken import JOB, in_job, said

TASK_NAMES = ", ".join(task.name for task in TASKS)


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


def test_the_file_itself(here: Path) -> None:
    (here / "jobs").mkdir()
    shutil.copy(here / "clips/ball.mp4", here / "ball.yaml")
    for file, expected in {
        "job.yml": "No such job file: job.yml. Check the path, or write one with perceive init TASK job.yml.",
        "jobs": "jobs is a folder: expected a job file. Name the file in it, such as jobs/job.yaml.",
        "ball.yaml": "ball.yaml is not UTF-8 text: expected a job file in YAML. Check the path.",
    }.items():
        assert said("run", file) == expected
