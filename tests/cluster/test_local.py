"""The local target."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest

from cluster.local import Resources, _short, metrics_address, node_of, own_sigterm

ROOT = Path(__file__).parent.parent.parent


def test_every_socket_is_on_loopback(ray_here: Resources) -> None:
    me = psutil.Process()
    listening = [
        (process.name(), connection.laddr.ip)
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 5, "expected Ray's own servers to be found"
    assert {address for _, address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening


def test_metrics_are_served_on_loopback(ray_here: Resources) -> None:
    address = metrics_address()
    assert address
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    with build_opener(ProxyHandler({})).open(f"http://{address}/metrics", timeout=30) as answer:
        assert b"ray_node_mem_used" in answer.read()


def test_ray_imported_too_early_is_refused() -> None:
    """Ray reads the variable at import: without it, it would listen on every interface."""
    code = (
        "import os; os.environ.pop('RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER', None)\n"
        "import ray\n"
        "from cluster.local import local_ray\n"
        "with local_ray(): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Ray was imported before RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 was set" in done.stderr


def test_a_sigterm_while_ray_starts_is_an_orderly_end() -> None:
    def as_rays(
        signum: int, frame: FrameType | None
    ) -> None:  # which ray.init puts there, and which exits so
        sys.exit(signum)

    def stopped() -> None:
        with own_sigterm():
            signal.signal(signal.SIGTERM, as_rays)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(SystemExit, match="3"), own_sigterm():
        sys.exit(3)


def test_nothing_is_left_behind_unless_it_failed(tmp_path: Path) -> None:
    code = (
        "from cluster.local import local_ray\n"
        "try:\n"
        "    with local_ray(cpus=1):\n"
        "        raise ValueError('on purpose')\n"
        "except ValueError as error: print(error.__notes__[0].split()[-1].rstrip('.'))\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    logs = Path(done.stdout.strip())
    assert logs.is_dir()
    assert not (tmp_path / ".ray").exists()  # no token in the home
    subprocess.run(["rm", "-r", logs], check=True)


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA GeForce RTX 5090", "GeForce-RTX-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
    ],
)
def test_a_gpu_is_called_what_ray_calls_it(model: str, short: str) -> None:
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    assert _short(model) == short == NvidiaGPUAcceleratorManager._gpu_name_to_accelerator_type(model)


def test_a_node_has_what_ray_says_of_it() -> None:
    assert node_of({"CPU": 8.0, "GPU": 2.0, "memory": 1e9}, {"ray.io/accelerator-type": "T4"}) == (
        8.0,
        2.0,
        "T4",
    )
    assert node_of({"memory": 1e9}, None) == (0.0, 0.0, "")
