"""Submitting as a user does, to each target: followed, attached to, stopped, resumed, listed; clients and drivers die.

What comes of it is what `perceive run` makes of the same job.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipelines import reader
from tests.cluster.head import Head
from tests.cluster.kuberay.conftest import IMAGE
from tests.cluster.kuberay.operator import Operator
from tests.cluster.kuberay.server import Server
from tests.e2e.command import PERCEIVE
from tests.pipelines.staging import save_head

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(300)]

#: Texts that take so long that something can happen to a run over them.
SLOW = 300


class User:
    """Somebody with a shell, a target, and a job."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        target: Sequence[str],
        environment: dict[str, str],
        **section: dict[str, Any],
    ) -> None:
        self.folder, self.model, self.target, self.section = folder, model, target, section
        self.environment = os.environ | environment | {"PERCEIVER_STATE": str(folder / "state")}

    def job(self, name: str, texts: int = 6, **changes: Any) -> Path:
        """A job over so many texts, one of which is none."""
        media = self.folder / f"in-{name}"
        media.mkdir()
        for n in range(texts):
            (media / f"{n:03}.txt").write_bytes(b"\xff\xfe" if n == 2 else b"text %03d" % n)
        document = {
            "name": name,
            "task": "text-classification",
            "model": {"checkpoint": str(self.model)},
            "input": {"uri": str(media)},
            "output": {"uri": str(self.folder / f"out-{name}")},
            "options": {"top_k": 2, "overlap": 4},
            "compute": {"batch": 2, "shard_windows": 1},
            **self.section,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document | changes))
        return path

    def does(self, *arguments: str | Path, code: int = 0, timeout_s: float = 150) -> str:
        """What `perceive` prints, which ends with this code."""
        done = subprocess.run(
            [PERCEIVE, *map(str, arguments)],
            env=self.environment, capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def asks(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.does(*arguments, "--json", code=code).splitlines()[0])
        return found

    def starts(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [PERCEIVE, *map(str, arguments)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def submits(self, job: Path, *more: str, code: int = 0) -> dict[str, Any]:
        return self.asks("submit", job, *self.target, *more, code=code)

    def wait(
        self, run_id: str, *states: str, until: Callable[[dict[str, Any]], object] = bool
    ) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while True:
            found = self.asks("status", run_id)
            if found["state"] in states and until(found):
                return found
            assert time.monotonic() < deadline, found
            assert found["state"] not in ("done", "failed", "stopped", "lost"), found
            time.sleep(0.3)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_head(tmp_path_factory.mktemp("submit") / "model", "PerceiverForSequenceClassification")


@pytest.fixture(params=["local", "ray"])
def user(
    request: pytest.FixtureRequest, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[User]:
    if request.param == "local":
        yield User(tmp_path, model, ["--target", "local"], {})
        return
    head: Head = request.getfixturevalue("head")
    if request.param == "ray":
        yield User(tmp_path, model, ["--address", head.address], head.environment)
        return
    # Commands of this process's operator join the head as those of a pod would join their own.
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.control_store}")
    volumes = {str(tmp_path): {"claim": "all"}, str(model.parent): {"claim": "models"}}
    with Server() as server, Operator(server):
        config = server.kubeconfig(tmp_path / "kubeconfig")
        yield User(
            tmp_path,
            model,
            ["--target", "kuberay"],
            {"KUBECONFIG": str(config)},
            kubernetes={"image": IMAGE, "volumes": volumes},
        )


everywhere = pytest.mark.parametrize("user", ["local", "ray", "kuberay"], indirect=True)


def rows(folder: Path) -> list[dict[str, Any]]:
    table = reader.dataset(str(folder)).to_table()
    return sorted(table.select(["uri", "labels", "scores"]).to_pylist(), key=lambda row: row["uri"])


def slow(user: User, name: str) -> Path:
    """A job that takes a while: something can happen to it."""
    return user.job(name, texts=SLOW, compute={"batch": 1, "shard_windows": 1, "decode_workers": 1})


def driver(user: User, run_id: str) -> psutil.Process:
    """The process that makes the attempt."""
    out = Path(user.asks("status", run_id)["output"])
    lease = max((out / "runs/leases").glob("*.json"))
    return psutil.Process(json.loads(lease.read_text())["holder"]["pid"])


@everywhere
def test_from_submission_to_table(user: User) -> None:
    job = user.job("whole")
    sent = user.submits(job)
    assert sent["sent"]
    assert sent["state"] == "submitted"
    assert sent["submission"] == sent["run_id"]
    said = user.does("attach", sent["run_id"], code=3)
    assert f"Run {sent['run_id']} is done: 5 rows of 6 items" in said
    assert f"Next: perceive errors {sent['output']}" in said
    status = user.asks("status", sent["run_id"][:6])
    assert (status["state"], status["attempt"], status["exit_code"]) == ("done", 1, 3)
    assert (status["rows"], status["quarantined"], status["errors"]) == (5, 1, {"TextError": 1})
    assert "windows: 6" in user.does("logs", sent["run_id"])
    [listed] = user.asks("list")["runs"]
    assert (listed["run_id"], listed["state"], listed["target"]) == (sent["run_id"], "done", sent["target"])
    here = user.folder / "here"
    user.does("run", job, "-o", f"output.uri={here}", code=3)
    assert rows(Path(sent["output"])) == rows(here)
    assert not user.submits(job)["sent"]  # done is done
    assert "is done already" in user.does("submit", job, *user.target)


@everywhere
def test_submitted_twice_it_is_one_run(user: User) -> None:
    job = slow(user, "twice")
    both = [user.starts("submit", job, *user.target, "--json") for _ in range(2)]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert said[0]["run_id"] == said[1]["run_id"]
    assert [one["sent"] for one in said].count(True) == 1
    assert not user.submits(job)["sent"]
    user.does("attach", said[0]["run_id"], code=3)
    assert user.asks("status", said[0]["run_id"])["attempt"] == 1


def test_the_client_dies_and_somebody_else_attaches(user: User) -> None:
    client = user.starts("submit", slow(user, "left"), *user.target, "--wait")
    deadline = time.monotonic() + 60
    while not (found := user.asks("list")["runs"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    [run] = found
    user.wait(run["run_id"], "running", "submitted", until=lambda found: found["submission"])
    os.killpg(client.pid, signal.SIGKILL)
    client.communicate()
    user.does("attach", run["run_id"], code=3)
    assert user.asks("status", run["run_id"])["attempt"] == 1


@everywhere
def test_stopped_and_resumed(user: User) -> None:
    sent = user.submits(slow(user, "stopped"))
    user.wait(sent["run_id"], "running", until=lambda found: found["shards_done"] >= 3)
    assert f"Run {sent['run_id']} is asked to stop." in user.does("stop", sent["run_id"])
    stopped = user.asks("stop", sent["run_id"], "--wait")
    assert stopped["state"] == "stopped"
    seen = user.asks("status", sent["run_id"])
    assert 3 <= seen["shards_done"] < SLOW
    assert f"Next: perceive resume {sent['run_id']}" in user.does("status", sent["run_id"])
    again = user.asks("resume", sent["run_id"])
    assert again["sent"]
    assert again["submission"] == f"{sent['run_id']}-2"
    user.does("attach", sent["run_id"], code=3)
    assert user.asks("status", sent["run_id"])["attempt"] == 2
    assert len(rows(Path(sent["output"]))) == SLOW - 1


def test_a_killed_driver_is_lost_and_resumed(user: User) -> None:
    sent = user.submits(slow(user, "killed"))
    user.wait(sent["run_id"], "running", until=lambda found: found["shards_done"] >= 3)
    driver(user, sent["run_id"]).kill()
    seen = user.wait(sent["run_id"], "lost", "failed")
    assert f"Next: perceive resume {sent['run_id']}" in user.does("status", sent["run_id"])
    assert seen["exit_code"] == 5
    assert user.submits(user.folder / "killed.yaml")["sent"]  # submitting again resumes as well
    user.does("attach", sent["run_id"], code=3)
    assert len(rows(Path(sent["output"]))) == SLOW - 1


@pytest.mark.parametrize("user", ["kuberay"], indirect=True)
def test_kuberay_resumes_a_killed_driver_itself(user: User) -> None:
    sent = user.submits(slow(user, "again"))
    out, deadline = Path(sent["output"]), time.monotonic() + 120
    events = out / "runs" / sent["run_id"] / "events.jsonl"
    while not events.exists() or events.read_text().count("shard_committed") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    lease = max(
        (out / "runs/leases").glob("*.json")
    )  # not by `perceive`: the run may be done before that answers
    os.kill(json.loads(lease.read_text())["holder"]["pid"], signal.SIGKILL)
    user.does("attach", sent["run_id"], code=3)
    seen = user.asks("status", sent["run_id"])
    assert (seen["attempt"], seen["submission"]) == (2, sent["run_id"])
    assert len(rows(Path(sent["output"]))) == SLOW - 1


@everywhere
def test_logs_are_followed(user: User) -> None:
    sent = user.submits(user.job("followed"))
    assert "5 rows in" in user.does("logs", "-f", sent["run_id"])
    events = [json.loads(line)["event"] for line in user.does("logs", "--json", sent["run_id"]).splitlines()]
    assert events[0] == "attempt_started"
    assert events[-1] == "attempt_done"


def test_a_lost_store_is_made_anew(user: User) -> None:
    sent = user.submits(user.job("forgotten"), "--wait", code=3)
    (user.folder / "state" / "runs.db").unlink()
    assert user.asks("list")["runs"] == []
    [found] = user.asks("list", "--from", sent["output"])["runs"]
    assert (found["run_id"], found["state"], found["exit_code"], found["name"]) == (
        sent["run_id"],
        "done",
        3,
        "forgotten",
    )
    assert user.asks("status", sent["output"])["run_id"] == sent["run_id"]


def test_a_bad_job_is_not_sent(user: User) -> None:
    job = user.job("bad", options={"top_k": 0})
    assert "top_k" in user.does("submit", job, *user.target, code=2)
    assert user.asks("list")["runs"] == []


def test_no_secret_goes_along(user: User) -> None:
    user.environment["MY_TOKEN"] = "planted-secret"
    said = user.does("submit", user.job("secret"), *user.target, "--env", "MY_TOKEN", code=2)
    assert "--env MY_TOKEN: what is called so is a secret" in said


def test_a_run_in_its_own_process_is_watched_stopped_and_resumed(model: Path, tmp_path: Path) -> None:
    """What was not submitted is found by its output, and has no log but what happened to it."""
    user = User(tmp_path, model, [], {})
    job, out = slow(user, "here"), str(tmp_path / "out-here")
    process = user.starts("run", job)
    deadline = time.monotonic() + 120
    while not list(Path(out).glob("runs/*/run.json")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    run = user.wait(out, "running", until=lambda found: found["shards_done"] >= 3)
    user.does("stop", out)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"To resume: perceive run {job}" in said
    assert "attempt_interrupted" in user.does("logs", out)
    stopped = user.asks("status", run["run_id"])
    assert (stopped["state"], stopped["exit_code"], stopped["target"]) == ("stopped", 130, "")
    result = user.asks("resume", out, code=3)
    assert (result["run_id"], result["attempt"]) == (run["run_id"], 2)
    assert len(rows(Path(out))) == SLOW - 1


def test_a_dead_head_costs_an_attempt(model: Path, tmp_path: Path) -> None:
    """The cluster is gone, and all that it knew; another one at its address goes on with the run."""
    head = Head()
    head.start()
    try:
        user = User(tmp_path, model, ["--address", head.address], head.environment)
        sent = user.submits(slow(user, "beheaded"))
        user.wait(sent["run_id"], "running", until=lambda found: found["shards_done"] >= 3)
        head.kill()
        seen = user.asks("status", sent["run_id"])
        assert seen["state"] == "lost"
        assert "does not answer" in user.does("status", sent["run_id"])
        head.start()
        again = user.asks("resume", sent["run_id"])
        assert again["sent"]
        user.does("attach", sent["run_id"], code=3)
        assert len(rows(Path(sent["output"]))) == SLOW - 1
    finally:
        head.kill()


def test_a_cluster_is_looked_at_and_planned_for(model: Path, tmp_path: Path, head: Head) -> None:
    user = User(tmp_path, model, [], head.environment)
    checks = user.asks("doctor", "--address", head.address)["checks"]
    assert [(one["name"], one["state"]) for one in checks] == [
        ("job API", "ok"),
        ("cluster's ray", "ok"),
        ("cluster's nodes", "ok"),
    ]
    assert checks[2]["found"] == "1, with 4 CPUs and 0 GPUs."
    plan = user.asks("plan", user.job("planned"), "--address", head.address)
    assert (plan["nodes"], plan["items"], plan["seconds"]) == ([[4.0, 0.0, ""]], 6, None)
    too_many = user.does(
        "plan",
        tmp_path / "planned.yaml",
        "--address",
        head.address,
        "-o",
        "compute.decode_workers=99",
        code=2,
    )
    assert "compute.decode_workers asks for 99 workers" in too_many
    [failed] = user.asks("doctor", "--address", "http://127.0.0.1:9", code=5)["checks"]
    assert (failed["state"], "does not answer" in failed["found"]) == ("failed", True)
