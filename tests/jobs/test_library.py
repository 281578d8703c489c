"""What `from jobs import ...` gives, typed as it says, and quiet."""

import importlib
import pkgutil
from pathlib import Path

import pytest

import jobs
from jobs.errors import PerceiverError
from jobs.store import RunStore
from tests.jobs.inprocess import without_ray
from tests.pipelines.staging import save_head


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> jobs.Job:
    monkeypatch.setenv("PERCEIVER_STATE", str(tmp_path / "state"))
    without_ray(monkeypatch)
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / "in" / f"{n}.txt").write_bytes(b"\xff\xfe" if n == 1 else b"text %d" % n)
    model = save_head(tmp_path / "model", "PerceiverForSequenceClassification")
    (tmp_path / "job.yaml").write_text(
        "{name: mine, task: text-classification, model: {checkpoint: model}, input: {uri: in}, output: {uri: out}}"
    )
    assert model.exists()
    return jobs.Job.load(
        str(tmp_path / "job.yaml"), ["compute.batch=1", "options.top_k=2", "options.overlap=4"]
    )


def test_no_module_of_the_room_hides_what_it_gives() -> None:
    for module in pkgutil.iter_modules(jobs.__path__):
        if module.name not in ("__main__", "cli"):
            importlib.import_module(f"jobs.{module.name}")
    for name in jobs.__all__:
        assert callable(getattr(jobs, name)), name
    with pytest.raises(AttributeError, match="module jobs has no attribute walk"):
        jobs.walk  # noqa: B018


def test_plan_run_and_status(job: jobs.Job, capsys: pytest.CaptureFixture[str]) -> None:
    planned = jobs.plan(job, probe=False)
    assert (planned.items, planned.windows) == (3, 3)
    result = jobs.run(job)
    assert (result.run_id, result.rows, result.quarantined, result.exit_code) == (planned.run_id, 2, 1, 3)
    for name in (result.run_id, result.run_id[:5], "mine", job.output.uri):
        run, seen = jobs.status(name)
        assert (run.run_id, run.state, run.exit_code, run.attempt) == (result.run_id, "done", 3, 1)
        assert (seen.attempt.rows, seen.attempt.items, seen.attempt.quarantined) == (2, 3, 1)
    assert jobs.stop(result.run_id).state == "done"  # nothing is at it
    assert capsys.readouterr() == ("", "")


def test_one_except_meets_all_errors(job: jobs.Job) -> None:
    with pytest.raises(PerceiverError, match="No such job file"):
        jobs.Job.load("nowhere.yaml")
    with pytest.raises(PerceiverError, match=r"There is no run zz here\."):
        jobs.status("zz")
    with pytest.raises(PerceiverError, match=r"There is no target moon\. There are: local, ray, kuberay\."):
        jobs.submit(job, "moon")
    with pytest.raises(PerceiverError, match=r"The target ray needs the address of the head's dashboard"):
        jobs.submit(job, "ray")


def test_a_store_that_cannot_be_told_ends_no_run(
    job: jobs.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    assert jobs.run(job).rows == 2


def test_an_attempt_that_fails_is_known_to_the_store(job: jobs.Job, tmp_path: Path) -> None:
    failing = job.model_copy(update={"on_error": "fail"})
    with pytest.raises(PerceiverError, match="on_error is fail"):
        jobs.run(failing)
    [run] = RunStore(tmp_path / "state").list()
    assert (run.state, run.exit_code, run.name) == ("failed", 4, "mine")
    assert "on_error is fail" in run.message
