"""A Ray cluster on this machine with Ray's own autoscaler, which makes nodes of it as Kubernetes would make pods."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.command import kill_tree
from tests.nodes.work import Run, Work, clear, clear_folder, perceive_run

#: What Ray's own defaults would be, which its wheel (2.60) leaves out of this provider.
_NONE: dict[str, Any] = {
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{
        name: []
        for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")
    },
    **{name: [] for name in ("setup_commands", "head_setup_commands", "worker_setup_commands")},
    **{name: [] for name in ("head_start_ray_commands", "worker_start_ray_commands")},
    "file_mounts_sync_continuously": False,
}
_HEAD = "ray.head.default"  # the provider's own name
_MODULE = "ray.autoscaler._private.fake_multi_node.node_provider"


class Scaling:
    """A head without CPUs, and from `least` to `most` nodes of 2 CPUs, as they are asked for."""

    def __init__(self, work: Work, port: int, least: int, most: int) -> None:
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        self.work, self.address = work, f"127.0.0.1:{port}"
        self.folder = tempfile.mkdtemp(prefix="ps", dir="/tmp")  # short, for Ray's sockets
        config = Path(self.folder, "autoscaler.json")
        nodes = {"CPU": 2, "object_store_memory": 128 << 20}
        kinds = {
            _HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu": {"resources": nodes, "node_config": {}, "min_workers": least, "max_workers": most},
        }
        provider = {
            "type": "external",
            "module": f"{_MODULE}.FakeMultiNodeProvider",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
            "gcs_address": self.address,
        }
        about = {
            "cluster_name": "scaling", "max_workers": most, "idle_timeout_minutes": 0.15, "upscaling_speed": 10,
            "provider": provider, "available_node_types": kinds, "head_node_type": _HEAD,
        }  # fmt: skip
        config.write_text(json.dumps(about | _NONE))
        environment = {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        with Path(self.folder, "said").open("w") as said:
            self.head = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--disable-usage-stats",
                    f"--autoscaling-config={config}", "--num-cpus=0", f"--port={port}", "--node-ip-address=127.0.0.1",
                    f"--ray-client-server-port={port + 1}", "--include-dashboard=false", f"--temp-dir={self.folder}",
                    f"--object-store-memory={128 << 20}", *ports,
                ],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env=os.environ | work.environment | environment,
            )  # fmt: skip
        self.runs: list[Run] = []

    def start(self, job: Path) -> Run:
        """A run, as the operator has it."""
        environment = self.work.environment | {"PERCEIVER_TARGET": "kuberay batch@here"}
        self.runs.append(Run(self.work, perceive_run(job, self.address), environment))
        return self.runs[-1]

    def close(self) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()
        kill_tree(self.head)
        clear(self.work)
        clear_folder(self.folder)
