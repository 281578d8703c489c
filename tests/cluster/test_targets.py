"""What every target promises, of each that there is: this machine, a real Ray head, and Kubernetes.

Kubernetes is an API server in this process, with an operator that runs commands here; and, where KUBECONFIG names one
and PERCEIVER_TEST_IMAGE an image that its nodes can pull, a real cluster with KubeRay.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import psutil
import pytest

from cluster.errors import ClusterError
from cluster.kuberay.settings import Kubernetes
from cluster.kuberay.target import KubeRayTarget
from cluster.kuberay.target import target as kuberay_target
from cluster.processes import LocalTarget
from cluster.ray_jobs import RayTarget
from cluster.target import Sent, State, Submission, Target
from tests.cluster.head import Head, free_port
from tests.cluster.kuberay.conftest import IMAGE as PINNED
from tests.cluster.kuberay.operator import Operator
from tests.cluster.kuberay.server import Server

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(120)]

_numbers = count()


#: A real cluster, which only a test's session is given.
REAL = os.environ.get("KUBECONFIG")
IMAGE = os.environ.get("PERCEIVER_TEST_IMAGE", "")
PYTHON = sys.executable


@pytest.fixture(params=["local", "ray", "kuberay", "kuberay over http", "a real kuberay"])
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Target]:
    match request.param:
        case "local":
            yield LocalTarget(tmp_path / "state")
        case "ray":
            head: Head = request.getfixturevalue("head")
            yield RayTarget(head.address)
        case "a real kuberay":
            if not (REAL and IMAGE):
                pytest.skip("KUBECONFIG and PERCEIVER_TEST_IMAGE name no cluster with KubeRay")
            monkeypatch.setattr(sys.modules[__name__], "PYTHON", "python")
            small = {"cpus": 1, "memory": "2Gi"}
            settings = Kubernetes(
                image=IMAGE,
                allow_tag=True,
                backoff_limit=0,
                submission_mode="SidecarMode",
                head=small,
                cpu_workers=small,
            )
            yield kuberay_target(settings=settings)
        case _:
            mode = "SidecarMode" if request.param == "kuberay" else "HTTPMode"
            settings = Kubernetes(image=PINNED, backoff_limit=0, submission_mode=mode)
            with Server() as server, Operator(server):
                monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
                yield kuberay_target(settings=settings)


@pytest.fixture
def here(target: Target) -> Target:
    """A target whose commands run on this machine, where a test can see what they do."""
    if isinstance(target, KubeRayTarget) and target.settings and target.settings.image == IMAGE:
        pytest.skip("its commands run on another machine")
    return target


def python(folder: Path, code: str, **fields: object) -> Submission:
    """A submission of an id of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "the_command.py").write_text(code)
    id = f"test-{os.getpid()}-{next(_numbers)}"
    return Submission(id, (PYTHON, "-u", "the_command.py"), folder, **fields)  # type: ignore[arg-type]


def wait(target: Target, id: str, *states: State, seconds: float = 30) -> Sent:
    return wait_for(lambda: (sent := target.look(id)) and sent.state in states and sent, seconds)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> "Sent":
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found  # type: ignore[return-value]


def test_it_has_nodes(target: Target) -> None:
    nodes = target.nodes()
    assert len(nodes) == 1
    assert nodes[0][0] >= 1


def test_a_command_that_succeeds(target: Target, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data.txt").write_text("what lies in the folder")
    code = "import os; print(open('data.txt').read(), os.environ['SAID'])"
    submission = python(tmp_path / "folder", code, environment={"SAID": "and what was said"})
    assert target.look(submission.id) is None
    assert target.submit(submission)
    assert wait(target, submission.id, "succeeded") == done(target, submission, 0)
    assert "what lies in the folder and what was said" in "".join(target.logs(submission.id))


@pytest.mark.parametrize(("code", "state"), [(3, "succeeded"), (5, "failed"), (2, "failed")])
def test_how_it_ended_is_known(code: int, state: State, target: Target, tmp_path: Path) -> None:
    submission = python(tmp_path / "folder", f"raise SystemExit({code})")
    target.submit(submission)
    sent = wait(target, submission.id, "succeeded", "failed")
    if state == "succeeded":
        assert sent == done(target, submission, code)
    else:
        assert (sent.state, sent.exit_code, bool(sent.message)) == (state, code, True)


def done(target: Target, submission: Submission, code: int) -> Sent:
    """One that did what it was to do; of its exit codes KubeRay keeps only that it was none of a failure."""
    return Sent(submission.id, "succeeded", exit_code=None if isinstance(target, KubeRayTarget) else code)


def test_an_id_is_submitted_once(here: Target, tmp_path: Path) -> None:
    target = here
    submission = python(
        tmp_path / "folder",
        f"import os, time; open('{tmp_path}/' + str(os.getpid()), 'w'); time.sleep(2)",
    )
    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(lambda _: target.submit(submission), range(4)))
    assert first.count(True) <= 1  # none, where the one that was first saw another's look
    wait(target, submission.id, "succeeded")
    assert not target.submit(submission)
    assert target.look(submission.id) == done(target, submission, 0)
    assert len([path for path in tmp_path.iterdir() if path.name.isdigit()]) == 1


def test_its_log_is_followed_to_its_end(target: Target, tmp_path: Path) -> None:
    code = "import time\nfor n in range(6):\n    print('line', n)\n    time.sleep(0.5)"
    submission = python(tmp_path / "folder", code)
    target.submit(submission)
    said, before_the_end = "", False
    for text in target.logs(submission.id, follow=True):
        said += text
        sent = target.look(submission.id)
        before_the_end |= "line 0" in said and sent is not None and sent.state == "running"
    assert [line for line in said.splitlines() if line.startswith("line")] == [f"line {n}" for n in range(6)]
    assert before_the_end


def test_it_stops_in_order(here: Target, tmp_path: Path) -> None:
    target = here
    code = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open('{tmp_path}/told', 'w'), sys.exit(130)))\n"
        "print('ready')\ntime.sleep(60)"
    )
    submission = python(tmp_path / "folder", code)
    target.submit(submission)
    wait_for(lambda: "ready" in "".join(target.logs(submission.id)))
    target.stop(submission.id)
    if isinstance(target, KubeRayTarget):  # a RayJob that was stopped is no more
        wait_for(lambda: target.look(submission.id) is None)
    else:
        wait(target, submission.id, "stopped")
    assert (tmp_path / "told").exists()
    target.stop(submission.id)  # it has ended: nothing to do
    target.stop("never-heard-of")


def test_a_command_that_is_killed_has_failed(here: Target, tmp_path: Path) -> None:
    target = here
    submission = python(
        tmp_path / "folder",
        f"import os, time\nopen('{tmp_path}/pid', 'w').write(str(os.getpid()))\ntime.sleep(60)",
    )
    target.submit(submission)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    sent = wait(target, submission.id, "failed")
    assert sent.message


def test_packages_go_along(target: Target, tmp_path: Path) -> None:
    (tmp_path / "lib" / "taken_along").mkdir(parents=True)
    (tmp_path / "lib" / "taken_along" / "__init__.py").write_text("WORD = 'taken along'")
    code = "import taken_along; print('it was', taken_along.WORD)"
    submission = python(tmp_path / "folder", code, packages=(tmp_path / "lib" / "taken_along",))
    if isinstance(target, KubeRayTarget):
        with pytest.raises(ClusterError, match="No code goes along to Kubernetes"):
            target.submit(submission)
        return
    target.submit(submission)
    wait(target, submission.id, "succeeded")
    assert "it was taken along" in "".join(target.logs(submission.id))


def test_logs_of_what_is_not_there(target: Target) -> None:
    with pytest.raises(ClusterError, match="never-heard-of"):
        list(target.logs("never-heard-of"))


def test_a_supervisor_that_is_killed_is_found_dead(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "state")
    submission = python(tmp_path / "folder", "import time; time.sleep(60)")
    target.submit(submission)
    wait(target, submission.id, "running")
    pid, _ = json.loads((tmp_path / "state" / submission.id / "process").read_text())
    supervisor = psutil.Process(pid)
    tree = [supervisor, *supervisor.children(recursive=True)]
    for process in tree:
        process.kill()
    psutil.wait_procs(tree, 10)
    sent = target.look(submission.id)
    assert sent == Sent(submission.id, "failed", "It was killed, or this machine started anew.")


def test_a_cluster_that_is_not_there() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    message = f"{address} does not answer .*the address of the head's dashboard, such as http://head:8265"
    with pytest.raises(ClusterError, match=message):
        RayTarget(address).look("any")


def test_a_wrong_token(head: Head) -> None:
    code = f"from cluster.ray_jobs import RayTarget; RayTarget({head.address!r}).nodes()"
    environment = os.environ | head.environment | {"RAY_AUTH_TOKEN": "another"}  # Ray reads it once a process
    tried = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert f"ClusterError: {head.address} asks for its token, or another one. Set RAY_AUTH" in tried.stderr


def test_it_listens_on_this_machine_alone(head: Head) -> None:
    assert head.process is not None
    heads = psutil.Process(head.process.pid)
    for process in [heads, *heads.children(recursive=True)]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), process.cmdline()
