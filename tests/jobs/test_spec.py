"""The job file."""

import itertools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.spec import Job, SpecError, load_job, overridden, parse_job
from pipelines.secrets import check_no_secrets
from pipelines.tasks import TASKS
from pipelines.tasks.multimodal_autoencoding import MultimodalAutoencoding

GOOD: dict[str, Any] = {
    "name": "a-job",
    "task": "multimodal-autoencoding",
    "model": {"checkpoint": "weights"},
    "input": {"uri": ["clips", "s3://bucket/more"]},
    "output": {"uri": "/out"},
    "options": {"top_k": 2},
}


def write(folder: Path, document: Any) -> str:
    path = folder / "job.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return str(path)


def test_file_object_and_overrides_are_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    job = load_job(write(tmp_path, GOOD), ["compute.batch=8", "output.uri=here", "options.audio=mix"])
    assert job.model.checkpoint == str(tmp_path / "weights")  # in the file: relative to the file
    assert job.input.uri == [str(tmp_path / "clips"), "s3://bucket/more"]
    assert job.output.uri == str(elsewhere / "here")  # in an override: relative to where one stands
    assert job.options == MultimodalAutoencoding(top_k=2, audio="mix")
    assert job.compute.batch == 8
    assert Job.model_validate(job.model_dump(mode="json")) == job  # spec.yaml reads back


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        ("demo", "demo"),
        ("https://host/model?token=${env:A_TOKEN}", "https://host/model?token=${env:A_TOKEN}"),
        ("./demo", "{folder}/demo"),
        ("weights", "{folder}/weights"),
        ("../weights", "{folder}/../weights"),
        ("there/already", "{folder}/there/already"),  # a folder comes before a hub id
        ("owner/name", "owner/name"),
        ("owner/name@main", "owner/name@main"),
        ("s3://bucket/model", "s3://bucket/model"),
        ("a/b/c", "{folder}/a/b/c"),
        ("/a/b", "/a/b"),
    ],
)
@pytest.mark.parametrize("override", [False, True])
def test_where_a_checkpoint_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: str, expected: str, override: bool
) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "cwd").mkdir()
    here = tmp_path / ("cwd" if override else "jobs")
    (here / "there/already").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    document = GOOD | {"model": {"checkpoint": "elsewhere" if override else checkpoint}}
    job = load_job(write(tmp_path / "jobs", document), [f"model.checkpoint={checkpoint}"] if override else [])
    assert job.model.checkpoint == (
        expected if "://" in expected else os.path.normpath(expected.format(folder=here))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optoins": {}}, r"optoins: no such option\. Did you mean options\? There are: name, task,"),
        ({"compute": {"bach": 1}}, r"compute\.bach: no such option\. Did you mean batch\?"),
        (
            {"options": {"topk": 1}},
            r"options\.topk: no such option\. Did you mean top_k\? There are: stream, audio,",
        ),
        ({"options": {"top_k": 0}}, r"options: top_k must be at least 1, got 0\."),
        ({"options": {"top_k": "many"}}, r"options\.top_k: expected a whole number; got 'many'\."),
        ({"options": {"audio": "left"}}, r"options\.audio: expected 'first' or 'mix'; got 'left'\."),
        (
            {"options": {"video": "avi"}},
            r"options\.video: expected 'tensors', 'mp4' or 'both'; got 'avi'\.",
        ),
        ({"task": "cook"}, r"task: No such task: cook\. The tasks are: multimodal-autoencoding"),
        (
            {"model": {"checkpoint": "a", "reference": "jax"}},
            r"model\.reference: expected 'hf' or 'deepmind'; got 'jax'\.",
        ),
        (
            {"model": {}},
            r"model\.checkpoint: missing\. Expected a folder with config\.json and weights, .*or demo\.",
        ),
        ({"compute": {"batch": 0}}, r"compute\.batch: expected at least 1; got 0\."),
        (
            {"compute": {"gpus_per_worker": 1.5}},
            r"compute\.gpus_per_worker: must be a part of a GPU, less than 1, or a whole number of them; got 1\.5\.",
        ),
        (
            {"compute": {"accelerator": "an H100"}},
            r"compute\.accelerator: must be a type as Ray's label has it, .*'an H100'",
        ),
        (
            {"name": "No Spaces"},
            r"name: expected lower-case letters, digits and hyphens, .*; got 'No Spaces'\.",
        ),
        ({"on_error": "ignore"}, r"on_error: expected 'quarantine' or 'fail'; got 'ignore'\."),
    ],
)
def test_everything_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_job(GOOD | change)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(GOOD | {"name": "?", "compute": {"batch": 0}, "extra": 1})
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- a", "must be a mapping with name, task, model, input and output"),
        ("", "is empty: expected a job"),
        ('name: "\\ud800"', r"name: expected a text; got half of a character \(a surrogate\)\."),
        ('"\\ud800": 1', r"'\\ud800': expected a key that is a text"),
        ("name: !!binary aGk=", r"name: expected a text or a number; got a bytes\."),
        ("name: !!set {a}", r"name: expected a text or a number; got a set\."),
        ("name: !!python/object:os.system x", "could not determine a constructor for the tag"),
        ("when: 2024-02-31", r"is not YAML: day .*Write it in quotes if it is a text"),
    ],
)
def test_what_is_no_job_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_job(write(tmp_path, text))


def test_missing_file_and_bad_override(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"No such job file: .*nowhere\.yaml"):
        load_job(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(SpecError, match=r"-o batch: expected key=value"):
        load_job(write(tmp_path, GOOD), ["batch"])
    with pytest.raises(SpecError, match=r"compute\.nothing: no such option"):
        load_job(write(tmp_path, GOOD), ["compute.nothing=1"])


@pytest.mark.parametrize(
    ("uri", "found", "instead"),
    [
        (
            "s3://AKIA:hunter2@bucket/x",
            "a password (user:password@)",
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        (
            "https://h/x?X-Amz-Signature=hunter2",
            "a key (X-Amz-Signature=...)",
            "hf://: HF_TOKEN",
        ),
        ("az://c/x?sv=1&sig=hunter2", "a key (sig=...)", "AZURE_STORAGE_SAS_TOKEN"),
        ("gs://b/x?access_token=hunter2", "a key (access_token=...)", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
@pytest.mark.parametrize("place", ["input.uri", "input.roots", "output.uri"])
def test_secrets_are_refused_and_not_repeated(uri: str, found: str, instead: str, place: str) -> None:
    section, name = place.split(".")
    document = {
        "name": "x", "task": "multimodal-autoencoding", "model": {"checkpoint": "demo"},
        "input": {"uri": "in"}, "output": {"uri": "out"},
    }  # fmt: skip
    document[section] = {"uri": "x", name: [uri] if name == "roots" else uri}
    with pytest.raises(SpecError) as caught:
        parse_job(document)
    message = str(caught.value)
    assert f"{place}: a {uri.partition(':')[0]}:// address here holds {found}" in message
    assert instead in message
    assert "hunter2" not in message


def test_what_is_no_secret_passes() -> None:
    for uri in (
        "s3://bucket/key/token",
        "https://h/x?w=200&name=y",
        "abfs://container@account.example/x",
        "/a@b:c",
    ):
        check_no_secrets(uri)


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_a_job_that_is_stored_and_read_back_is_the_same_to_the_last_digit(task: str) -> None:
    """A run's id is a hash of it: 43200 is not 43200.0."""
    document = {
        "name": "same",
        "task": task,
        "model": {"checkpoint": "demo"},
        "input": {"uri": "in"},
        "output": {"uri": "out"},
    }
    job = parse_job(document)
    again = parse_job(yaml.safe_load(yaml.safe_dump(job.model_dump(mode="json"))))
    assert repr(again) == repr(job)


def test_demo_is_the_name_of_a_checkpoint_alone(tmp_path: Path) -> None:
    document = GOOD | {
        "model": {"checkpoint": "demo"},
        "input": {"uri": "demo"},
        "output": {"uri": "demo-out"},
    }
    job = load_job(write(tmp_path, document))
    assert (job.model.checkpoint, job.input.uri) == ("demo", str(tmp_path / "demo"))


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"uri": "s3://" + "AKIA" + "IOSFODNN7EXAMPLE/x"}},
        {"output": {"uri": "https://h/x?sig=AKIA" + "IOSFODNN7EXAMPLE"}},
        {"model": {"checkpoint": "demo", "AKIA" + "IOSFODNN7EXAMPLE": 3}},
    ],
)
def test_an_object_made_in_python_holds_no_keys_either(change: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"looks like an AWS access key id|holds a key|Extra inputs"
    ) as caught:
        Job(**GOOD | change)
    if "checkpoint" not in change.get("model", {}):
        assert "AKIA" not in str(caught.value)


def test_the_sections_that_have_defaults_may_be_empty(tmp_path: Path) -> None:
    empty = GOOD | {"options": None, "limits": None, "compute": None}
    assert load_job(write(tmp_path, empty)) == load_job(write(tmp_path, GOOD | {"options": {}}))


def test_anchors_and_merges_are_yaml_as_ever(tmp_path: Path) -> None:
    text = yaml.safe_dump(GOOD) + "compute: &some {batch: 2}\nlimits: {<<: {seconds: 5}, seconds: 9}\n"
    job = load_job(write(tmp_path, text))
    assert (job.compute.batch, job.limits.seconds) == (2, 9)
    bomb = "a: &a [x, x]\n" + "".join(
        f"{n}: &{n} [*{o}, *{o}, *{o}, *{o}]\n" for o, n in itertools.pairwise("abcdefghijklm")
    )
    for more in (bomb, "loop: &loop [*loop]\n", "input: {uri: &loop [*loop]}\n"):
        with pytest.raises(SpecError, match=r"job\.yaml has more than 32 levels or 1000000 values"):
            load_job(write(tmp_path, more))


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=8)
    | st.binary(max_size=3),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.booleans() | st.none(), below, max_size=3)
    ),
    max_leaves=6,
)
_PLACES = st.sampled_from(
    [
        "name",
        "task",
        "model",
        "input",
        "output",
        "options",
        "limits",
        "compute",
        "on_error",
        "max_error_rate",
        "x",
    ]
)


@given(st.dictionaries(_PLACES, _ANY, max_size=4), st.sampled_from([task.name for task in TASKS]))
@settings(max_examples=300, deadline=None)
def test_whatever_a_document_holds_it_is_a_job_or_told(change: dict[str, Any], task: str) -> None:
    with suppress(SpecError):
        parse_job(GOOD | {"task": task, "options": {}} | change)


@given(st.binary(max_size=60) | st.text("{}[]:-#&*!|>'\"%@` \n\tab01~?,<=\\", max_size=40).map(str.encode))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "job.yaml").write_bytes(data)
    with pytest.raises(SpecError, match=r"job\.yaml"):
        load_job(str(tmp_path / "job.yaml"))


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_an_override_is_it_is_taken_or_told(text: str) -> None:
    for override in (text, f"name={text}", f"{text}=1", f"options.{text}"):
        with suppress(SpecError):
            parse_job(overridden(GOOD, [override]))
