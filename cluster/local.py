"""The local target: Ray in this machine, for the length of a run, with every socket on 127.0.0.1."""

import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.beside import beside
from cluster.errors import ClusterError

Node = tuple[float, float, str]  #: CPUs, GPUs, and of which type these are, where that is known
_TYPE = "ray.io/accelerator-type"  # the label that Ray gives a node by its GPUs, and its owner may


@dataclass(frozen=True)
class Resources:
    """What a target has, in Ray's logical units."""

    nodes: tuple[Node, ...]
    held: tuple[float, float] = (0.0, 0.0)  #: the CPUs and GPUs of these that others use

    @property
    def cpus(self) -> float:
        return sum(cpus for cpus, _, _ in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(gpus for _, gpus, _ in self.nodes)


#: Ray rewrites 127.0.0.1 to the host's address, and so listens on every interface, unless the first is set (2.60).
#: The others keep a local run quiet; setdefault leaves each to the user.
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # at error, every actor pool prints a false alarm (ray issue 53727)
    "RAY_DATA_LOG_LEVEL": "CRITICAL",  # what it logs as an error it also raises
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def nvidia_driver() -> bool:
    """Whether there is a driver for GPUs of NVIDIA's: on Linux, or WSL's."""
    return any(Path(place).exists() for place in ("/proc/driver/nvidia", "/dev/dxg"))


def gpu_type() -> str:
    """Of which type this machine's first GPU is, as Ray (2.60) would call it; empty if it has none."""
    for about in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in about.read_text().splitlines():
            key, _, model = line.partition(":")
            if key == "Model":
                return _short(model.strip())
    return ""


def _short(model: str) -> str:
    """NVIDIA A100-SXM4-40GB is an A100, NVIDIA GeForce RTX 5090 a GeForce-RTX-5090."""
    found = re.match(r"\w+\s+((?:[A-Z]+\s+)*[A-Z0-9]*\d[A-Z0-9]*)", model)
    name = found[1] if found and len(found[1]) > 1 else re.sub(r"^NVIDIA\s+", "", model)
    return name.replace(" ", "-")


@contextmanager
def local_ray(
    cpus: int | None = None, gpus: int | None = None, lost: Callable[[str], None] = lambda name: None
) -> Iterator[Resources]:
    """Start Ray for a `with` block and stop it after; its folder goes too, unless the block raised.

    `lost` is called, in another thread, with the name of a daemon of Ray's that dies in the block, and should end the
    process: Ray itself does, within 15 s of its raylet's death and 60 of its control store's, without a word, and until
    then nothing that has to do with Ray returns.

    `cpus` and `gpus` are logical; by default what the machine has.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Ray asks for a token by default and would leave one in the user's home; this one ends with the process.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray
    from ray._private import ray_constants

    if ray_constants.ENABLE_RAY_CLUSTER:
        raise ClusterError(
            "Ray was imported before RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 was set, so it would listen on every "
            "interface. Set that variable before the import, or import ray after local_ray() has begun."
        )

    folder = tempfile.mkdtemp(prefix="perceive-", dir=_short_tmp())
    keep = False
    try:
        with _muffled(), own_sigterm():
            ray.init(
                address="local",
                num_cpus=cpus or cores(),
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
        with beside(partial(_dead, lost=lost)):
            yield alive()
    except Exception as error:
        keep = True
        error.add_note(f"Ray's logs of this run are in {folder}.")
        raise
    finally:
        ray.shutdown()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Keep what this process does on SIGTERM: ray.init (2.60) has it exit with 15 instead, which is no orderly end.

    One that comes in the block is a KeyboardInterrupt.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM:
            raise KeyboardInterrupt from end
        raise
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def alive() -> Resources:
    """What the nodes have of the Ray that this process is connected to."""
    import ray

    return Resources(
        tuple(node_of(node["Resources"], node.get("Labels")) for node in ray.nodes() if node["Alive"])
    )


def metrics_address() -> str | None:
    """Where the metrics are of the Ray that local_ray() has started; None without what comes by ray[default]."""
    import ray

    [port] = [node["MetricsExportPort"] for node in ray.nodes()]
    return f"127.0.0.1:{port}" if port > 0 else None


def node_of(resources: Mapping[str, float], labels: Mapping[str, str] | None) -> Node:
    """A node by what Ray says of it."""
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0), (labels or {}).get(_TYPE, "")


def _dead(ended: threading.Event, lost: Callable[[str], None]) -> None:
    """Call `lost` once a daemon has died."""
    from ray._private.worker import _global_node

    node: Any = _global_node
    while not ended.wait(0.5):
        for name, _ in node.dead_processes():
            if name in ("gcs_server", "raylet"):
                lost(name)
                return


@contextmanager
def _muffled() -> Iterator[None]:
    """Hold back what native code writes to stderr (Ray announces its log level); show it if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _short_tmp() -> str:
    """Ray's socket paths must stay under 107 characters: 60 of them are Ray's own."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 30 else "/tmp"
