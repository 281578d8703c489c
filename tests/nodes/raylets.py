"""A Ray cluster of several nodes on this machine, each with a loopback address, killed and added one by one."""

import os
import tempfile
from typing import Any

import pytest

from tests.nodes.work import Run, Work, clear, clear_folder, perceive_run


class Raylets:
    """A head without CPUs, where runs' own processes are, and so many nodes with a few. On the main thread only."""

    def __init__(self, work: Work, nodes: int = 0, cpus: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self.work, self.cpus = work, cpus
        self.folder = tempfile.mkdtemp(prefix="pn", dir="/tmp")  # short, for Ray's sockets
        self.cluster = Cluster()
        self.nodes: list[Any] = []
        self.runs: list[Run] = []
        self._add(num_cpus=0, temp_dir=self.folder, include_dashboard=False)
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        address: str = self.cluster.address
        return address

    def add(self, **arguments: Any) -> Any:
        """One more node, alive."""
        cache = {"PERCEIVER_CACHE": str(self.work.folder / f"cache-{len(self.nodes)}")}
        self.nodes.append(self._add(**{"num_cpus": self.cpus, "env_vars": cache, **arguments}))
        return self.nodes[-1]

    def _add(self, **arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.work.environment.items():
                patch.setenv(name, value)
            # No `auto` of anybody's finds it.
            patch.setattr("ray._private.utils.write_ray_address", lambda address: None)
            return self.cluster.add_node(
                node_ip_address="127.0.0.1", object_store_memory=128 << 20, **arguments
            )

    def kill(self, node: Any) -> None:
        """SIGKILL all of a node."""
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)

    def start(self, out: str, **compute: Any) -> Run:
        """A run of the job into this output."""
        command = perceive_run(self.work.job(out, **compute), self.address)
        self.runs.append(Run(self.work, command, self.work.environment))
        return self.runs[-1]

    def kill_head(self) -> None:
        """SIGKILL the head, and so the control store; nodes follow when they notice."""
        head: Any = self.cluster.head_node
        head.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)

    def close(self) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()
        for node in [*self.nodes, self.cluster.head_node]:
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        clear(self.work)
        clear_folder(self.folder)


assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"  # else it would listen on every interface
